"""SIGINT and SIGTERM: the first is an orderly end, the second ends the process at once."""

import contextlib
import os
import shlex
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from dacnn_search.common.errors import DacnnSearchError

__all__ = ["Interrupted", "Stop", "orderly_end"]


class Interrupted(DacnnSearchError):
    """A signal ended a run; what was finished is kept. The exit code is a shell's for that signal: 130 or 143.

    folder: of the run; None if it had not begun.
    """

    def __init__(self, number: int, folder: Path | None) -> None:
        if folder is None:
            super().__init__("interrupted before the search began")
        else:
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
        self.signal = number
        if not self._polled:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _leave_at_second() -> Iterator[None]:
    """Within it a second signal ends the process at once, even while the main thread is deep in a library: the
    interpreter writes the number of each signal to a socket, and a thread reads them. Files are whole at any moment."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        seen = 0
        while byte := reader.recv(1):
            seen += byte[0] in (signal.SIGINT, signal.SIGTERM)
            if seen == 2:
                os.write(2, b"\ninterrupted a second time: left at once\n")
                os._exit(128 + byte[0])

    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        watcher.join()
        reader.close()


@contextlib.contextmanager
def orderly_end(folder: Path | None = None) -> Iterator[Stop]:
    """Within it a signal leads to `Interrupted` of the run in `folder`, or of one that has not begun, either through
    the KeyboardInterrupt it raises or through one raised by who polls."""
    stop = Stop()
    in_main = threading.current_thread() is threading.main_thread()  # only there signals can be handled
    numbers = (signal.SIGINT, signal.SIGTERM) if in_main else ()
    before = {number: signal.signal(number, stop._receive) for number in numbers}
    try:
        with _leave_at_second() if in_main else contextlib.nullcontext():
            yield stop
    except KeyboardInterrupt:
        raise Interrupted(stop.signal or signal.SIGINT, folder) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
