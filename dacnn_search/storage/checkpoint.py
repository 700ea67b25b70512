"""Trainings that are not finished, as files to carry them on from after a crash."""

import hashlib
from pathlib import Path

from dacnn_search.common.files import write_atomic

__all__ = ["Checkpoints"]

KEPT = 2  # of one training: the newest, and one before it in case the newest is damaged
ENDING = ".checkpoint"


class Checkpoints:
    """The checkpoints in a folder, by the key of their training.

    A file is `<key>.<epoch>.<sha256 of its bytes>.checkpoint`, so that its name tells whether it is whole. What is in
    it is the workers' matter; nothing is unpickled.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, key: str, epoch: int, data: bytes) -> None:
        """Keep a checkpoint, and of the earlier ones of that training the last. Raises OSError."""
        self._folder.mkdir(exist_ok=True)
        write_atomic(self._folder / f"{key}.{epoch:05d}.{hashlib.sha256(data).hexdigest()}{ENDING}", data)
        for path in self._paths(key)[:-KEPT]:
            path.unlink(missing_ok=True)

    def load(self, key: str) -> bytes | None:
        """The newest whole checkpoint of a training; None if there is none. Damaged ones are deleted."""
        for path in reversed(self._paths(key)):
            try:
                data = path.read_bytes()
            except OSError:
                continue
            if hashlib.sha256(data).hexdigest() == path.name.split(".")[-2]:
                return data
            path.unlink(missing_ok=True)
        return None

    def drop(self, key: str) -> None:
        """Forget a training, and the folder with the last of them."""
        try:
            for path in self._paths(key):
                path.unlink(missing_ok=True)
            self._folder.rmdir()
        except OSError:  # not empty, not there, or on a disk that is gone
            pass

    def _paths(self, key: str) -> list[Path]:
        """From the oldest to the newest."""
        return sorted(self._folder.glob(f"{key}.*{ENDING}"))
