"""The progress of trainings, as a line now and then."""

import time
from collections.abc import Sequence

from dacnn_search.common.units import format_duration
from dacnn_search.paper.archive import Task
from dacnn_search.search.listener import Listener

__all__ = ["Progress"]

SECONDS_PER_LINE = 10.0


class Progress:
    """Tells a listener every ten seconds which trainings are running and how long all of them will take."""

    def __init__(self, tasks: Sequence[Task], listener: Listener) -> None:
        self._tasks = tasks
        self._listener = listener
        self._start = self._last_line = time.monotonic()
        self._running: dict[Task, str] = {}
        self._ended: set[Task] = set()
        self._shares: dict[Task, float] = {}  # of a training that is done
        self._earlier: dict[Task, float] = {}  # of a training that an earlier process did

    @property
    def done(self) -> str:
        """How many trainings have ended."""
        return f"{len(self._ended)}/{len(self._tasks)}"

    def update(self, task: Task, epoch: int, accuracy: float) -> None:
        """Note that an epoch of a training has ended."""
        epochs = task.recipe.epochs
        self._running[task] = f"{task.member.network} epoch {epoch}/{epochs} at {100 * (1 - accuracy):.1f}%"
        self._earlier.setdefault(task, (epoch - 1) / epochs)
        self._shares[task] = epoch / epochs
        if time.monotonic() >= self._last_line + SECONDS_PER_LINE:
            self._last_line = time.monotonic()
            left = format_duration(self._seconds_left())
            self._listener.say(f"{self.done} done, about {left} left; {', '.join(self._running.values())}")

    def end(self, task: Task) -> None:
        """Note that a training has ended, in one way or another."""
        self._running.pop(task, None)
        self._ended.add(task)
        self._shares[task] = 1.0

    def _seconds_left(self) -> float:
        done = sum(task.work * (share - self._earlier.get(task, 0.0)) for task, share in self._shares.items())
        left = sum(task.work * (1 - self._shares.get(task, 0.0)) for task in self._tasks)
        return (time.monotonic() - self._start) * left / done
