"""Where a search stands, and who wants to know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dacnn_search.storage.front import Record

__all__ = ["Listener", "Retraining", "RunningTrial", "Snapshot"]


@dataclass(frozen=True)
class RunningTrial:
    """A trial that is being trained: `epoch` of `epochs` done, with the validation accuracy so far."""

    trial: int
    fingerprint: str
    parameters: int
    epoch: int
    epochs: int
    accuracy: float | None


@dataclass(frozen=True)
class Retraining:
    """How many full trainings have ended, of how many."""

    finished: int
    trainings: int


@dataclass(frozen=True)
class Snapshot:
    """The state of a run: searching, retraining, finished, interrupted or failed.

    elapsed, remaining: seconds; the latter an estimate, None while there is nothing to go by.
    finished, trials: done and wanted. hypervolume: of the front, in [0, 1].
    retraining: None before the networks of the front are trained in full; all other counts are of the search.
    """

    state: str
    message: str | None
    elapsed: float
    remaining: float | None
    finished: int
    trials: int
    running: Sequence[RunningTrial] = ()
    front: Sequence[Record] = field(default=())
    hypervolume: float = 0.0
    retraining: Retraining | None = None


class Listener:
    """Told what happens in a run; this one does not care."""

    def began(self, folder: Path) -> None:
        """The run directory is there."""

    def update(self, snapshot: Snapshot) -> None:
        """Something has changed."""

    def finished(self, record: Mapping[str, Any]) -> None:
        """A trial is in the ledger."""

    def retrained(self, record: Mapping[str, Any]) -> None:
        """A network has been retrained."""

    def say(self, text: str) -> None:
        """A message for the user."""
