"""The files that follow from a run's ledgers: status and Optuna study."""

import json
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState
from pretended import TINY, Pretended, new_run

from dacnn_search.search.report import snapshot_of, write_end, write_status, write_study
from dacnn_search.space.search_space import SearchSpace


@pytest.fixture
def space(space_file):
    return SearchSpace.from_yaml(space_file(TINY))


@pytest.fixture
def run(space, tmp_path):
    return new_run(space, tmp_path / "results")


def trials_of(folder):
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder}/optuna.db").trials


def test_while_networks_are_retrained_the_status_keeps_the_figures_of_the_search(space, run):
    Pretended(space, run).run()
    seconds = round(run.records[-1]["finished"], 1)
    write_status(run, replace(snapshot_of(run, "interrupted"), retraining={"finished": 1, "trainings": 4}))
    status = json.loads((run.folder / "status.json").read_text())
    assert (status["state"], status["elapsed"], status["finished"], status["trials"]) == ("interrupted", seconds, 4, 4)
    assert status["retraining"] == {"finished": 1, "trainings": 4}
    write_end(run)
    status = json.loads((run.folder / "status.json").read_text())
    assert (status["state"], status["finished"], status["retraining"]) == ("finished", 4, None)


def test_a_trial_of_the_study_changes_its_state_in_place(space, run):
    pretended = Pretended(space, run)
    config = pretended.search.propose("a")
    write_study(run.folder, space, [], pretended.search._unfinished)
    written = (run.folder / "optuna.db").stat().st_ino
    assert [trial.state for trial in trials_of(run.folder)] == [TrialState.RUNNING]
    waiting = [(proposal, False) for proposal, _ in pretended.search._unfinished]
    write_study(run.folder, space, [], waiting)
    assert [trial.state for trial in trials_of(run.folder)] == [TrialState.WAITING]
    pretended.train("a", config)
    write_study(run.folder, space, pretended.ledger.records)
    (trial,) = trials_of(run.folder)
    (record,) = pretended.ledger.records
    assert (trial.state, trial.values) == (TrialState.COMPLETE, [record["accuracy"], record["parameters"]])
    assert trial.user_attrs["seconds"] == record["seconds"]
    assert (run.folder / "optuna.db").stat().st_ino == written
    pretended.close()


def test_a_study_with_a_trial_that_is_not_in_the_ledger_is_written_anew(space, run):
    records = Pretended(space, run).run()
    write_study(run.folder, space, records[:3])
    assert len(trials_of(run.folder)) == 3
    changed = [{**records[0], "accuracy": 0.123}, *records[1:3]]
    write_study(run.folder, space, changed)
    assert trials_of(run.folder)[0].values[0] == 0.123
    write_study(run.folder, space, changed[:2])
    assert len(trials_of(run.folder)) == 2
