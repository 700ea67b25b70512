"""The main command as a user runs it: a small search to its end, and command lines that are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dacnn_search.run_directory import RunDirectory

THREE_NETWORKS = """\
data: {name: digits, validation: 0.3, subset: 200}
architecture:
  sections: 1
  depth: {choice: [1, 2, 3]}
  width: 4
recipe: {epochs: 1}
search: {trials: 10}
retrain: {top: 1, epochs: 1}
"""


def command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "dacnn_search.run", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=cwd,
        env=environment,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Spaces and quotes and letters of many kinds are no matter in a path."""
    folder = tmp_path_factory.mktemp("with") / "a folder's “name” ñ 図"
    folder.mkdir()
    (folder / "three networks.yaml").write_text(THREE_NETWORKS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def done(folder) -> subprocess.CompletedProcess[str]:
    return command("--space", folder / "three networks.yaml", "--results", folder / "results")


@pytest.fixture(scope="module")
def run(done, folder) -> RunDirectory:
    assert done.returncode == 0, done.stderr
    return RunDirectory(folder / "results" / "three networks")


def test_it_ends_by_itself_once_every_network_is_trained(run):
    assert [r["state"] for r in run.records] == ["COMPLETE"] * 3
    assert json.loads((run.folder / "status.json").read_text(encoding="utf-8"))["state"] == "finished"


def test_it_prints_the_front_and_where_things_are(run, done):
    assert done.stderr == ""
    assert "Pareto front" in done.stdout
    assert "dashboard.html" in done.stdout
    for record in run.front:
        assert f"{record['parameters']:,}" in done.stdout


def test_the_folder_has_everything(run):
    names = {path.name for path in run.folder.iterdir()}
    tables = {"trials.csv", "front.csv", "optuna.db", "dashboard.html", "status.json", "log.txt"}
    assert {"space.yaml", "environment.json", "trials.jsonl", "retrained.jsonl", "best", *tables} <= names
    assert run.space_file.read_text(encoding="utf-8") == THREE_NETWORKS
    best = next((run.folder / "best").iterdir())
    assert {"config.yaml", "weights.safetensors", "metrics.json", "README.md"} <= {p.name for p in best.iterdir()}


def test_the_log_has_a_line_per_trial(run):
    lines = (run.folder / "log.txt").read_text(encoding="utf-8").splitlines()
    assert sum("COMPLETE" in line for line in lines) == 3


def test_the_space_and_its_settings_are_kept(run):
    assert run.environment["trials"] == 10
    assert run.environment["space"]["networks"] == 3
    assert run.environment["format"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--space"),
        (["--space", "missing.yaml"], "missing.yaml"),
        (["--space", "good.yaml", "--trials", "0"], "--trials"),
        (["--space", "good.yaml", "--trials", "x"], "--trials"),
        (["--space", "good.yaml", "--seed", "-1"], "--seed"),
        (["--space", "good.yaml", "--time-budget", "soon"], "--time-budget"),
        (["--space", "good.yaml", "--gpus-per-trial", "nan"], "--gpus-per-trial"),
        (["--space", "good.yaml", "--sampler", "best"], "sampler"),
        (["--space", "bad.yaml"], "bad.yaml:3"),
        (["--space", "bomb.yaml"], "bomb.yaml"),
        (["--space", "python.yaml"], "python.yaml"),
        (["--resume", "nowhere"], "nowhere"),
        (["--space", "good.yaml", "--name", "../outside"], "outside"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_made(tmp_path, arguments, message):
    (tmp_path / "good.yaml").write_text(THREE_NETWORKS, encoding="utf-8")
    (tmp_path / "bad.yaml").write_text(THREE_NETWORKS.replace("sections: 1", "sections: 0"), encoding="utf-8")
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijklm", "bcdefghijklmn"))
    (tmp_path / "bomb.yaml").write_text(bomb, encoding="utf-8")
    (tmp_path / "python.yaml").write_text("!!python/object/apply:os.mkdir [made]\n", encoding="utf-8")
    done = command(*arguments, "--results", tmp_path / "results", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "outside").exists()
