"""One trial of a search, from its proposal to its record in the ledger."""

import hashlib
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dacnn_search.network.architecture import Architecture
from dacnn_search.search.sampler.proposals import Proposal
from dacnn_search.search.stopping import Progress
from dacnn_search.storage.ledger import now

__all__ = ["Running", "describe", "missing", "progress_of", "training_seed"]


@dataclass
class Running:
    """A trial that a worker has, or is about to get."""

    proposal: Proposal
    started: float = 0.0
    epochs: list[dict[str, Any]] = field(default_factory=list)  # of the training under way
    confirmed: list[list[dict[str, Any]]] = field(default_factory=list)  # the epochs of each training before it
    attempts: int = 1
    stopped: bool = False  # early, by the stopping rule
    estimate: float | None = None  # of the final accuracy, once it is stopped early
    result: Mapping[str, Any] = field(default_factory=dict)  # what the worker told last of the first training

    @property
    def trainings(self) -> list[list[dict[str, Any]]]:
        """The epochs of each training that was done in full or, before that, of the one under way."""
        return self.confirmed or [self.epochs]

    @property
    def accuracy(self) -> float:
        """Of validation, the mean over the trainings; nan before the first epoch."""
        last = [epochs[-1]["validation_accuracy"] for epochs in self.trainings if epochs]
        return statistics.fmean(last) if last and None not in last else math.nan

    @property
    def key(self) -> str:
        """Of the checkpoints of the training under way."""
        fingerprint = self.proposal.architecture.fingerprint
        return f"{fingerprint}-{len(self.confirmed)}" if self.confirmed else fingerprint


def describe(running: Running, reason: str | None, *, full: int, seed: int, elapsed: float) -> dict[str, Any]:
    """The ledger's record of a trial that has ended. reason: why it failed, if it did; full: epochs of a full training;
    seed: of the search; elapsed: its seconds so far."""
    proposal, epochs = running.proposal, running.trainings[0]
    last = epochs[-1] if epochs else {}
    state = "FAIL" if reason else "COMPLETE" if len(epochs) == full else "PRUNED"
    return {
        "trial": proposal.trial,
        "state": state,
        "fingerprint": proposal.architecture.fingerprint,
        "architecture": proposal.architecture.to_dict(),
        "choices": proposal.choices,
        "parameters": proposal.cost.parameters,
        "macs": proposal.cost.macs,
        "accuracy": _finite(running.accuracy),
        "accuracies": [_rounded(training[-1]["validation_accuracy"]) for training in running.trainings if training],
        "loss": _finite(last.get("validation_loss")),
        "estimate": running.estimate if state == "PRUNED" else None,
        "epochs": len(epochs),
        "seconds": round(sum(epoch["seconds"] for training in running.trainings for epoch in training), 4),
        "reason": reason or ("stopped early" if state == "PRUNED" else None),
        "curve": {
            "accuracy": [_rounded(epoch["validation_accuracy"]) for epoch in epochs],
            "loss": [_rounded(epoch["validation_loss"]) for epoch in epochs],
            "train_loss": [_rounded(epoch["train_loss"]) for epoch in epochs],
        },
        "seed": training_seed(seed, proposal.architecture.fingerprint),
        "started": round(running.started, 3),
        "finished": round(elapsed, 3),
        "time": now(),
        "worker": running.result.get("worker"),
        "peak_bytes": running.result.get("peak_bytes"),
        "recomputes": running.result.get("recomputes", False),
        "duplicates": proposal.duplicates,
    }


def training_seed(seed: int, key: str) -> int:
    """A training's seed: the same whenever it is done in this search."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:4])


def progress_of(
    of: Mapping[str, Any], architecture: Architecture, curve: Mapping[str, Sequence[float | None]]
) -> Progress:
    """What a stopping rule judges a trial by: its curve up to the first value that is missing or not finite."""
    points = zip(curve["accuracy"], curve["loss"], strict=True)
    whole = list(itertools.takewhile(lambda point: None not in map(_finite, point), points))
    accuracy, loss = zip(*whole, strict=True) if whole else ((), ())
    return Progress(of["trial"], of["parameters"], of["macs"], architecture.depth, accuracy, loss)


def missing(epochs: Sequence[Mapping[str, Any]]) -> str | None:
    """What a trial lacks that ended with these epochs, if anything."""
    if not epochs:
        return "it ended without an epoch"
    epoch = epochs[-1]
    for name in ("validation_accuracy", "validation_loss"):
        if _finite(epoch[name]) is None:
            return f"{name.replace('_', ' ')} is {epoch[name]} in epoch {epoch['epoch']}"
    return None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _rounded(value: float | None) -> float | None:
    return None if _finite(value) is None else round(value, 5)  # type: ignore[arg-type]
