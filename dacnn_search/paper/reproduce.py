"""Train what the paper's tables and figures need, on Ray's workers, and write ours beside the published.

The paper's protocol: the whole training set is trained on, without a validation part; the test set is looked at every
epoch, which is what figures 4 and 6 show; nothing is selected by it, the error of a table is that of the last epoch.
(A search never sees the test images.)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.common.files import lock
from dacnn_search.common.interrupt import orderly_end
from dacnn_search.export.folder import WEIGHTS
from dacnn_search.paper.archive import LEDGER, Task, network_folder, records_of
from dacnn_search.paper.data import load_data
from dacnn_search.paper.experiments import PROTOCOL, Conditions, Experiment
from dacnn_search.paper.page import write_report
from dacnn_search.paper.report import Results
from dacnn_search.paper.trainings import Trainings
from dacnn_search.search.cluster.ray_cluster import RaySession
from dacnn_search.search.cluster.slots import Resources, demand_of
from dacnn_search.search.cluster.tasks import run_tasks
from dacnn_search.search.listener import Listener
from dacnn_search.storage.ledger import Ledger

__all__ = ["reproduce"]


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
    folder of each data set.

    Raises DataError if data can't be read, InputError for conditions that can't be, RunDirectoryError if another
    process writes to `results`, DacnnSearchError naming the trainings that broke, after all others are done.
    """
    listener = listener or Listener()
    results.mkdir(parents=True, exist_ok=True)
    with (
        lock(results),
        orderly_end(results) as stop,
        Ledger.open(results / LEDGER, repair=repair, advice="the same command with --repair") as ledger,
    ):
        members = dict.fromkeys(member for experiment in experiments for member in experiment.members)
        names = dict.fromkeys(member.dataset for member in members)
        data = {name: load_data(name, sources[name], conditions.subset) for name in names}
        tasks = [Task(m, data[m.dataset], conditions, seed) for m in members for seed in range(conditions.seeds)]
        tasks.sort(key=lambda task: -task.work)  # so that the workers end together
        pictured = {m for experiment in experiments if experiment.kind == "filters" for m in experiment.members}

        def is_done(task: Task) -> bool:
            """A network whose filters are pictured must still be there, too."""
            records = [record for record in records_of(task, ledger.records) if record["seed"] == task.seed]
            weights = [network_folder(results, record) / WEIGHTS for record in records]
            return any(task.member not in pictured or path.is_file() for path in weights)

        def write_reports() -> list[Path]:
            records = {task.member: records_of(task, ledger.records) for task in tasks}
            return [write_report(experiment, Results(conditions, records, data), results) for experiment in experiments]

        missing = [task for task in tasks if not is_done(task)]
        for line in (PROTOCOL, conditions.note, *(used.note for used in data.values())):
            listener.say(line)
        listener.say(f"trainings: {len(tasks)}, of them done already: {len(tasks) - len(missing)}")
        broken: list[str] = []
        if missing:
            images = missing[0].data.images  # all data sets of the paper have images of one size
            networks = [task.architecture for task in missing]
            size = (images.input_shape, images.num_classes, missing[0].recipe)
            with RaySession(resources) as session:
                slots = session.slots(demand_of(networks, *size, data_bytes=images.nbytes))
                trainings = Trainings(missing, results, ledger, slots, listener, write_reports)
                run_tasks(missing, trainings, slots.concurrency, stop)
                broken = trainings.broken
        folders = write_reports()
    if broken:
        raise DacnnSearchError("these trainings broke, all others are done:\n" + "\n".join(broken))
    return folders
