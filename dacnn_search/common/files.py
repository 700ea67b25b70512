"""Atomic writes of files and folders, and the lock of a run directory."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import RunDirectoryError

SWEEP_SECONDS = 60.0  # what is younger may be in use


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace the file `path` by `data` (text as UTF-8). A crash leaves the old file or the new one, never a part.

    The data is on disk when this returns. Raises OSError (no space, no permission) with `path` as its filename; no
    other file is left.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.parent / f".tmp-{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 (named as in the rule above)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def new_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Make an empty folder to fill, which gets the name `folder` at the end. An error changes nothing.

    A crash leaves the whole or nothing, with `replace` in rare cases neither the old folder nor the new one.
    Raises FileExistsError if the name is taken and not to be replaced, OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = (folder.parent / f".tmp-{secrets.token_hex(8)}" for _ in range(2))
    new.mkdir()
    try:
        yield new
        if replace and folder.exists():
            os.rename(folder, old)  # noqa: PTH104
        try:
            if folder.exists():
                raise FileExistsError(errno.EEXIST, "the name is taken", str(folder))
            os.rename(new, folder)  # noqa: PTH104
        except OSError as error:
            if old.exists() and not folder.exists():
                os.rename(old, folder)  # noqa: PTH104
            # Another process may have taken the name at this moment, by a folder that is not empty.
            if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, "the name is taken", str(folder)) from None
            raise
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete files and folders that were being written to `folder` when a process crashed some time ago."""
    for path in folder.glob(".tmp-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime < SWEEP_SECONDS:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Put the names in `folder` on disk. A new or replaced file survives a power cut only after this."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises RunDirectoryError if it can't be read or is no object."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path}: must be readable JSON, but: {error}") from error
    if not isinstance(values, dict):
        raise RunDirectoryError(f"{path}: must be a JSON object, but is {type(values).__name__}")
    return values


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process alone. Raises RunDirectoryError at once if another one holds it.

    The kernel frees the lock when the holder ends, however it ends; neither forked children nor started programs keep
    it. `<folder>/.lock` names the latest holder and stays: without it two processes could lock two files of that name.
    """
    from filelock import FileLock, Timeout  # here, since most commands lock nothing and its import takes time

    path = folder / ".lock"
    held = FileLock(path, timeout=0, mode=0o666, fallback_to_soft=False)
    try:
        folder.stat()  # FileLock would make a folder that is missing
        held.acquire()
    except Timeout:
        process, _, host = path.read_text(encoding="utf-8", errors="replace").strip().partition(" ")
        holder = f"process {process} on {host}" if host else "another process"
        raise RunDirectoryError(
            f"{folder} is in use by {holder}; one process at a time may write a run directory"
        ) from None
    except OSError as error:
        raise RunDirectoryError(f"{folder} can't be locked: {error.strerror}") from error
    try:
        with suppress(OSError):  # a full disk: the lock holds without its holder's name
            path.write_text(f"{os.getpid()} {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        held.release()
