"""`Listener`, who is told what happens in a run, and `Snapshot`, the state of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dacnn_search.storage.front import Record


@dataclass(frozen=True)
class Snapshot:
    """The state of a run.

    running: `trial`, `fingerprint`, `parameters`, `flash`, `epoch`, `epochs` and `accuracy` of what is being trained:
    `epoch` of `epochs` done, with the validation accuracy so far or None.
    retraining: how many full trainings have `finished`, of how many `trainings`; None until networks of the front are
    trained in full. All other counts are of the search.
    """

    state: str  # searching, retraining, finished, interrupted or failed
    message: str | None
    elapsed: float  # seconds of search
    remaining: float | None  # seconds, estimated; None while there is nothing to go by
    finished: int  # trials that have ended
    trials: int  # wanted
    running: Sequence[Mapping[str, Any]] = ()
    front: Sequence[Record] = ()
    hypervolume: float = 0.0  # of the front, in [0, 1]
    retraining: Mapping[str, int] | None = None
    objective: str = "parameters"  # or flash: what the search keeps small


class Listener:
    """Does nothing about what it is told. Subclasses override what they care about."""

    def began(self, folder: Path) -> None: ...  # the run directory exists
    def update(self, snapshot: Snapshot) -> None: ...  # something has changed
    def finished(self, record: Mapping[str, Any]) -> None: ...  # a trial is in the ledger
    def retrained(self, record: Mapping[str, Any]) -> None: ...  # a network has been retrained
    def say(self, text: str) -> None: ...  # show the user a message
