"""SIGINT and SIGTERM: the first is an orderly end, the second ends the process at once."""

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from dacnn_search.errors import DacnnSearchError

__all__ = ["Interrupted", "Stop", "orderly_end"]


class Interrupted(DacnnSearchError):
    """A signal ended a run; what was finished is kept. The exit code is a shell's for that signal: 130 or 143."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(f"interrupted; go on with: python -m dacnn_search.run --resume {shlex.quote(str(folder))}")
        self.exit_code = 128 + number


class Stop:
    """Whether a signal has asked for the end. It raises KeyboardInterrupt, except while it is `polled`."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._polled = False

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @contextlib.contextmanager
    def polled(self) -> Iterator[None]:
        """Within it a signal interrupts nothing: who is inside looks at `requested` and leaves soon."""
        self._polled = True
        try:
            yield
        finally:
            self._polled = False

    def _receive(self, number: int, frame: object) -> None:
        if self.requested:  # files are whole at any moment, and Ray's processes end with this one
            sys.stderr.write("\ninterrupted a second time: left at once\n")
            sys.stderr.flush()
            os._exit(128 + number)
        self.signal = number
        if not self._polled:
            raise KeyboardInterrupt


@contextlib.contextmanager
def orderly_end(folder: Path) -> Iterator[Stop]:
    """Within it a signal leads to `Interrupted` of the run in `folder`, either through the KeyboardInterrupt it
    raises or through one raised by who polls."""
    stop = Stop()
    in_main = threading.current_thread() is threading.main_thread()  # only there signals can be handled
    numbers = (signal.SIGINT, signal.SIGTERM) if in_main else ()
    before = {number: signal.signal(number, stop._receive) for number in numbers}
    try:
        yield stop
    except KeyboardInterrupt:
        raise Interrupted(stop.signal or signal.SIGINT, folder) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
