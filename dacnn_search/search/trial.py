"""The trials of a search, from their proposal to their record in the ledger."""

import hashlib
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import COSTS
from dacnn_search.search.sampler.proposals import Proposal
from dacnn_search.search.stopping import Progress
from dacnn_search.storage.ledger import now


@dataclass
class Trial:
    """A trial that is being trained, or waits to be.

    One that reached the front may be trained again by other seeds, which confirm it.
    """

    proposal: Proposal
    started: float = 0.0  # in seconds of search
    epochs: list[dict[str, Any]] = field(default_factory=list)  # of the current training
    confirmed: list[list[dict[str, Any]]] = field(default_factory=list)  # the epochs of each full training before it
    attempts: int = 1  # at the current training, as workers died
    short: float | None = None  # the accuracy after the first cycle
    stopped: bool = False  # by the stopping rule
    estimate: float | None = None  # the final accuracy expected when it was stopped
    result: Mapping[str, Any] = field(default_factory=dict)  # what the worker last reported of the first training

    @property
    def trainings(self) -> list[list[dict[str, Any]]]:
        """The epochs of each full training or, before there is one, of the current training."""
        return self.confirmed or [self.epochs]

    @property
    def accuracy(self) -> float:
        """The mean validation accuracy of the trainings; nan before the first epoch."""
        last = [epochs[-1]["validation_accuracy"] for epochs in self.trainings if epochs]
        return statistics.fmean(last) if last and None not in last else math.nan

    @property
    def key(self) -> str:
        """The key of the current training's checkpoints and seed."""
        fingerprint = self.proposal.architecture.fingerprint
        return f"{fingerprint}-{len(self.confirmed)}" if self.confirmed else fingerprint

    def progress(self, objective: str) -> Progress:
        """Return the learning curve of the current training, by which a stopping rule judges it."""
        curve = {name: [epoch[f"validation_{name}"] for epoch in self.epochs] for name in ("accuracy", "loss")}
        cost, architecture = self.proposal.cost, self.proposal.architecture
        return _progress(self.proposal.trial, getattr(cost, objective), cost.macs, architecture, curve)

    def begin_again(self) -> None:
        """Forget the current training."""
        self.attempts += 1
        self.epochs, self.short, self.stopped, self.estimate = [], None, False, None

    def record(self, reason: str | None, *, full: int, seed: int, elapsed: float) -> dict[str, Any]:
        """Return the ledger's record of the ended trial, with the `reason` if it failed.

        A training has `full` epochs; `seed` is the search's; `elapsed` are the seconds of search so far.
        """
        proposal, epochs = self.proposal, self.trainings[0]
        last = epochs[-1] if epochs else {}
        state = "FAIL" if reason else "COMPLETE" if len(epochs) == full else "PRUNED"
        return {
            "trial": proposal.trial,
            "state": state,
            "fingerprint": proposal.architecture.fingerprint,
            "architecture": proposal.architecture.to_dict(),
            "choices": proposal.choices,
            **{name: getattr(proposal.cost, name) for name in COSTS},
            "accuracy": _finite(self.accuracy),
            "accuracies": [_rounded(training[-1]["validation_accuracy"]) for training in self.trainings if training],
            "loss": _finite(last.get("validation_loss")),
            "estimate": self.estimate if state == "PRUNED" else None,
            "short": self.short,
            "epochs": len(epochs),
            "seconds": round(sum(epoch["seconds"] for training in self.trainings for epoch in training), 4),
            "reason": reason or ("stopped early" if state == "PRUNED" else None),
            "curve": {
                "accuracy": [_rounded(epoch["validation_accuracy"]) for epoch in epochs],
                "loss": [_rounded(epoch["validation_loss"]) for epoch in epochs],
                "train_loss": [_rounded(epoch["train_loss"]) for epoch in epochs],
            },
            "seed": training_seed(seed, proposal.architecture.fingerprint),
            "started": round(self.started, 3),
            "finished": round(elapsed, 3),
            "time": now(),
            "worker": self.result.get("worker"),
            "peak_bytes": self.result.get("peak_bytes"),
            "recomputes": self.result.get("recomputes", False),
            "duplicates": proposal.duplicates,
        }


def training_seed(seed: int, key: str) -> int:
    """Return the seed of a training: the same whenever it is done in a search of that seed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:4])


def progress_in(record: Mapping[str, Any], objective: str) -> Progress:
    """Return what a stopping rule learns from a record of the ledger."""
    architecture = Architecture.from_dict(record["architecture"])
    return _progress(record["trial"], record[objective], record["macs"], architecture, record["curve"])


def what_is_missing(epochs: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why a trial that ended with these epochs has no accuracy; None if it has one."""
    if not epochs:
        return "it ended without an epoch"
    epoch = epochs[-1]
    for name in ("validation_accuracy", "validation_loss"):
        if _finite(epoch[name]) is None:
            return f"{name.replace('_', ' ')} is {epoch[name]} in epoch {epoch['epoch']}"
    return None


def _progress(
    trial: int, size: int, macs: int, architecture: Architecture, curve: Mapping[str, Sequence[float | None]]
) -> Progress:
    """Cut a curve at its first value that is missing or not finite."""
    points = zip(curve["accuracy"], curve["loss"], strict=True)
    valid = list(itertools.takewhile(lambda point: None not in map(_finite, point), points))
    accuracy, loss = zip(*valid, strict=True) if valid else ((), ())
    return Progress(trial, size, macs, architecture.depth, accuracy, loss)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 5)
