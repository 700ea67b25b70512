"""Train what the paper's tables and figures need, on Ray's workers, and write ours beside the published.

docs/paper.md tells the protocol, and what the folder of results holds.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.common.files import lock
from dacnn_search.common.interrupt import Stop, orderly_end
from dacnn_search.common.units import format_duration
from dacnn_search.export.folder import WEIGHTS
from dacnn_search.paper.experiments import PROTOCOL, Conditions, Experiment
from dacnn_search.paper.page import write_report
from dacnn_search.paper.report import Results
from dacnn_search.paper.trainings import PaperData, Task, load_data, network_folder
from dacnn_search.paper.worker import train_watched
from dacnn_search.search.cluster.ray_cluster import RaySession
from dacnn_search.search.cluster.slots import Resources, demand_of
from dacnn_search.search.cluster.tasks import run_tasks
from dacnn_search.search.listener import Listener
from dacnn_search.storage.checkpoint import Checkpoints
from dacnn_search.storage.ledger import Ledger

LEDGER, CHECKPOINTS = "trainings.jsonl", "checkpoints"
CHECKPOINT_SECONDS = 300.0
SECONDS_PER_LINE = 10.0  # between two reports on what is running


def reproduce(
    experiments: Sequence[Experiment],
    conditions: Conditions,
    sources: Mapping[str, str],
    results: Path,
    *,
    resources: Resources | None = None,
    repair: bool = False,
    listener: Listener | None = None,
) -> list[Path]:
    """Train what experiments need and the folder `results` does not have; write and return the folders of reports.

    Reports are written after each training, so that an interrupted reproduction shows what it has. With `repair`,
    damaged lines of the ledger are left out; otherwise they are an error. `sources` has the .npz file or the download
    folder of each data set of the experiments.

    Raises DataError if data can't be read, InputError for conditions that can't be, RunDirectoryError if another
    process writes to `results`, DacnnSearchError naming the trainings that broke, after all others are done.
    """
    results.mkdir(parents=True, exist_ok=True)
    with (
        lock(results),
        orderly_end(results) as stop,
        Ledger.open(results / LEDGER, repair=repair, advice="the same command with --repair") as ledger,
    ):
        data = {name: load_data(name, path, conditions.subset) for name, path in sources.items()}
        reproduction = _Reproduction(experiments, conditions, data, results, ledger, listener or Listener())
        reproduction.train_missing(resources, stop)
        folders = reproduction.write_reports()
    if reproduction.broken:
        raise DacnnSearchError("these trainings broke, all others are done:\n" + "\n".join(reproduction.broken))
    return folders


@dataclass(eq=False)
class _Reproduction:
    """The `TaskHandler` of a reproduction. `broken` has a line for each training that was given up."""

    experiments: Sequence[Experiment]
    conditions: Conditions
    data: Mapping[str, PaperData]
    results: Path
    ledger: Ledger
    listener: Listener
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        members = dict.fromkeys(member for experiment in self.experiments for member in experiment.members)
        seeds = range(self.conditions.seeds)
        tasks = [Task(m, self.data[m.dataset], self.conditions, seed) for m in members for seed in seeds]
        self._tasks = sorted(tasks, key=lambda task: -task.work)  # so that the workers end together
        self._missing = [task for task in self._tasks if not self._is_done(task)]
        self._checkpoints = Checkpoints(self.results / CHECKPOINTS)
        self._running: dict[Task, str] = {}
        self._left = {task: task.work for task in self._missing}
        self._work = 0.0  # that this process has seen done

    def _is_done(self, task: Task) -> bool:
        """Return whether there is a record of a training and, if filters of the network are pictured, the network."""
        pictured = any(task.member in each.members for each in self.experiments if each.kind == "filters")
        records = [record for record in task.find(self.ledger.records) if record["seed"] == task.seed]
        weights = [network_folder(self.results, record) / WEIGHTS for record in records]
        return any(path.is_file() or not pictured for path in weights)

    def train_missing(self, resources: Resources | None, stop: Stop) -> None:
        missing = self._missing
        for line in (PROTOCOL, self.conditions.note, *(data.note for data in self.data.values())):
            self.listener.say(line)
        self.listener.say(f"trainings: {len(self._tasks)}, of them done already: {len(self._tasks) - len(missing)}")
        if missing:
            images = missing[0].data.images  # all data sets of the paper have images of one size
            networks = [task.architecture for task in missing]
            size = (images.input_shape, images.num_classes, missing[0].recipe)
            with RaySession(resources) as session:
                self._images = {data: session.share(data.images) for data in {task.data for task in missing}}
                self._slots = session.slots(demand_of(networks, *size, data_bytes=images.nbytes))
                self._start = self._last_line = time.monotonic()
                run_tasks(missing, self, train_watched, self._slots, stop)

    def write_reports(self) -> list[Path]:
        records = {task.member: task.find(self.ledger.records) for task in self._tasks}
        results = Results(self.conditions, records, self.data)
        return [write_report(experiment, results, self.results) for experiment in self.experiments]

    def arguments(self, task: Task) -> tuple[Any, ...]:
        images, state = self._images[task.data], self._checkpoints.load(task.key)
        return images, task.architecture, task.recipe, task.seed, self._slots, state, CHECKPOINT_SECONDS

    def progressed(self, task: Task, message: Mapping[str, Any]) -> None:
        epoch, epochs = message["epoch"], task.recipe.epochs
        if message["checkpoint"] is not None:
            self._checkpoints.save(task.key, epoch, message["checkpoint"])
        error = 100 * (1 - message["test_accuracy"])
        self._running[task] = f"{task.member.network} epoch {epoch}/{epochs} at {error:.1f}%"
        self._work += task.work / epochs
        self._left[task] = task.work * (1 - epoch / epochs)
        if time.monotonic() >= self._last_line + SECONDS_PER_LINE:
            self._last_line = time.monotonic()
            seconds = (self._last_line - self._start) * sum(self._left.values()) / self._work
            running = ", ".join(self._running.values())
            self.listener.say(f"{self._done} done, about {format_duration(seconds)} left; {running}")

    def finished(self, task: Task, result: dict[str, Any]) -> None:
        """Write the trained network, then the record that speaks of it."""
        record = task.record(result)
        if record["reason"] is None:
            task.write_network(record, result["weights"], self.results)
        self.ledger.append(record)
        self._checkpoints.drop(task.key)
        self._end(task)
        outcome = record["reason"] or f"test error {100 * (1 - record['test_accuracy']):.2f}%"
        self.listener.say(f"{self._done} {task}: {outcome}, in {format_duration(record['seconds'])}")
        self.write_reports()

    def lost(self, task: Task) -> None:
        self._running.pop(task, None)
        self.listener.say(f"{task}: its worker process died")

    def failed(self, task: Task, reason: str) -> None:
        self._end(task)
        self.broken.append(f"{task}: {reason}")

    @property
    def _done(self) -> str:
        return f"{len(self._missing) - len(self._left)}/{len(self._missing)}"

    def _end(self, task: Task) -> None:
        self._running.pop(task, None)
        del self._left[task]
