"""The files of a run directory that follow from its ledgers and can be deleted: status, tables, study, dashboard."""

import concurrent.futures
import contextlib
import json
import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import pandas as pd
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from dacnn_search.common.files import write_atomic
from dacnn_search.dashboard.page import write_dashboard, write_index
from dacnn_search.dashboard.tensorboard import write_tensorboard
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import COSTS
from dacnn_search.search.listener import Listener, Snapshot
from dacnn_search.search.sampler.proposals import Proposal, frozen_trial, quiet_optuna
from dacnn_search.search.sampler.surrogate import DIRECTIONS
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.front import Record, front_of
from dacnn_search.storage.ledger import now
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.storage.trained import TrainedNetwork, beaten_on_test, deviation_of

Unfinished = Sequence[tuple[Proposal, bool]]  # proposals that have not ended, and whether each is being trained

STATUS_SECONDS = 1.0  # between two writes of status.json
SHARE = 0.05  # of the time may go into writing the other files
LEAST_SECONDS = 3.0  # between two writes of the other files

IDENTITY = ("trial", "fingerprint", *COSTS, "accuracy")  # first columns of both tables
TRIAL_COLUMNS = ("sequence", "state", "loss", "epochs", "seconds", "reason")
TEST_COLUMNS = ("test_accuracy", "test_deviation", "seeds", "beaten_on_test")


class ReportWriter:
    """Keeps the derived files of a running search up to date, in another thread, as often as is cheap.

    If a file can't be written, the listener is told once and the search goes on.
    """

    def __init__(self, run: RunDirectory, space: SearchSpace, listener: Listener) -> None:
        self._run = run
        self._listener = listener
        self._space = space
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="report")
        self._due = time.monotonic() + LEAST_SECONDS
        self._status_due = 0.0
        self._last_problem: str | None = None

    def refresh(self, records: Sequence[Record], unfinished: Unfinished) -> None:
        """Start bringing tables, study and dashboard up to date if that is due."""
        if time.monotonic() >= self._due:
            self._due = math.inf  # until it is known how long this takes
            self._thread.submit(self._write, list(records), unfinished)

    def close(self, records: Sequence[Record], unfinished: Unfinished) -> None:
        """Bring tables, study and dashboard up to date and end the thread."""
        self._thread.submit(self._write, list(records), unfinished).result()
        self._thread.shutdown()

    def write_status(self, snapshot: Snapshot) -> None:
        """Write `status.json`, at most once a second while the search goes on."""
        if snapshot.state == "searching" and time.monotonic() < self._status_due:
            return
        self._status_due = time.monotonic() + STATUS_SECONDS
        try:
            write_status(self._run, snapshot)
        except OSError as error:
            self._report_problem(error)

    def _write(self, records: Sequence[Record], unfinished: Unfinished) -> None:
        start = time.monotonic()
        try:
            records = self._run.with_costs(records)
            write_tables(self._run.folder, records, objective=self._run.objective)
            write_study(self._run.folder, self._space, records, unfinished, objective=self._run.objective)
            write_dashboard(self._run.folder)
            write_index(self._run.folder.parent)
            if (self._run.folder / "tensorboard").is_dir():
                write_tensorboard(self._run.folder, records)
        except Exception as error:  # the search goes on: all of this can be written again from the ledger
            self._report_problem(error)
        self._due = time.monotonic() + max(LEAST_SECONDS, (time.monotonic() - start) / SHARE)

    def _report_problem(self, error: Exception) -> None:
        message = f"{self._run.folder}: status, tables, study or dashboard can't be written: {error}"
        if message != self._last_problem:
            self._last_problem = message
            self._listener.say(message)


def write_status(run: RunDirectory, snapshot: Snapshot) -> None:
    """Write `status.json`: the state of a run, for the dashboard and other programs."""
    values = {name: value for name, value in vars(snapshot).items() if name != "front"}
    seconds = {name: None if values[name] is None else round(values[name], 1) for name in ("elapsed", "remaining")}
    write_atomic(run.folder / "status.json", json.dumps({**values, **seconds, "updated": now()}, indent=2) + "\n")


def snapshot_of(run: RunDirectory, state: str) -> Snapshot:
    """Return where a run stands whose search has ended, from its ledger."""
    records = run.records
    front = front_of(records, run.objective)
    return Snapshot(
        state=state,
        message=None,
        elapsed=max((record["finished"] for record in records), default=0.0),
        remaining=None,
        finished=len(records),
        trials=max(len(records), run.environment.get("trials") or 0),
        front=front,
        hypervolume=run.scale.hypervolume(front),
        objective=run.objective,
    )


def write_end(run: RunDirectory) -> None:
    """Write `status.json` and the tables of a run that has done all it was to do."""
    write_tables(run.folder, run.records, run.networks, objective=run.objective)
    write_status(run, snapshot_of(run, "finished"))


def write_tables(
    folder: Path,
    records: Sequence[Record],
    networks: Sequence[TrainedNetwork] = (),
    *,
    objective: str = "parameters",
) -> None:
    """Write `trials.csv` and `front.csv`: a row per trial, its choices as columns. For retrained networks the front has
    mean and standard deviation of their test accuracies, the number of seeds, and whether another network beats it."""
    beaten = beaten_on_test(networks)
    scores = {
        network.fingerprint: {
            "test_accuracy": network.accuracy,
            "test_deviation": deviation_of(network.tested),
            "seeds": len(network.tested),
            "beaten_on_test": network in beaten,
        }
        for network in networks
        if network.tested
    }
    front = [{**record, **scores.get(record["fingerprint"], {})} for record in front_of(records, objective)]
    write_atomic(folder / "trials.csv", _table(records, TRIAL_COLUMNS))
    write_atomic(folder / "front.csv", _table(front, TEST_COLUMNS if scores else ()))


def _table(records: Sequence[Record], further: Sequence[str]) -> str:
    choices = sorted({name for record in records for name in record["choices"]})
    rows = [{**r, **r["choices"], "network": str(Architecture.from_dict(r["architecture"]))} for r in records]
    return pd.DataFrame(rows, columns=[*IDENTITY, *further, *choices, "network"], dtype=object).to_csv(index=False)


def write_study(
    folder: Path,
    space: SearchSpace,
    records: Sequence[Record],
    unfinished: Unfinished = (),
    *,
    objective: str = "parameters",
) -> None:
    """Bring `optuna.db`, which Optuna's own tools read, up to date with the ledger; write it anew if they disagree."""
    open_records = [
        {
            "trial": proposal.trial,
            "state": "RUNNING" if is_running else "WAITING",
            "fingerprint": proposal.architecture.fingerprint,
            "choices": proposal.choices,
            **{name: getattr(proposal.cost, name) for name in COSTS},
        }
        for proposal, is_running in unfinished
    ]
    in_order = sorted([*records, *open_records], key=lambda record: record["trial"])  # so Optuna numbers them as we do
    trials = [frozen_trial(space, record, objective) for record in in_order]
    path = folder / "optuna.db"
    with contextlib.suppress(Exception):  # whatever is wrong with the file, the ledger has everything
        if _update_study(path, folder.name, trials, objective):
            return
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    _update_study(path, folder.name, trials, objective)


def _update_study(path: Path, name: str, trials: Sequence[FrozenTrial], objective: str) -> bool:
    """Change the unfinished trials of a study and add missing ones; return False if it contradicts those given."""
    with _open_storage(path) as storage:
        study = optuna.create_study(study_name=name, storage=storage, directions=DIRECTIONS, load_if_exists=True)
        study.set_metric_names(["accuracy", objective])
        stored = {trial.user_attrs.get("trial"): trial for trial in study.get_trials(deepcopy=False)}
        missing = []
        for trial in trials:
            old = stored.pop(trial.user_attrs["trial"], None)
            if old is None:
                missing.append(trial)
            elif (old.state, old.params, old.user_attrs) != (trial.state, trial.params, trial.user_attrs):
                if old.state.is_finished() or old.params != trial.params:
                    return False
                study_id = storage.get_study_id_from_name(name)
                trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, old.number)
                for attribute, value in trial.user_attrs.items():
                    storage.set_trial_user_attr(trial_id, attribute, value)
                storage.set_trial_state_values(trial_id, trial.state, trial.values)
        study.add_trials(missing)
        return not stored


@contextlib.contextmanager
def _open_storage(path: Path) -> Iterator[RDBStorage]:
    """Open a database file, which is made if it is not there."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
        connection.execute("PRAGMA synchronous=OFF")  # the file can be rebuilt: not worth waiting for the disk
        return connection

    with quiet_optuna():
        storage = RDBStorage("sqlite:///optuna.db", engine_kwargs={"creator": connect})
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()
