"""Checkpoints: files from which unfinished trainings go on after a crash."""

import hashlib
from contextlib import suppress
from pathlib import Path

from dacnn_search.common.files import write_atomic

KEPT = 2  # checkpoints per training: the newest, and the one before in case the newest is damaged
ENDING = ".checkpoint"


class Checkpoints:
    """The checkpoints in a folder, by the key of their training.

    A file is named `<key>.<epoch>.<sha256 of its bytes>.checkpoint`, so that its name tells whether it is whole. Its
    bytes are for workers to read; nothing is unpickled here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, key: str, epoch: int, data: bytes) -> None:
        """Write a checkpoint and delete all but the last two of that training. Raises OSError."""
        self._folder.mkdir(exist_ok=True)
        write_atomic(self._folder / f"{key}.{epoch:05d}.{hashlib.sha256(data).hexdigest()}{ENDING}", data)
        for path in self._paths(key)[:-KEPT]:
            path.unlink(missing_ok=True)

    def load(self, key: str) -> bytes | None:
        """Return the newest whole checkpoint of a training, or None. Damaged ones are deleted."""
        for path in reversed(self._paths(key)):
            with suppress(OSError):
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest() == path.name.split(".")[-2]:
                    return data
                path.unlink(missing_ok=True)
        return None

    def drop(self, key: str) -> None:
        """Delete the checkpoints of a training; a `*` in the key stands for anything. The folder goes with the last."""
        with suppress(OSError):  # not empty, not there, or on a disk that is gone
            for path in self._paths(key):
                path.unlink(missing_ok=True)
            self._folder.rmdir()

    def _paths(self, key: str) -> list[Path]:
        return sorted(self._folder.glob(f"{key}.*{ENDING}"))  # from old to new by the epoch in the name
