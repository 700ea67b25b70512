"""SIGINT and SIGTERM as one orderly end."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from dacnn_search.errors import DacnnSearchError

__all__ = ["Interrupted", "orderly_end"]


class Interrupted(DacnnSearchError):
    """A signal ended a run; what was finished is kept. The exit code is a shell's for that signal: 130 or 143."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(f"interrupted; go on with: python -m dacnn_search.run --resume {folder}")
        self.exit_code = 128 + number


@contextlib.contextmanager
def orderly_end(folder: Path) -> Iterator[None]:
    """Within it SIGTERM does what SIGINT does, and the KeyboardInterrupt becomes `Interrupted` of that run."""
    received: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGINT)

    in_main = threading.current_thread() is threading.main_thread()  # only there signals can be handled
    before = signal.signal(signal.SIGTERM, pass_on) if in_main else None
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(received[0] if received else signal.SIGINT, folder) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)
