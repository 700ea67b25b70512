"""Run directories written by older versions can be read, shown, exported and resumed.

`fixtures/run-0.1` was written by version 0.1 before the package got its rooms: 24 trials on the digits, 5 of them
stopped early, and one network that was trained in full. `fixtures/run-residual` was written before `residual` became
`shortcuts`: 10 trials, and one network that was trained in full. Keep both as they are.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import exit_code

from dacnn_search import load_model, load_run
from dacnn_search.cli import main
from dacnn_search.data.dataset import load
from dacnn_search.network.architecture import Architecture
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.resume import extend_run, space_id

FIXTURE = Path(__file__).parent / "fixtures" / "run-0.1"
RESIDUAL = FIXTURE.with_name("run-residual")
FRONT = [246, 286, 398, 406, 430, 532, 1192, 2114, 3858]  # parameters


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FIXTURE, tmp_path / "results" / "old")


@pytest.fixture
def residual(tmp_path):
    return shutil.copytree(RESIDUAL, tmp_path / "results" / "residual")


def predicted_classes(folder, data):
    pixels = torch.from_numpy(np.asarray(data.test.images)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return load_model(folder)(pixels).argmax(1).numpy()


def test_its_trials_front_and_networks_are_read(folder):
    run = load_run(folder)
    states = [record["state"] for record in run.records]
    assert (states.count("COMPLETE"), states.count("PRUNED")) == (19, 5)
    assert [record["parameters"] for record in run.front] == FRONT
    assert len(run.proposals) == 24
    (network,) = run.best(max_parameters=4_000)
    assert (network.parameters, network.trial) == (3858, 1)
    assert network.accuracy == pytest.approx(0.99164, abs=1e-5)
    assert run.best(max_flash=network.flash, max_ram=network.ram) == [network]
    assert run.best(max_flash=network.flash - 1) == run.best(max_ram=network.ram - 1) == []


def test_its_network_scores_the_test_images_as_it_did(folder):
    run = load_run(folder)
    data = load(run.space.settings.data)
    (network,) = run.best()
    accuracy = np.mean(predicted_classes(network.folder, data) == np.asarray(data.test.labels))
    assert accuracy == pytest.approx(network.accuracy, abs=2 / len(data.test))


def test_its_dashboard_is_written(folder):
    assert exit_code(main, "dashboard", folder) == 0
    page = (folder / "dashboard.html").read_text(encoding="utf-8")
    assert all(record["fingerprint"] in page for record in load_run(folder).front)


def test_its_proposals_are_those_of_an_older_sampler(folder, capsys):
    assert exit_code(main, "replay", folder) == 0
    assert "24 proposals can't be asked for" in capsys.readouterr().out


def test_it_is_exported(folder, tmp_path):
    assert exit_code(main, "export", folder, "--formats", "safetensors", "--to", tmp_path / "exported") == 0
    (exported,) = (tmp_path / "exported").iterdir()
    assert json.loads((exported / "metrics.json").read_text())["parameters"] == 3858
    data = load(load_run(folder).space.settings.data)
    before = predicted_classes(FIXTURE / "best" / "01-3858", data)
    assert (predicted_classes(exported, data) == before).all()


def test_best_is_written_anew(folder):
    before = (folder / "best" / "01-3858" / "weights.safetensors").read_bytes()
    shutil.rmtree(folder / "best")
    assert exit_code(main, "export", folder, "--formats", "safetensors") == 0
    assert (folder / "best" / "01-3858" / "weights.safetensors").read_bytes() == before


def test_residual_is_read_as_shortcuts(residual):
    run = load_run(residual)
    decided = [(record["choices"]["shortcuts"], record["architecture"]["shortcuts"]) for record in run.records]
    assert set(decided) == {("auto", "none"), ("block", "block")}
    assert all(Architecture.from_dict(r["architecture"]).fingerprint == r["fingerprint"] for r in run.records)
    assert run.space.settings.architecture == run.given_settings.architecture
    assert [line["choices"]["shortcuts"] for line in run.proposals] == [shortcuts for shortcuts, _ in decided]
    assert {line["space"] for line in run.proposals} == {space_id(run.space.settings)}


def test_a_run_that_says_residual_is_shown_and_exported(residual):
    assert (
        exit_code(main, "dashboard", residual) == exit_code(main, "export", residual, "--formats", "safetensors") == 0
    )
    config = (residual / "best" / "01-702" / "config.yaml").read_text()
    assert "shortcuts: block" in config
    assert "residual:" not in config


def test_a_run_that_says_residual_is_extended(residual, space_file):
    run = load_run(residual)
    text = run.space_file.read_text().replace(
        "residual: {choice: [auto, true]}", "shortcuts: {choice: [block, history]}"
    )
    old, new = run.space, SearchSpace.from_yaml(space_file(text))
    trials, before = Ledger.open(run.trials_file), run.trials_file.read_bytes()
    with trials, Ledger.open(run.proposals_file) as proposals:
        assert extend_run(run, old, new, trials, proposals) == (7, 3)
    assert {record["choices"]["shortcuts"] for record in run.records} == {"block"}
    assert (residual / "trials.jsonl.before-1").read_bytes() == before


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_that_says_residual_goes_on_and_keeps_its_lines(residual):
    command = [sys.executable, "-m", "dacnn_search.run", "--resume", residual, "--trials", "11"]
    subprocess.run(command, capture_output=True, text=True, check=True)
    for name in ("trials.jsonl", "proposals.jsonl", "retrained.jsonl"):
        assert (residual / name).read_bytes().startswith((RESIDUAL / name).read_bytes())
    run = load_run(residual)
    assert len(run.records) == len(run.proposals) == 11
    assert run.records[-1]["epochs"] == run.records[0]["epochs"]  # in one cycle, as before
    assert run.records[-1]["short"] is None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_goes_on_with_one_more_trial_and_one_more_network(folder):
    space = folder / "space.yaml"
    space.write_text(space.read_text().replace("top: 1", "top: 2"))
    command = [sys.executable, "-m", "dacnn_search.run", "--resume", folder, "--trials", "25"]
    subprocess.run(command, capture_output=True, text=True, check=True)
    run = load_run(folder)
    assert [record["trial"] for record in run.records[:24]] == [record["trial"] for record in load_run(FIXTURE).records]
    assert [record["trial"] for record in run.records[24:]] == [24]
    assert len(run.networks) == 2
    assert run.retrained[0] == load_run(FIXTURE).retrained[0]
    assert all((network.folder / "weights.safetensors").exists() for network in run.networks)
    derived = {"front.csv", "trials.csv", "optuna.db", "dashboard.html", "status.json"}  # the fixture has none of them
    assert derived <= {path.name for path in folder.iterdir()}
