"""Ray's temporary folder, and a small process that clears it and ends what Ray leaves behind when the driver is gone.

Without it, two of Ray's agents outlive a killed driver by a minute. The process reads from a pipe that the driver never
writes to: the read returns when the driver ends, however it ends. What has a file open in the folder is Ray's. (That
is looked up in /proc; where there is none, nothing is killed.)
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["guarded"]

GRACE_SECONDS = 3.0  # for what ends by itself


@contextlib.contextmanager
def guarded() -> Iterator[Path]:
    """A folder that goes, with the processes that use it, soon after this context or this process ends."""
    short = "/tmp" if Path("/tmp").is_dir() else None  # Ray's sockets need a path of at most 107 bytes
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir=short))
    with subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the driver
    ):
        yield folder


def _clear(folder: str, driver: int) -> None:
    """Give the users of a folder but the driver time to end, then kill them and delete it."""
    end = time.monotonic() + GRACE_SECONDS
    while (users := _users(folder) - {driver}) and time.monotonic() < end:
        time.sleep(0.1)
    for process in users:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _users(folder: str) -> set[int]:
    """The processes that have a file open in a folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone already, or someone else's
            if any(os.readlink(file).startswith(f"{folder}/") for file in (process / "fd").iterdir()):  # noqa: PTH115
                found.add(int(process.name))
    return found


if __name__ == "__main__":
    driver_process = os.getppid()
    sys.stdin.buffer.read()
    _clear(sys.argv[1], driver_process)
