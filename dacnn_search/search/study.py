"""`optuna.db` of a run directory: the trials as Optuna's own tools read them, kept up to date with the ledger.

The only user of Optuna's storage; all else uses its studies alone.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from dacnn_search.search.sampler.proposals import ATTRIBUTES, Proposal, finished_trial, unfinished_trial
from dacnn_search.search.sampler.registry import quiet_optuna
from dacnn_search.search.sampler.surrogate import DIRECTIONS
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.front import Record

__all__ = ["Unfinished", "write_study"]

Unfinished = Sequence[tuple[Proposal, bool]]  # proposals that have not ended, and whether each is being trained


def write_study(folder: Path, space: SearchSpace, records: Sequence[Record], unfinished: Unfinished = ()) -> None:
    """Bring `optuna.db` up to date, or write it anew if it can't be read or contradicts the ledger."""
    path = folder / "optuna.db"
    try:
        with _open_study(path, folder.name) as (study, storage):
            if _agrees(study, records, unfinished):
                _update(study, storage, space, records, unfinished)
                return
    except Exception:  # whatever is wrong with the file, the ledger has everything
        pass
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with _open_study(path, folder.name) as (study, storage):
        _update(study, storage, space, records, unfinished)


@contextlib.contextmanager
def _open_study(path: Path, name: str) -> Iterator[tuple[optuna.Study, RDBStorage]]:
    """Open the study in a database file, which is made if it is not there."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
        connection.execute("PRAGMA synchronous=OFF")  # the file can be rebuilt: not worth waiting for the disk
        return connection

    with quiet_optuna():
        storage = RDBStorage("sqlite:///optuna.db", engine_kwargs={"creator": connect})
        try:
            study = optuna.create_study(study_name=name, storage=storage, directions=DIRECTIONS, load_if_exists=True)
            if study.metric_names is None:
                study.set_metric_names(["accuracy", "parameters"])
            yield study, storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _agrees(study: optuna.Study, records: Sequence[Record], unfinished: Unfinished) -> bool:
    """Return whether every trial of the study is one of ours, and no finished one differs from its record."""
    finished = {record["trial"]: record for record in records}
    known = finished.keys() | {proposal.trial for proposal, _ in unfinished}
    for number, trial in _stored_trials(study).items():
        if number not in known:
            return False
        if trial.state.is_finished() and not _is_same(trial, finished.get(number)):
            return False
    return True


def _is_same(trial: FrozenTrial, record: Mapping[str, Any] | None) -> bool:
    if record is None or trial.state.name != record["state"]:
        return False
    return all(trial.user_attrs.get(name) == record[name] for name in ATTRIBUTES)


def _update(
    study: optuna.Study, storage: RDBStorage, space: SearchSpace, records: Sequence[Record], unfinished: Unfinished
) -> None:
    """Change the state of the trials that are there and add those that are not."""
    study_id = storage.get_study_id_from_name(study.study_name)
    stored = _stored_trials(study)
    missing: dict[int, FrozenTrial] = {}
    for record in records:
        trial = stored.get(record["trial"])
        if trial is None:
            missing[record["trial"]] = finished_trial(space, record)
        elif not trial.state.is_finished():
            trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            for name in ATTRIBUTES:
                storage.set_trial_user_attr(trial_id, name, record[name])
            values = (record["accuracy"], record["parameters"]) if record["state"] == "COMPLETE" else None
            storage.set_trial_state_values(trial_id, TrialState[record["state"]], values)
    for proposal, is_running in unfinished:
        state = TrialState.RUNNING if is_running else TrialState.WAITING
        trial = stored.get(proposal.trial)
        if trial is None:
            missing[proposal.trial] = unfinished_trial(space, proposal, state)
        elif trial.state != state:
            trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            storage.set_trial_state_values(trial_id, state)
    study.add_trials([missing[number] for number in sorted(missing)])  # so Optuna numbers them as we do


def _stored_trials(study: optuna.Study) -> dict[int | None, FrozenTrial]:
    return {trial.user_attrs.get("trial"): trial for trial in study.get_trials(deepcopy=False)}
