"""`optuna.db` of a run directory: the trials as Optuna's own tools read them, kept up to date with the ledger.

The only user of Optuna's storage; all else uses its studies alone.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from dacnn_search.search.sampler.proposals import Proposal, frozen_trial, quiet_optuna
from dacnn_search.search.sampler.surrogate import DIRECTIONS
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.front import Record

__all__ = ["Unfinished", "write_study"]

Unfinished = Sequence[tuple[Proposal, bool]]  # proposals that have not ended, and whether each is being trained


def write_study(folder: Path, space: SearchSpace, records: Sequence[Record], unfinished: Unfinished = ()) -> None:
    """Bring `optuna.db` up to date, or write it anew if it can't be read or contradicts the ledger."""
    open_records = [
        {
            "trial": proposal.trial,
            "state": "RUNNING" if is_running else "WAITING",
            "fingerprint": proposal.architecture.fingerprint,
            "choices": proposal.choices,
            "parameters": proposal.cost.parameters,
            "macs": proposal.cost.macs,
        }
        for proposal, is_running in unfinished
    ]
    in_order = sorted([*records, *open_records], key=lambda record: record["trial"])  # so Optuna numbers them as we do
    trials = [frozen_trial(space, record) for record in in_order]
    path = folder / "optuna.db"
    with contextlib.suppress(Exception):  # whatever is wrong with the file, the ledger has everything
        if _update(path, folder.name, trials):
            return
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    _update(path, folder.name, trials)


def _update(path: Path, name: str, trials: Sequence[FrozenTrial]) -> bool:
    """Change the unfinished trials of a study and add missing ones; return False if it contradicts those given."""
    with _open_storage(path) as storage:
        study = optuna.create_study(study_name=name, storage=storage, directions=DIRECTIONS, load_if_exists=True)
        study.set_metric_names(["accuracy", "parameters"])
        stored = {trial.user_attrs.get("trial"): trial for trial in study.get_trials(deepcopy=False)}
        missing = []
        for trial in trials:
            old = stored.pop(trial.user_attrs["trial"], None)
            if old is None:
                missing.append(trial)
            elif (old.state, old.user_attrs) != (trial.state, trial.user_attrs):
                if old.state.is_finished():
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
