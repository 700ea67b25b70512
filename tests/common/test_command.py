"""Commands end with an exit code and at most one line on stderr; `--traceback` shows where an error comes from."""

import errno
import os
import subprocess
import sys

import click
import pytest
from commands import exit_code

from dacnn_search.common.command import (
    BYTES,
    COUNT,
    DURATION,
    GPUS,
    CommandGroup,
    at_least,
    command,
    option_group,
)
from dacnn_search.common.errors import DataError, TrainingError

numbers = option_group("Numbers")


@command()
@click.option("--trials", type=at_least(1))
@click.option("--gpus", type=GPUS)
@click.option("--count", type=COUNT)
@click.option("--size", type=BYTES)
@click.option("--time", type=DURATION)
@numbers("--layers", type=at_least(0), multiple=True)
@click.argument("names", nargs=-1)
def show(**given):
    """Show what was given."""
    print({name: value for name, value in sorted(given.items()) if value not in (None, ())})


def failing(error):
    @command()
    def main():
        raise error

    return main


def test_values_are_parsed(capsys):
    arguments = ["--trials", "3", "--gpus", "0.5", "--count", "50k", "--size", "100kB", "--time", "2h"]
    assert exit_code(show, *arguments) == 0
    expected = {"count": 50_000, "gpus": 0.5, "size": 100_000, "time": 7200.0, "trials": 3}
    assert capsys.readouterr().out == f"{expected}\n"


@pytest.mark.parametrize(
    "arguments",
    ["--layers 1 2 --layers 3 --trials 5", "--layers 1 --layers 2 3 --trials 5", "--trials 5 --layers 1 2 3"],
)
def test_an_option_takes_several_values(arguments, capsys):
    assert exit_code(show, *arguments.split()) == 0
    assert capsys.readouterr().out == "{'layers': (1, 2, 3), 'trials': 5}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "Invalid value for '--trials': 0 is not in the range x>=1."),
        (["--trials", "x"], "Invalid value for '--trials': 'x' is not a valid"),
        (["--gpus", "-1"], "Invalid value for '--gpus': must be auto or a number of at least 0, but is '-1'"),
        (["--gpus", "nan"], "must be auto or a number of at least 0, but is 'nan'"),
        (["--count", "many"], "Invalid value for '--count': must be a count such as 50000, 50k or 1.5M, but is 'many'"),
        (["--time", "2y"], "must be a duration such as 90s, 30m or 2h, but is '2y'"),
        (["--layers", "1", "-2"], "No such option"),
        (["--trails", "3"], "--trials"),
    ],
)
def test_wrong_values_are_one_line(arguments, message, capsys):
    assert exit_code(show, *arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)


def test_help_lists_groups(capsys):
    assert exit_code(show, "-h") == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage:")
    assert "\nNumbers:\n  --layers N" in text
    assert "--traceback" in text


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results/x")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("no images"), 2, "no images"),
        (TrainingError("loss is nan"), 1, "loss is nan"),
        (FULL, 1, "results/x: No space left on device (--traceback shows where)"),
        (OSError("odd"), 1, "a file: odd (--traceback shows where)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line(error, code, message, capsys):
    assert exit_code(failing(error)) == code
    assert capsys.readouterr().err == f"{message}\n"


@pytest.mark.parametrize("error", [DataError("no images"), FULL])
def test_traceback_is_shown_on_demand(error, capsys, monkeypatch):
    code = exit_code(failing(error))
    *_, last = capsys.readouterr().err.splitlines()
    assert exit_code(failing(error), "--traceback") == code
    by_option = capsys.readouterr().err
    assert "in main\n    raise error" in by_option
    assert by_option.splitlines()[-1] == last
    monkeypatch.setenv("DACNN_SEARCH_TRACEBACK", "1")
    assert exit_code(failing(error)) == code
    assert "in main\n    raise error" in capsys.readouterr().err


def test_traceback_shows_the_error_behind_the_message(capsys):
    @command()
    def main():
        try:
            {}["missing"]
        except KeyError:
            raise DataError("no images") from None

    assert exit_code(main, "--traceback") == 2
    assert "KeyError: 'missing'" in capsys.readouterr().err


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())([])


def test_a_returned_number_is_the_exit_code():
    assert exit_code(command()(lambda: 3)) == 3


@pytest.mark.parametrize("given", [[], ["--help"]])
def test_a_group_lists_its_commands_without_importing_them(given, capsys):
    group = CommandGroup({"run": ("no.such.module", "search"), "replay": ("none", "ask again")}, name="x")
    assert exit_code(group, *given) == (0 if given else 2)
    assert "\n  run     search\n  replay  ask again\n" in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_error():
    code = (
        "import click; from dacnn_search.common.command import command\n"
        "command()(lambda: [print('x' * 1000) for _ in range(1000)] and None)([])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0
