"""What all commands share: errors become one line on stderr and an exit code, never a traceback; warnings a line."""

import argparse
import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

from dacnn_search.common.errors import DacnnSearchError

__all__ = ["command", "parsed", "whole"]

T = TypeVar("T")


def command(main: Callable[..., int | None]) -> Callable[..., None]:
    """Make `main(arguments=None)` a command: it ends the process with main's exit code, or, for an error of ours,
    prints its message and exits with the error's code."""

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None) -> None:
        warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
        try:
            code = main(arguments)
            sys.stdout.flush()
        except DacnnSearchError as error:
            sys.exit(_fail(str(error), error.exit_code))
        except KeyboardInterrupt:
            sys.exit(_fail("interrupted", 130))
        except BrokenPipeError:  # the reader of a pipe, such as head, has left
            sys.stderr.close()
            sys.exit(0)
        except OSError as error:  # a disk that is full or gone
            sys.exit(_fail(f"{error.filename or 'a file'}: {error.strerror or error}", 1))
        sys.exit(code or 0)

    return run


def parsed(parse: Callable[[str], T]) -> Callable[[str], T]:
    """An argument's type: what `parse` makes of the text. Argparse tells its ValueError."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def whole(least: int) -> Callable[[str], int]:
    """An argument's type: a whole number of at least `least`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, but is {text!r}")
        return value

    return parse


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def share(text: str) -> float | str:
    """`auto` or a share of GPUs, a number of at least 0. Raises ValueError for anything else."""
    if text == "auto":
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"must be auto or a number of at least 0, but is {text!r}")
    return value
