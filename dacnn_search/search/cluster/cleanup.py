"""Provide Ray's temporary folder, and a small process that deletes it and ends what Ray leaves behind.

Without it, two of Ray's agents outlive a killed driver by a minute. It reads from a pipe that the driver never writes
to: the read returns when the driver ends, however it ends. Where there is no /proc, nothing is killed.
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

GRACE_SECONDS = 3.0  # for what ends by itself


@contextlib.contextmanager
def guarded() -> Iterator[Path]:
    """Provide a folder for Ray. It is deleted, and Ray's processes in it end, soon after this context or process."""
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
    """Give Ray's processes in a folder time to end, then kill them and delete the folder."""
    end = time.monotonic() + GRACE_SECONDS
    while (processes := _ray_processes(folder) - {driver}) and time.monotonic() < end:
        time.sleep(0.1)
    for process in processes:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _ray_processes(folder: str) -> set[int]:
    """Return the processes of Ray's that have a file open in a folder. Others, such as `tail -f`, may as well."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or belongs to another user
            program, *arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            name = program.rpartition("/")[2]
            is_agent = name.startswith("python") and any("/ray/" in argument for argument in arguments[:3])
            files = map(os.readlink, (process / "fd").iterdir())
            is_ray = program.startswith("ray::") or is_agent or name in ("raylet", "gcs_server")
            if is_ray and any(file.startswith(f"{folder}/") for file in files):
                found.add(int(process.name))
    return found


if __name__ == "__main__":
    driver_process = os.getppid()
    sys.stdin.buffer.read()
    _clear(sys.argv[1], driver_process)
