"""The trainings of a reproduction, and what is told of them while they go on."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dacnn_search.common.units import format_duration
from dacnn_search.network.architecture import Architecture
from dacnn_search.paper.experiments import Member
from dacnn_search.search.listener import Listener
from dacnn_search.training.recipe import Recipe

__all__ = ["Board", "Job"]

SECONDS_PER_LINE = 10.0


@dataclass(frozen=True)
class Job:
    """One training of one network. key: the identity of network, data, recipe and seed."""

    member: Member
    architecture: Architecture
    recipe: Recipe
    seed: int
    key: str
    work: float  # MACs of the forward passes, to order by and to estimate what remains

    @property
    def folder(self) -> str:
        return f"{self.member.network}-{self.key}"

    def __str__(self) -> str:
        return f"{self.member.network} on {self.member.dataset}, seed {self.seed}"


class Board:
    """Tells how the trainings go."""

    def __init__(self, jobs: Sequence[Job], listener: Listener) -> None:
        self._jobs = jobs
        self._listener = listener
        self._start = self._told = time.monotonic()
        self._running: dict[Job, str] = {}
        self._shares = dict.fromkeys(jobs, 0.0)  # of each training that is done
        self._begun: dict[Job, float] = {}  # and that was done by an earlier process
        self._ended: set[Job] = set()

    def progress(self, job: Job, message: Mapping[str, Any]) -> None:
        error = 100 * (1 - message["test_accuracy"])
        self._running[job] = f"{job.member.network} epoch {message['epoch']}/{job.recipe.epochs} at {error:.1f}%"
        self._begun.setdefault(job, (message["epoch"] - 1) / job.recipe.epochs)
        self._shares[job] = message["epoch"] / job.recipe.epochs
        if time.monotonic() >= self._told + SECONDS_PER_LINE:
            self._told = time.monotonic()
            self._listener.say(f"{len(self._ended)}/{len(self._jobs)} done{self._remaining()}; {self._words()}")

    def finished(self, job: Job, record: Mapping[str, Any]) -> None:
        self.left(job)
        outcome = record["reason"]
        if outcome is None:
            outcome = f"test error {100 * (1 - record['test_accuracy']):.2f}%"
        self._listener.say(
            f"{len(self._ended)}/{len(self._jobs)} {job}: {outcome}, in {format_duration(record['seconds'])}"
        )

    def lost(self, job: Job) -> None:
        """Its worker process died."""
        self._running.pop(job, None)
        self._listener.say(f"{job}: its worker process died")

    def left(self, job: Job) -> None:
        """It has ended, in one way or another."""
        self._running.pop(job, None)
        self._shares[job] = 1.0
        self._ended.add(job)

    def _words(self) -> str:
        return ", ".join(self._running.values())

    def _remaining(self) -> str:
        left = sum(job.work * (1 - self._shares[job]) for job in self._jobs)
        done = sum(job.work * (self._shares[job] - self._begun.get(job, 0.0)) for job in self._jobs)
        return f", about {format_duration((time.monotonic() - self._start) * left / done)} left"
