"""Train what the paper's tables and figures need, on Ray's workers, and write ours beside the published.

The paper's protocol: the whole training set is trained on, without a validation part; the test set is looked at every
epoch, which is what figures 4 and 6 show; nothing is selected by it, the error of a table is that of the last epoch.
(A search never sees the test images.)
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.common.files import lock
from dacnn_search.common.interrupt import Interrupted, Stop, orderly_end
from dacnn_search.paper.archive import LEDGER, Archive, Task
from dacnn_search.paper.data import Source, load_data
from dacnn_search.paper.experiments import PROTOCOL, Conditions, Experiment
from dacnn_search.paper.page import write_report
from dacnn_search.paper.rows import Results
from dacnn_search.paper.trainings import Trainings
from dacnn_search.search.cluster.ray_cluster import ray_session
from dacnn_search.search.cluster.slots import Demand, Resources, demand_of
from dacnn_search.search.cluster.tasks import run_tasks
from dacnn_search.search.listener import Listener
from dacnn_search.storage.ledger import Ledger

__all__ = ["reproduce"]


def reproduce(
    experiments: Sequence[Experiment],
    conditions: Conditions,
    source: Source,
    results: Path,
    *,
    resources: Resources | None = None,
    repair: bool = False,
    listener: Listener | None = None,
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
        tasks = _tasks(experiments, conditions, source)
        data = {task.data.dataset: task.data for task in tasks}
        archive = Archive(results, ledger)
        pictured = {m for experiment in experiments if experiment.kind == "filters" for m in experiment.members}
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
            with ray_session(resources) as session:
                slots = session.slots(_demand_of(missing))
                trainings = Trainings(missing, archive, slots, listener, write_reports)
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


def _tasks(experiments: Sequence[Experiment], conditions: Conditions, source: Source) -> list[Task]:
    """Load data and return the trainings of experiments, the most work first, so that the workers end together."""
    members = dict.fromkeys(member for experiment in experiments for member in experiment.members)
    datasets = dict.fromkeys(member.dataset for member in members)
    data = {name: load_data(name, source, conditions.subset) for name in datasets}
    tasks = [Task.of(m, data[m.dataset], conditions, seed) for m in members for seed in range(conditions.seeds)]
    return sorted(tasks, key=lambda task: -task.work)


def _demand_of(tasks: Sequence[Task]) -> Demand:
    """Return what the trainings take; all data sets of the paper have images of one size."""
    images, recipe = tasks[0].data.images, tasks[0].recipe
    networks = [task.architecture for task in tasks]
    return demand_of(networks, images.input_shape, images.num_classes, recipe, data_bytes=images.nbytes)
