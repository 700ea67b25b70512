"""The files of a run directory that follow from its ledgers and can be deleted: tables, Optuna study, dashboard."""

import concurrent.futures
import contextlib
import dataclasses
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import TrialState

from dacnn_search.common.files import write_atomic
from dacnn_search.dashboard.page import write_dashboard, write_index
from dacnn_search.dashboard.tensorboard import write_tensorboard
from dacnn_search.network.architecture import Architecture
from dacnn_search.search.listener import Listener, Snapshot
from dacnn_search.search.sampler.proposals import ATTRIBUTES, DIRECTIONS, Proposal, frozen_trial, open_trial
from dacnn_search.search.sampler.registry import quiet_optuna
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.front import Record, front_of
from dacnn_search.storage.ledger import now
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.storage.trained import TrainedNetwork, deviation_of, judge

__all__ = ["Derived", "write_end", "write_status", "write_study", "write_tables"]

STATUS_SECONDS = 1.0  # between two writes of status.json
SHARE = 0.05  # of the time may go into writing the other files
LEAST_SECONDS = 3.0  # between two writes of the other files

RUNNING, WAITING = TrialState.RUNNING, TrialState.WAITING

Records = Sequence[Mapping[str, Any]]
Unfinished = Sequence[tuple[Proposal, bool]]  # what was proposed but has not ended, and whether it's being trained


class Derived:
    """Keeps the derived files of a running search up to date, in a thread of its own, as often as is cheap.

    A file that can't be written is told to the listener and costs the search nothing.
    """

    def __init__(self, run: RunDirectory, space: SearchSpace, listener: Listener) -> None:
        self._run = run
        self._listener = listener
        self._space = space
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="derived")
        self._pending: concurrent.futures.Future[float] | None = None
        self._due = time.monotonic() + LEAST_SECONDS
        self._status_due = 0.0
        self._complaint: str | None = None

    def refresh(self, records: Records, unfinished: Unfinished) -> None:
        """Bring tables, study and dashboard up to date if that is due."""
        if self._pending is not None and self._pending.done():
            self._due = time.monotonic() + max(LEAST_SECONDS, self._pending.result() / SHARE)
            self._pending = None
        if self._pending is None and time.monotonic() >= self._due:
            self._pending = self._thread.submit(self._write, list(records), unfinished)

    def close(self, records: Records, unfinished: Unfinished) -> None:
        """Bring them up to date now."""
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
            self._complain(error)

    def _write(self, records: Records, unfinished: Unfinished) -> float:
        """Write all; the seconds it took."""
        start = time.monotonic()
        try:
            write_tables(self._run.folder, records)
            write_study(self._run.folder, self._space, records, unfinished)
            write_dashboard(self._run.folder)
            write_index(self._run.folder.parent)
            if (self._run.folder / "tensorboard").is_dir():
                write_tensorboard(self._run.folder, records)
        except Exception as error:  # the search goes on: all of this can be written again from the ledger
            self._complain(error)
        return time.monotonic() - start

    def _complain(self, error: Exception) -> None:
        """Tell once what can't be written."""
        message = f"{self._run.folder}: status, tables, study or dashboard can't be written: {error}"
        if message != self._complaint:
            self._complaint = message
            self._listener.say(message)


def write_status(run: RunDirectory, snapshot: Snapshot) -> None:
    """`status.json`: the state of a run, for the dashboard and for other programs."""
    values = {
        "state": snapshot.state,
        "message": snapshot.message,
        "elapsed": round(snapshot.elapsed, 1),
        "remaining": None if snapshot.remaining is None else round(snapshot.remaining, 1),
        "finished": snapshot.finished,
        "trials": snapshot.trials,
        "running": [dataclasses.asdict(trial) for trial in snapshot.running],
        "hypervolume": snapshot.hypervolume,
        "retraining": snapshot.retraining and dataclasses.asdict(snapshot.retraining),
        "updated": now(),
    }
    write_atomic(run.folder / "status.json", json.dumps(values, indent=2) + "\n")


def write_end(run: RunDirectory) -> None:
    """`status.json` and the tables of a run that has done all it was to do."""
    records = run.records
    write_tables(run.folder, records, run.networks)
    front = front_of(records)
    elapsed = max((record["finished"] for record in records), default=0.0)
    hypervolume = run.scale.hypervolume(front)
    write_status(run, Snapshot("finished", None, elapsed, None, len(records), len(records), (), front, hypervolume))


def write_tables(folder: Path, records: Records, networks: Sequence[TrainedNetwork] = ()) -> None:
    """`trials.csv` and `front.csv`: one row per trial, with its choices as columns; the front also with the test
    accuracies of the networks that were retrained: mean and standard deviation, and whether another beats it."""
    write_atomic(folder / "trials.csv", _table(records, ("sequence", "state", "loss", "epochs", "seconds", "reason")))
    judgement = judge(networks)
    beaten = {network.trial for network in judgement.beaten} if judgement else set()
    tested = {network.trial: network for network in networks if network.tested}
    scores = ("test_accuracy", "test_deviation", "seeds", "beaten_on_test")
    front: list[dict[str, Any]] = []
    for record in front_of(records):
        network = tested.get(record["trial"])
        of_test: Sequence[Any] = [None] * len(scores)
        if network:
            tested_by = network.tested
            of_test = (network.accuracy, deviation_of(tested_by), len(tested_by), network.trial in beaten)
        front.append({**record, **dict(zip(scores, of_test, strict=True))})
    write_atomic(folder / "front.csv", _table(front, scores if tested else ()))


def _table(records: Sequence[Record], further: Sequence[str]) -> str:
    identity = ("trial", "fingerprint", "parameters", "macs", "accuracy")
    rows = [
        {
            **{name: record[name] for name in (*identity, *further)},
            **record["choices"],
            "network": str(Architecture.from_dict(record["architecture"])),
        }
        for record in records
    ]
    choices = sorted({name for record in records for name in record["choices"]})
    columns = [*identity, *further, *choices, "network"]
    return pd.DataFrame(rows, columns=columns, dtype=object).to_csv(index=False)


def write_study(folder: Path, space: SearchSpace, records: Records, unfinished: Unfinished = ()) -> None:
    """`optuna.db`: the study as Optuna's own tools read it, brought up to date. One that does not fit the records is
    written anew."""
    path = folder / "optuna.db"
    try:
        with _open_study(path, folder.name) as study:
            if _update_study(study, space, records, unfinished):
                return
    except Exception:  # whatever is wrong with the file, the ledger has everything
        pass
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with _open_study(path, folder.name) as study:
        _update_study(study, space, records, unfinished)


@contextlib.contextmanager
def _open_study(path: Path, name: str) -> Iterator[optuna.Study]:
    """The study in a database file, which is made if it is not there. It is not worth waiting for the disk."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    with quiet_optuna():
        storage = optuna.storages.RDBStorage("sqlite:///optuna.db", engine_kwargs={"creator": connect})
        try:
            study = optuna.create_study(study_name=name, storage=storage, directions=DIRECTIONS, load_if_exists=True)
            if study.metric_names is None:  # not by `set_metric_names`, which warns
                storage.set_study_system_attr(study._study_id, "study:metric_names", ["accuracy", "parameters"])
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _update_study(study: optuna.Study, space: SearchSpace, records: Records, unfinished: Unfinished) -> bool:
    """Add to a study what it lacks and change the state of what has one; False if it has what it should not have."""
    storage = study._storage
    stored = {trial.user_attrs.get("trial"): trial for trial in study.get_trials(deepcopy=False)}
    finished = {record["trial"]: record for record in records}
    states = {proposal.trial: RUNNING if running else WAITING for proposal, running in unfinished}
    for number, trial in stored.items():
        record = finished.get(number)
        if record is None and (trial.state.is_finished() or number not in states):
            return False
        if record is not None and trial.state.is_finished() and not _same(trial, record):
            return False
    missing: dict[int, optuna.trial.FrozenTrial] = {}
    for number, record in finished.items():
        if number not in stored:
            missing[number] = frozen_trial(space, record)
        elif not stored[number].state.is_finished():
            identity = stored[number]._trial_id
            for name in ATTRIBUTES:
                storage.set_trial_user_attr(identity, name, record[name])
            values = (record["accuracy"], record["parameters"]) if record["state"] == "COMPLETE" else None
            storage.set_trial_state_values(identity, TrialState[record["state"]], values)
    for proposal, _ in unfinished:
        state = states[proposal.trial]
        if proposal.trial not in stored:
            missing[proposal.trial] = open_trial(space, proposal, state)
        elif stored[proposal.trial].state != state:
            storage.set_trial_state_values(stored[proposal.trial]._trial_id, state)
    study.add_trials([missing[number] for number in sorted(missing)])  # so Optuna numbers them as we do
    return True


def _same(trial: optuna.trial.FrozenTrial, record: Record) -> bool:
    attributes = trial.user_attrs
    return trial.state.name == record["state"] and all(attributes.get(name) == record[name] for name in ATTRIBUTES)
