"""Shared code of the commands: option types, `--traceback`, errors as one line on stderr, exit codes.

A command is a function with click's decorators and `@command()` on top; called with a list of arguments it ends the
process by SystemExit, as from a shell.
"""

import contextlib
import importlib
import math
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from dacnn_search.common.errors import DacnnSearchError, InputError
from dacnn_search.common.units import parse_bytes, parse_count, parse_duration


class Parsed(click.ParamType):
    """An option type that a parsing function gives; the message of its ValueError is told."""

    def __init__(self, parse: Callable[[str], Any], name: str) -> None:
        self.parse = parse
        self.name = name  # of the value in the help

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _parse_gpus(text: str) -> float | str:
    if text == "auto":
        return text
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise ValueError(f"must be auto or a number of at least 0, but is {text!r}")


def _parse_epochs(text: str) -> int | str:
    """Return epochs, auto or none. Raises ValueError for anything else."""
    if text in ("auto", "none"):
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ValueError(f"must be auto, none or a number of at least 1, but is {text!r}")


PATH = click.Path(path_type=Path)
COUNT = Parsed(parse_count, "count")
BYTES = Parsed(parse_bytes, "size")
DURATION = Parsed(parse_duration, "time")
GPUS = Parsed(_parse_gpus, "share")  # a number of GPUs, such as 0.5, or auto
EPOCHS = Parsed(_parse_epochs, "epochs")  # a number, auto or none


def at_least(least: int) -> click.IntRange:
    """Return the option type of whole numbers from `least`."""
    numbers = click.IntRange(min=least)
    numbers.name = "n"  # shown as --trials N
    return numbers


class _Option(click.Option):
    def __init__(self, *args: Any, heading: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.heading = heading


def option_group(heading: str) -> Callable[..., Any]:
    """Return a decorator like `click.option`, for options that the help lists under `heading`."""
    return partial(click.option, cls=_Option, heading=heading)


class _OneLineErrors(click.Command):
    """Ends the process after `main`: with an exit code, and with one line on stderr for a wrong command line."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        try:
            sys.exit(super().main(args, *rest, **{**extra, "standalone_mode": False}) or 0)
        except click.ClickException as error:
            _fail(" ".join(error.format_message().split()), InputError.exit_code)
        except click.Abort:  # Ctrl-C before the command began
            _fail("interrupted", 130)


class Command(_OneLineErrors):
    """A command with `--traceback` whose errors are one line on stderr and whose return value is the exit code.

    For an option with `multiple=True`, `--name a b` means `--name a --name b`.
    """

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.context_settings = {"help_option_names": ["-h", "--help"], "show_default": True}
        purpose = "show where an error comes from, as DACNN_SEARCH_TRACEBACK=1 does"
        self.params.append(click.Option(["--traceback"], is_flag=True, envvar="DACNN_SEARCH_TRACEBACK", help=purpose))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        multiple = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        repeated: list[str] = []
        option = ""
        for argument in args:
            if argument.startswith("-"):
                option = argument
            elif option in multiple and repeated[-1] != option:
                repeated.append(option)
            repeated.append(argument)
        return super().parse_args(ctx, repeated)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                headings.setdefault(getattr(param, "heading", "Options"), []).append(record)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
        with_traceback = ctx.params.pop("traceback")
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # the reader of a pipe, such as head, has left
            sys.stderr.close()
            sys.exit(0)
        except (DacnnSearchError, KeyboardInterrupt, OSError) as error:
            if with_traceback:
                _print_traceback(error)
            if isinstance(error, DacnnSearchError):
                _fail(str(error), error.exit_code)
            if isinstance(error, KeyboardInterrupt):
                _fail("interrupted", 130)
            _fail(f"{error.filename or 'a file'}: {error.strerror or error} (--traceback shows where)", 1)


command = partial(click.command, cls=Command)


class CommandGroup(_OneLineErrors, click.Group):
    """Commands that are modules with a `main`, imported when they are asked for.

    `modules` holds, by the command's name, the module and a line for the help.
    """

    def __init__(self, modules: Mapping[str, tuple[str, str]], **attributes: Any) -> None:
        super().__init__(**attributes)
        self.modules = modules

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            click.echo(ctx.get_help())
            ctx.exit(InputError.exit_code)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return importlib.import_module(self.modules[cmd_name][0]).main if cmd_name in self.modules else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, purpose) for name, (_, purpose) in self.modules.items()])


def _print_traceback(error: BaseException) -> None:
    """Print the traceback with all errors that led to this one, also where `from None` hides them."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__suppress_context__ = False
        cause = cause.__cause__ or cause.__context__
    traceback.print_exception(error)


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)
