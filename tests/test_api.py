import inspect
import subprocess
import sys
import types

import pytest

import dacnn_search

COMMANDS = ["run", "space", "train", "export", "predict", "dashboard", "paper", "replay"]


def run_python(code, *, arguments=()):
    done = subprocess.run([sys.executable, *arguments, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_is_there_and_documented():
    assert dacnn_search.__all__ == sorted(dacnn_search.__all__)
    for name in dacnn_search.__all__:
        value = getattr(dacnn_search, name)
        assert not isinstance(value, types.ModuleType), name
        assert inspect.getdoc(value), name
        assert f"`{name}`" in dacnn_search.__doc__


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        dacnn_search.serach  # noqa: B018


def test_import_of_the_package_loads_nothing_else():
    heavy = "{'torch', 'ray', 'numpy', 'pydantic', 'optuna', 'pandas'}"
    run_python(f"import sys, dacnn_search; dir(dacnn_search); assert not {heavy} & sys.modules.keys()")


@pytest.mark.parametrize("command", COMMANDS)
def test_command_line_has_all_commands(command, capsys):
    from dacnn_search.cli import main

    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("Usage:")


def test_unknown_command(capsys):
    from dacnn_search.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["serach"])
    assert ended.value.code == 2
    assert "No such command 'serach'" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_a_module_that_runs(command):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"dacnn_search.{command}", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"Usage: python -m dacnn_search.{command}")
    assert done.stderr == ""
