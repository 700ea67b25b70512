"""`Listener`, who is told what happens in a run, and `Snapshot`, the state of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    elapsed, remaining: seconds of search; the latter an estimate, None while there is nothing to go by.
    finished, trials: trials that have ended and trials wanted. hypervolume: of the front, in [0, 1].
    retraining: None until networks of the front are trained in full; all other counts are of the search.
    """

    state: str
    message: str | None
    elapsed: float
    remaining: float | None
    finished: int
    trials: int
    running: Sequence[RunningTrial] = ()
    front: Sequence[Record] = ()
    hypervolume: float = 0.0
    retraining: Retraining | None = None


class Listener:
    """Does nothing about what it is told. Subclasses override what they care about."""

    def began(self, folder: Path) -> None:
        """The run directory exists."""

    def update(self, snapshot: Snapshot) -> None:
        """Something has changed."""

    def finished(self, record: Mapping[str, Any]) -> None:
        """A trial is in the ledger."""

    def retrained(self, record: Mapping[str, Any]) -> None:
        """A network has been retrained."""

    def say(self, text: str) -> None:
        """Show the user a message."""
