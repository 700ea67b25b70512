import inspect
import subprocess
import sys
import types

import pytest

import dacnn_search


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


@pytest.mark.parametrize(
    "imports",
    [
        "from dacnn_search import export",
        "import dacnn_search.export; from dacnn_search import export",
        "from dacnn_search.export import main; from dacnn_search import export",
        "from dacnn_search import export; import dacnn_search.export",
        "import importlib; importlib.import_module('dacnn_search.export'); from dacnn_search import export",
    ],
)
def test_functions_named_like_modules_are_functions_whatever_was_imported(imports):
    code = f"{imports}; import types, sys; assert isinstance(export, types.FunctionType)"
    code += "; import dacnn_search; assert dacnn_search.export is export"
    code += "; assert isinstance(sys.modules.get('dacnn_search.export', sys), types.ModuleType)"
    run_python(code)


@pytest.mark.slow
def test_search_and_retrain_are_functions_after_their_modules_were_imported():
    code = "import dacnn_search.search, dacnn_search.retrain, types; from dacnn_search import search, retrain; "
    run_python(code + "assert {type(search), type(retrain)} == {types.FunctionType}")


@pytest.mark.parametrize("command", ["run", "space", "train", "export", "predict", "dashboard"])
def test_command_line_has_all_commands(command, capsys):
    from dacnn_search.cli import main

    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage:")


def test_unknown_command(capsys):
    from dacnn_search.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["serach"])
    assert ended.value.code == 2
    assert "the command must be one of run, space" in capsys.readouterr().err


def test_modules_that_are_commands_run_as_such():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "dacnn_search.export", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("usage: python -m dacnn_search.export")
    assert done.stderr == ""
