"""Train what the paper's tables and figures need, on Ray's workers, and write ours beside the published.

The paper's protocol: the whole training set is trained on, without a validation part; the test set is looked at every
epoch, which is what figures 4 and 6 show; nothing is selected by it, the error of a table is that of the last epoch.
(A search never sees the test images.)
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.common.files import lock
from dacnn_search.common.interrupt import Interrupted, Stop, orderly_end
from dacnn_search.common.units import format_duration
from dacnn_search.paper.archive import LEDGER, Archive, Task
from dacnn_search.paper.data import PaperData, Source, load_data
from dacnn_search.paper.experiments import PROTOCOL, Conditions, Experiment, Member
from dacnn_search.paper.page import write_report
from dacnn_search.paper.progress import Progress
from dacnn_search.paper.rows import Results
from dacnn_search.paper.worker import train_watched
from dacnn_search.search.cluster.ray_cluster import ray_session
from dacnn_search.search.cluster.slots import Demand, Resources, Share, Slots, demand_of
from dacnn_search.search.cluster.tasks import run_tasks, start_task
from dacnn_search.search.listener import Listener
from dacnn_search.storage.ledger import Ledger

__all__ = ["reproduce"]

CHECKPOINT_SECONDS = 300.0


def reproduce(
    experiments: Sequence[Experiment],
    conditions: Conditions,
    source: Source,
    results: Path,
    *,
    address: str | None = None,
    concurrency: int | None = None,
    gpus_per_trial: Share = None,
    repair: bool = False,
    listener: Listener | None = None,
    verbose: bool = False,
) -> list[Path]:
    """Train what experiments need and the folder `results` does not have; write and return the folders of reports.

    Reports are written after each training, so that an interrupted reproduction shows what it has. With `repair`,
    damaged lines of the ledger are left out; otherwise they are an error.

    Raises DataError if data can't be read, InputError for conditions that can't be, RunDirectoryError if another
    process writes to `results`, DacnnSearchError naming the trainings that broke, after all others are done.
    """
    listener = listener or Listener()
    results.mkdir(parents=True, exist_ok=True)
    with (
        lock(results),
        _orderly(results) as stop,
        Ledger.open(results / LEDGER, repair=repair, advice="the same command with --repair") as ledger,
    ):
        members = dict.fromkeys(member for experiment in experiments for member in experiment.members)
        datasets = dict.fromkeys(member.dataset for member in members)
        data = {name: load_data(name, source, conditions.subset) for name in datasets}
        tasks = _tasks(members, conditions, data)
        archive = Archive(results, ledger)
        pictured = {
            member for experiment in experiments if experiment.kind == "filters" for member in experiment.members
        }
        missing = [task for task in tasks if not archive.has(task, weights=task.member in pictured)]
        for line in (PROTOCOL, conditions.note, *(used.note for used in data.values())):
            listener.say(line)
        listener.say(f"trainings: {len(tasks)}, of them done already: {len(tasks) - len(missing)}")

        def write_reports() -> list[Path]:
            records = {task.member: archive.records_of(task) for task in tasks}
            found = Results(conditions, records, data, archive.networks)
            return [write_report(experiment, found, results) for experiment in experiments]

        broken: list[str] = []
        if missing:
            with ray_session(Resources(address, concurrency, gpus_per_trial, verbose)) as session:
                slots = session.slots(_demand_of(missing))
                trainings = _Trainings(missing, archive, conditions.scale, slots, listener, write_reports)
                run_tasks(missing, trainings, slots.concurrency, stop)
                broken = trainings.broken
        folders = write_reports()
    if broken:
        raise DacnnSearchError("these trainings broke, all others are done:\n" + "\n".join(broken))
    return folders


@contextlib.contextmanager
def _orderly(folder: Path) -> Iterator[Stop]:
    """Let a signal end this with a word on how to go on."""
    try:
        with orderly_end(folder) as stop:
            yield stop
    except Interrupted as error:
        error.args = ("interrupted; the same command goes on with what is not done",)
        raise


def _tasks(members: Iterable[Member], conditions: Conditions, data: Mapping[str, PaperData]) -> list[Task]:
    """Return the trainings of some networks, the most work first, so that the workers end together."""
    tasks = [
        Task(m, data[m.dataset], conditions.architecture(m.network), conditions.recipe_for(m.dataset), seed)
        for m in members
        for seed in range(conditions.seeds)
    ]
    return sorted(tasks, key=lambda task: -task.work)


def _demand_of(tasks: Sequence[Task]) -> Demand:
    """Return what the trainings take; all data sets of the paper have images of one size."""
    images, recipe = tasks[0].data.images, tasks[0].recipe
    networks = [task.architecture for task in tasks]
    return demand_of(networks, images.input_shape, images.num_classes, recipe, data_bytes=images.nbytes)


class _Trainings:
    """Starts trainings as Ray tasks, keeps their checkpoints and results, and reports on them."""

    def __init__(
        self,
        tasks: Sequence[Task],
        archive: Archive,
        scale: float,
        slots: Slots,
        listener: Listener,
        after_each: Callable[[], Any],
    ) -> None:
        self.broken: list[str] = []  # a line for each training that broke
        self._archive = archive
        self._scale = scale
        self._slots = slots
        self._listener = listener
        self._after_each = after_each
        self._images = {data: ray.put(data.images) for data in {task.data for task in tasks}}
        self._progress = Progress(tasks, listener)

    def start(self, task: Task) -> Any:
        values = (task.architecture.to_dict(), task.recipe, task.seed, self._slots, self._archive.checkpoint(task))
        return start_task(train_watched, self._slots, self._images[task.data], *values, CHECKPOINT_SECONDS)

    def progressed(self, task: Task, message: Mapping[str, Any]) -> None:
        if message["checkpoint"] is not None:
            self._archive.keep_checkpoint(task, message["epoch"], message["checkpoint"])
        self._progress.update(task, message["epoch"], message["test_accuracy"])

    def finished(self, task: Task, result: dict[str, Any]) -> None:
        record = self._archive.keep(task, result, self._scale)
        self._progress.end(task)
        outcome = record["reason"] or f"test error {100 * (1 - record['test_accuracy']):.2f}%"
        seconds = format_duration(record["seconds"])
        self._listener.say(f"{self._progress.done} {task}: {outcome}, in {seconds}")
        self._after_each()

    def lost(self, task: Task) -> None:
        self._listener.say(f"{task}: its worker process died")

    def failed(self, task: Task, reason: str) -> None:
        self._progress.end(task)
        self.broken.append(f"{task}: {reason}")
