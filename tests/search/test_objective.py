"""Searches that keep flash small instead of parameters."""

import csv
import json
import math

import optuna
import pytest
from pretended import TINY, Pretended, new_run

from dacnn_search.common.errors import InputError, RunDirectoryError, SpaceError
from dacnn_search.replay import replay
from dacnn_search.search.report import snapshot_of
from dacnn_search.search.request import prepare
from dacnn_search.search.retrain import retrain
from dacnn_search.search.sampler.domain import Domain
from dacnn_search.search.sampler.proposals import Proposals, SamplerOptions
from dacnn_search.search.trial import Trial
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.front import front_of, hypervolumes
from dacnn_search.storage.run_directory import RunDirectory

SPACE = TINY.replace("search: {", "search: {objective: flash, ").replace("sampler: tpe", "sampler: surrogate")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    file = tmp_path_factory.mktemp("space") / "space.yaml"
    file.write_text(SPACE)
    return SearchSpace.from_yaml(file)


@pytest.fixture(scope="module")
def run(space, tmp_path_factory):
    run = new_run(space, tmp_path_factory.mktemp("results"))
    for trials in (12, 24):  # in two sessions
        Pretended(space, run, trials=trials).run()
    return run


def test_its_front_is_that_of_flash(run):
    finished, front = run.records, run.front
    assert len(finished) == 24
    points = {(record["flash"], record["accuracy"]) for record in finished}
    unbeaten = {(f, a) for f, a in points if not any(g <= f and b >= a and (g, b) != (f, a) for g, b in points)}
    assert [(r["flash"], r["accuracy"]) for r in front] == sorted(unbeaten)
    assert front != front_of(finished)


def test_its_ledger_has_the_costs_in_bytes(space, run):
    for record in run.records:
        cost = space.cost(space.replay(record["choices"])[0])
        assert (record["flash"], record["ram"]) == (cost.flash, cost.ram)


def test_its_hypervolume_is_measured_between_the_extremes_of_flash(space, run):
    assert (run.scale.least, run.scale.most) == space.extremes("flash")
    assert 0 < hypervolumes(run.records, run.scale)[-1] == round(run.scale.hypervolume(run.front), 5)
    assert snapshot_of(run, "finished").objective == "flash"


def test_its_tables_and_its_study_tell_flash(run):
    with (run.folder / "front.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["flash"]), int(row["ram"])) for row in rows] == [(r["flash"], r["ram"]) for r in run.front]
    study = optuna.load_study(study_name=run.folder.name, storage=f"sqlite:///{run.folder}/optuna.db")
    assert study.metric_names == ["accuracy", "flash"]
    assert {t.values[1] for t in study.trials} == {r["flash"] for r in run.records}
    study._storage.remove_session()


def test_it_is_replayed(run):
    assert replay(run) == (24, 0, None)


def test_the_sampler_and_the_stopping_rule_go_by_flash(space):
    domain = Domain(space, "flash")
    for architecture, choices in space.networks():
        assert domain.read(choices).cost == math.log10(space.cost(architecture).flash)
    proposal = Proposals(space, "random", 0, options=SamplerOptions("flash")).propose()
    assert Trial(proposal).progress("flash").size == proposal.cost.flash


def test_it_is_resumed_with_the_objective_that_it_was_given(space, tmp_path):
    run = new_run(space, tmp_path, objective="parameters")
    assert run.front == []
    assert prepare(resume=run.folder, settings={}).settings.objective == "parameters"


@pytest.mark.parametrize(("before", "after"), [("flash", "parameters"), ("parameters", "flash"), (None, "flash")])
def test_another_objective_is_refused_when_resuming(space, tmp_path, before, after):
    run = new_run(space, tmp_path, objective=before or "parameters")
    if before is None:  # a run of an old version
        environment = run.environment
        del environment["objective"]
        run.environment_file.write_text(json.dumps(environment))
    with pytest.raises(RunDirectoryError, match=f"keeps its objective {before or 'parameters'}, but got {after}$"):
        prepare(resume=run.folder, settings={"objective": after})


def test_another_objective_in_the_file_is_refused_when_resuming(space, tmp_path):
    run = new_run(space, tmp_path)
    run.space_file.write_text(SPACE.replace("objective: flash, ", ""))
    with pytest.raises(RunDirectoryError, match="keeps its objective flash, but got parameters"):
        prepare(resume=run.folder, settings={})


def test_budgets_are_sizes_of_the_objective(space_file, tmp_path):
    text = SPACE.replace("objective: flash, ", "").replace("top: 2", "budgets: [5k]")
    with pytest.raises(SpaceError, match=r"retrain.budgets: must be a size such as 100kB"):
        prepare(space_file(text), results=tmp_path, settings={"objective": "flash"})
    space = SearchSpace.from_yaml(space_file(SPACE.replace("top: 2", "budgets: [32kB, 8KiB]")))
    assert space.settings.retrain.sizes("flash") == [8_192, 32_000]


def test_budgets_of_another_objective_are_refused_when_resuming(space_file, tmp_path):
    text = SPACE.replace("objective: flash, ", "")
    run = new_run(SearchSpace.from_yaml(space_file(text)), tmp_path, objective="flash")
    run.space_file.write_text(text.replace("top: 2", "budgets: [5k]"))
    run.set_environment(objective="flash")
    with pytest.raises(SpaceError, match=r"retrain.budgets: must be a size such as 100kB"):
        prepare(resume=run.folder, settings={"objective": "flash"})
    Pretended(run.space, run, objective="flash").run()
    with pytest.raises(InputError, match=r"space.yaml: retrain.budgets: must be a size such as 100kB"):
        retrain(run)


def test_an_objective_that_is_none_is_refused(run_copy):
    run_copy.set_environment(objective="speed")
    with pytest.raises(RunDirectoryError, match="objective must be parameters or flash, but is 'speed'"):
        RunDirectory(run_copy.folder)


def test_the_folders_of_its_networks_are_ranked_and_named_by_flash(run_copy):
    assert [network.folder.name for network in run_copy.networks] == ["01-254", "02-2014"]
    run_copy.set_environment(objective="flash")
    networks = run_copy.networks
    assert [network.folder.name for network in networks] == [f"01-{networks[0].flash}B", f"02-{networks[1].flash}B"]
    assert [network.size for network in networks] == sorted(network.flash for network in networks)


def test_an_objective_on_the_command_line_must_suit_the_space(tmp_path, space_file):
    file = space_file("data: {name: digits}\narchitecture: {sections: 1, depth: 1, width: 4, batch_norm: false}\n")
    with pytest.raises(SpaceError, match=f"^{file}:2: architecture.batch_norm: must be true, but is false: flash and"):
        prepare(file, results=tmp_path, settings={"objective": "flash"})
