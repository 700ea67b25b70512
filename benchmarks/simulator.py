"""Replay DACNN-Bench as an asynchronous search: trials take virtual time, all else is the product's own code."""

import heapq
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from dacnn_search.data.dataset import DataSummary
from dacnn_search.search.sampler.prior import Prior
from dacnn_search.search.sampler.proposals import Proposal, Proposals, SamplerFactory, SamplerOptions
from dacnn_search.search.stopping import Progress, StoppingRule, Verdict
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SpaceSettings
from dacnn_search.space.validation import read_settings
from dacnn_search.storage.front import Scale, front_of


@dataclass(frozen=True)
class Training:
    """One training of the table: figures after each epoch."""

    accuracy: tuple[float, ...]
    loss: tuple[float, ...]
    test_accuracy: tuple[float, ...]
    seconds: tuple[float, ...]

    def followed_by(self, full: "Training") -> "Training":
        """Return a training whose first epochs are these, and whose others are those of a full training."""
        pairs = zip(vars(self).values(), vars(full).values(), strict=True)
        return Training(*(own + other[len(own) :] for own, other in pairs))


class Table:
    """The trainings of a benchmark, by fingerprint.

    With `first_cycle`, that many epochs, they are trainings in two cycles: the first is a training of its own, from the
    table for so many epochs, and the second the rest of the full training. (A full training that goes on from the
    weights of the first cycle ends as accurate as one in a single cycle, which benchmarks/notes-search.md measures.)
    """

    def __init__(self, path: Path, first_cycle: int = 0) -> None:
        self.parameters: dict[str, int] = {}
        self.trainings = self._read(path)
        self.epochs = len(next(iter(self.trainings.values()))[0].accuracy)
        if first_cycle:
            short = self._read(path.with_name(f"{path.stem}-{first_cycle}.parquet"))
            for fingerprint, of in self.trainings.items():
                pairs = zip(short[fingerprint], of, strict=True)
                self.trainings[fingerprint] = [first.followed_by(full) for first, full in pairs]

    def _read(self, path: Path) -> dict[str, list[Training]]:
        columns: Mapping[str, Any] = pyarrow.parquet.read_table(path).to_pydict()
        names = ("validation_accuracy", "validation_loss", "test_accuracy", "seconds")
        trainings: dict[str, list[Training]] = {}
        for row, fingerprint in enumerate(columns["fingerprint"]):
            self.parameters[fingerprint] = columns["parameters"][row]
            training = Training(*(tuple(columns[name][row]) for name in names))
            trainings.setdefault(fingerprint, []).append(training)
        return trainings

    def training(self, fingerprint: str, seed: int) -> Training:
        """Return the training of a network that a search of that seed sees."""
        of = self.trainings[fingerprint]
        return of[(seed + int(fingerprint[:6], 16)) % len(of)]

    def test_accuracy(self, fingerprint: str) -> float:
        """Return the test accuracy of a network after a full training, the mean over its seeds."""
        return float(np.mean([training.test_accuracy[-1] for training in self.trainings[fingerprint]]))

    def hypervolume(self, fingerprints: list[str], scale: Scale) -> float:
        """Return the hypervolume of the test accuracies of these networks."""
        records = [{"parameters": self.parameters[f], "accuracy": self.test_accuracy(f)} for f in fingerprints]
        return scale.hypervolume(records)


@dataclass(frozen=True)
class Event:
    """A trial that ended, in the order of virtual time.

    accuracy: of validation after its last epoch. seconds: virtual time of the search. spent: epochs of all trials so
    far, those that still run included.
    """

    proposal: Proposal
    state: str
    accuracy: float
    epochs: int
    seconds: float
    spent: int

    @property
    def record(self) -> dict[str, Any]:
        """The trial as `front_of` reads it."""
        return {
            "sequence": self.proposal.trial,
            "state": self.state,
            "accuracy": self.accuracy,
            "parameters": self.proposal.cost.parameters,
            "fingerprint": self.proposal.architecture.fingerprint,
        }


def simulate(
    space: SearchSpace,
    table: Table,
    *,
    sampler: str | SamplerFactory,
    stopping: StoppingRule,
    seed: int,
    trials: int,
    workers: int,
    prior: str | Prior = "auto",
    first_cycle: int = 0,
) -> list[Event]:
    """Simulate one search and return its trials as they ended. Proposing takes no virtual time.

    With `first_cycle`, the epochs of the table's, the sampler decides after it whether a trial goes on.
    """
    proposals = Proposals(space, sampler, seed, options=SamplerOptions("parameters", prior, first_cycle / table.epochs))
    order = itertools.count()
    running: list[tuple[float, int, Proposal, Training, int]] = []  # when the next epoch ends, ..., epochs done
    events: list[Event] = []
    now, spent = 0.0, 0
    while True:
        while len(running) < workers and len(events) + len(running) < trials:
            proposal = proposals.propose()
            if proposal is None:
                break
            training = table.training(proposal.architecture.fingerprint, seed)
            heapq.heappush(running, (now + training.seconds[0], next(order), proposal, training, 0))
        if not running:
            return events
        now, _, proposal, training, done = heapq.heappop(running)
        done, spent = done + 1, spent + 1
        accuracy = training.accuracy[:done]
        cost, depth = proposal.cost, proposal.architecture.depth
        progress = Progress(proposal.trial, cost.parameters, cost.macs, depth, accuracy, training.loss[:done])
        verdict = stopping.judge(progress)
        if done == first_cycle:
            proposals.tell_short(proposal.trial, accuracy[-1])
            verdict = Verdict(proposals.is_worth_finishing(proposal.trial))
        full = done == table.epochs
        if verdict.go_on and not full:
            heapq.heappush(running, (now + training.seconds[done], next(order), proposal, training, done))
            continue
        state = "COMPLETE" if full else "PRUNED"
        proposals.tell(proposal, state, accuracy[-1] if full else None, None if full else verdict.estimate)
        events.append(Event(proposal, state, accuracy[-1], done, now, spent))


def hypervolumes(events: list[Event], table: Table, scale: Scale) -> list[float]:
    """Return the hypervolume after each event of what the search would hand over.

    That is the test accuracies of the networks on its front of validation accuracies.
    """
    records: list[dict[str, Any]] = []
    values: list[float] = []
    for event in events:
        records.append(event.record)
        if event.state == "COMPLETE":
            front = [record["fingerprint"] for record in front_of(records)]
            values.append(table.hypervolume(front, scale))
        else:
            values.append(values[-1] if values else 0.0)
    return values


def best_hypervolume(table: Table, scale: Scale) -> float:
    """Return the hypervolume of the test accuracies of all networks."""
    return table.hypervolume(list(table.trainings), scale)


def read_summary(path: Path) -> DataSummary:
    """Return what is known of the images of a table."""
    values = json.loads(pyarrow.parquet.read_schema(path).metadata[b"summary"])
    return DataSummary(**values | {"input_shape": tuple(values["input_shape"])})


def read_space(path: Path) -> SearchSpace:
    """Return the search space of a table, by the YAML file beside it. The images need not be there."""
    return SearchSpace(read_settings(path.with_suffix(".yaml"), SpaceSettings), read_summary(path))


def scale_of(space: SearchSpace) -> Scale:
    """Return the scale of a run directory of that space."""
    return Scale(*space.extremes(), 1 / space.num_classes)
