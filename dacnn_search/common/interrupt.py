"""SIGINT and SIGTERM: the first ends a run in order, the second ends the process at once."""

import contextlib
import os
import shlex
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from dacnn_search.common.errors import DacnnSearchError


class Interrupted(DacnnSearchError):
    """A signal ended the run in `folder`, whose finished trials are kept, or one that had not begun (None).

    The exit code is 130 (SIGINT) or 143 (SIGTERM).
    """

    def __init__(self, number: int, folder: Path | None) -> None:
        resume = f"python -m dacnn_search.run --resume {shlex.quote(str(folder))}"
        super().__init__(f"interrupted; go on with: {resume}" if folder else "interrupted before the search began")
        self.exit_code = 128 + number


class Stop:
    """Remembers that a signal asked for the end. The signal raises KeyboardInterrupt, except within `polled`."""

    def __init__(self) -> None:
        self.requested = False
        self.signal: int = signal.SIGINT
        self._polled = False

    @contextlib.contextmanager
    def polled(self) -> Iterator[None]:
        """Let signals interrupt nothing. The code within checks `requested` and ends soon after."""
        self._polled = True
        try:
            yield
        finally:
            self._polled = False

    def _receive(self, number: int, frame: object) -> None:
        self.requested = True
        self.signal = number
        if not self._polled:
            raise KeyboardInterrupt


@contextlib.contextmanager
def orderly_end(folder: Path | None = None) -> Iterator[Stop]:
    """Turn a signal into KeyboardInterrupt within, and that into `Interrupted`, which names the run's `folder`."""
    stop = Stop()
    in_main = threading.current_thread() is threading.main_thread()  # Python handles signals only there
    numbers = (signal.SIGINT, signal.SIGTERM) if in_main else ()
    before = {number: signal.signal(number, stop._receive) for number in numbers}
    try:
        with _leave_at_second() if in_main else contextlib.nullcontext():
            yield stop
    except KeyboardInterrupt:
        raise Interrupted(stop.signal, folder) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _leave_at_second() -> Iterator[None]:
    """Let a second signal end the process at once, also while the main thread is deep in a library.

    The interpreter writes the number of each signal to a socket, which a thread reads. Files stay whole since all
    writes are atomic.
    """
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
