"""The trainings of a reproduction on Ray's workers: how they are started, kept and reported on."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray

from dacnn_search.common.units import format_duration
from dacnn_search.paper.archive import Archive, Task
from dacnn_search.paper.worker import train_watched
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.search.cluster.tasks import start_task
from dacnn_search.search.listener import Listener

__all__ = ["Trainings"]

CHECKPOINT_SECONDS = 300.0
SECONDS_PER_LINE = 10.0  # between two reports on what is running


class Trainings:
    """The `TaskHandler` of a reproduction. `broken` has a line for each training that was given up."""

    def __init__(
        self,
        tasks: Sequence[Task],
        archive: Archive,
        slots: Slots,
        listener: Listener,
        write_reports: Callable[[], Any],
    ) -> None:
        self.broken: list[str] = []
        self._tasks = tasks
        self._archive = archive
        self._slots = slots
        self._listener = listener
        self._write_reports = write_reports
        self._images = {data: ray.put(data.images) for data in {task.data for task in tasks}}
        self._running: dict[Task, str] = {}
        self._ended: set[Task] = set()
        self._shares: dict[Task, float] = {}  # of a training that is done
        self._earlier: dict[Task, float] = {}  # of a training that an earlier process did
        self._start = self._last_line = time.monotonic()

    def start(self, task: Task) -> Any:
        state = self._archive.checkpoints.load(task.key)
        values = (task.architecture.to_dict(), task.recipe, task.seed, self._slots, state, CHECKPOINT_SECONDS)
        return start_task(train_watched, self._slots, self._images[task.data], *values)

    def progressed(self, task: Task, message: Mapping[str, Any]) -> None:
        epoch, epochs = message["epoch"], task.recipe.epochs
        if message["checkpoint"] is not None:
            self._archive.checkpoints.save(task.key, epoch, message["checkpoint"])
        error = 100 * (1 - message["test_accuracy"])
        self._running[task] = f"{task.member.network} epoch {epoch}/{epochs} at {error:.1f}%"
        self._earlier.setdefault(task, (epoch - 1) / epochs)
        self._shares[task] = epoch / epochs
        if time.monotonic() >= self._last_line + SECONDS_PER_LINE:
            self._last_line = time.monotonic()
            left = format_duration(self._seconds_left())
            self._listener.say(f"{self._done} done, about {left} left; {', '.join(self._running.values())}")

    def finished(self, task: Task, result: dict[str, Any]) -> None:
        record = self._archive.keep(task, result)
        self._end(task)
        outcome = record["reason"] or f"test error {100 * (1 - record['test_accuracy']):.2f}%"
        self._listener.say(f"{self._done} {task}: {outcome}, in {format_duration(record['seconds'])}")
        self._write_reports()

    def lost(self, task: Task) -> None:
        self._running.pop(task, None)
        self._listener.say(f"{task}: its worker process died")

    def failed(self, task: Task, reason: str) -> None:
        self._end(task)
        self.broken.append(f"{task}: {reason}")

    @property
    def _done(self) -> str:
        return f"{len(self._ended)}/{len(self._tasks)}"

    def _end(self, task: Task) -> None:
        self._running.pop(task, None)
        self._ended.add(task)
        self._shares[task] = 1.0

    def _seconds_left(self) -> float:
        done = sum(task.work * (share - self._earlier.get(task, 0.0)) for task, share in self._shares.items())
        left = sum(task.work * (1 - self._shares.get(task, 0.0)) for task in self._tasks)
        return (time.monotonic() - self._start) * left / done
