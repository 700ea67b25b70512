"""Files that are whole or not there, and a run directory that one process holds at a time."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faulty import no_space

from dacnn_search.common import files
from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.common.files import lock, new_folder, sha256_of, sweep, sync_folder, write_atomic

HOLD = """import sys
from pathlib import Path
from dacnn_search.common.files import lock
with lock(Path(sys.argv[1])):
"""
WAIT = "print('held', flush=True); sys.stdin.read()\n"


@contextmanager
def running(body: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs the lines of `body` while it holds `folder`; ready once it has printed a line."""
    program = HOLD + "".join(f"    {line}\n" for line in body.splitlines())
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_write_creates_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "né\r\n")
    assert path.read_bytes() == "né\r\n".encode()
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208


def test_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("a" * 255), "x")
    assert (tmp_path / ("a" * 255)).read_text() == "x"


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a"
    write_atomic(path, "old")
    monkeypatch.setattr(files.os, step, no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_content_is_on_disk_before_the_name_and_the_name_before_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        fsync(descriptor)

    def noting_replace(source: Path, target: Path) -> None:
        assert source.read_text() == "new"
        steps.append("name")
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", noting_fsync)
    monkeypatch.setattr(files.os, "replace", noting_replace)
    write_atomic(tmp_path / "a", "new")
    assert steps == ["content", "name", "folder"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "kept").touch()
    rename = os.rename

    def fail_for_the_new_one(source: Path, target: Path) -> None:
        if target == folder and not (source / "kept").exists():
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", fail_for_the_new_one)
    with pytest.raises(OSError, match="No space left"), new_folder(folder, replace=True):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["network", "kept"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "none" / "a", "x")
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "none")


def test_what_a_crash_left_is_swept_away_but_not_what_is_being_written(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0123").write_text("cut short")
    (tmp_path / ".tmp-4567").mkdir()
    (tmp_path / ".tmp-4567" / "space.yaml").write_text("cut short")
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    (tmp_path / ".tmp-89ab").write_text("being written")
    (tmp_path / "trials.jsonl").write_text("")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".tmp-89ab", "trials.jsonl"}


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_lock_is_refused_while_held_and_free_afterwards(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(RunDirectoryError) as caught, lock(tmp_path):
        pass
    host = os.uname().nodename
    assert str(caught.value) == (
        f"{tmp_path} is in use by process {os.getpid()} on {host}; one process at a time may write a run directory"
    )
    with lock(tmp_path):
        pass


def test_lock_is_freed_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    with lock(tmp_path):
        pass


def test_folders_are_locked_one_by_one(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    with lock(tmp_path / "a"), lock(tmp_path / "b"), pytest.raises(RunDirectoryError), lock(tmp_path / "a"):
        pass


def test_holder_that_has_not_written_its_name_yet(tmp_path: Path) -> None:
    with lock(tmp_path):
        (tmp_path / ".lock").write_bytes(b"\xff\xfe")
        with pytest.raises(RunDirectoryError, match="in use by another process"), lock(tmp_path):
            pass


def test_folder_that_cannot_be_locked(tmp_path: Path) -> None:
    with (
        pytest.raises(RunDirectoryError, match="none can't be locked: No such file"),
        lock(tmp_path / "none"),
    ):
        pass


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with running(WAIT, tmp_path) as holder:
        assert first_line(holder) == "held"
        with pytest.raises(RunDirectoryError, match=f"in use by process {holder.pid} on "), lock(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock(tmp_path):
            assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} ")


@pytest.mark.parametrize(
    "start_child",
    [
        "import subprocess; child = subprocess.Popen(['sleep', '60'], close_fds=False).pid",
        # The pipe tells that the child has begun: what Python does after a fork is done then.
        "import os, time; r, w = os.pipe(); child = os.fork()\n"
        "if child == 0: os.write(w, b'.'); time.sleep(60)\n"
        "os.read(r, 1)",
    ],
    ids=["started", "forked"],
)
def test_child_that_outlives_the_holder_does_not_hold_the_lock(tmp_path: Path, start_child: str) -> None:
    with running(f"{start_child}\nprint(child, flush=True)\n{WAIT}", tmp_path) as holder:
        child = int(first_line(holder))
        try:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            with lock(tmp_path):
                os.kill(child, 0)  # still there
        finally:
            os.kill(child, signal.SIGKILL)


def test_forked_child_that_leaves_the_block_does_not_free_the_lock(tmp_path: Path) -> None:
    body = f"import os\nif (child := os.fork()) == 0: sys.exit(3)\nos.waitpid(child, 0)\n{WAIT}"
    with running(body, tmp_path) as holder:
        assert first_line(holder) == "held"
        with pytest.raises(RunDirectoryError, match=f"in use by process {holder.pid} on "), lock(tmp_path):
            pass
