"""The main command as a user runs it: a small search to its end, and command lines that are refused."""

import json
import os
import re
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dacnn_search.run import main
from dacnn_search.storage.run_directory import RunDirectory

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
    best = next(path for path in (run.folder / "best").iterdir() if path.is_dir())
    assert {"config.yaml", "weights.safetensors", "metrics.json", "README.md"} <= {p.name for p in best.iterdir()}


def test_the_log_has_a_line_per_trial(run):
    lines = (run.folder / "log.txt").read_text(encoding="utf-8").splitlines()
    assert sum("COMPLETE" in line for line in lines) == 3


def test_the_space_and_its_settings_are_kept(run):
    assert run.environment["trials"] == 10
    assert run.environment["space"]["networks"] == 3
    assert run.environment["format"] == 1


@pytest.fixture
def mistakes(tmp_path, monkeypatch) -> Path:
    """A folder to run in, with a good space and bad ones."""
    bomb = ["a: &a [x, x]"] + [f"{b}: &{b} [*{a}, *{a}]" for a, b in pairwise("abcdefghijklm")]
    files = {
        "good.yaml": THREE_NETWORKS,
        "bad.yaml": THREE_NETWORKS.replace("sections: 1", "sections: 0"),
        "bomb.yaml": "\n".join(bomb),
        "python.yaml": "!!python/object/apply:os.mkdir [made]\n",
        "deep.yaml": "[" * 3000,
        "hostile.yaml": "name: \"<script>alert('1')</script>\"\n" + THREE_NETWORKS,
    }
    for name in ("pickle", "torn", "none", "bomb"):
        data = f"{{name: npz, root: {name}.npz}}"
        files[f"{name}-data.yaml"] = re.sub("data: .*", f"data: {data}", THREE_NETWORKS)
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    labels = np.arange(20) % 2
    np.savez(tmp_path / "pickle.npz", train_images=np.array([Harm()] * 20), train_labels=labels)
    np.savez(tmp_path / "torn.npz", train_images=np.zeros((20, 8, 8), np.uint8), train_labels=labels)
    with (tmp_path / "torn.npz").open("r+b") as file:
        file.truncate(900)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000, 1000, 100)}"
        archive.writestr("train_images.npy", header.ljust(127) + b"\n" + bytes(2**22))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Harm:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("harm",))


MISTAKES = [
    ([], "a space or a run directory"),
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
    (["--space", "deep.yaml"], "deep.yaml"),
    (["--resume", "nowhere"], "nowhere"),
    (["--space", "good.yaml", "--name", "../outside"], "outside"),
    (["--space", "good.yaml", "--name", "/absolute"], "absolute"),
    (["--space", "good.yaml", "--name", ".."], ".."),
    (["--space", "good.yaml", "--extend"], "resumed"),
    (["--space", "good.yaml", "--repair"], "resumed"),
    (["--resume", "run", "--extend"], "--space FILE"),
    (["--resume", "run", "--name", "other"], "keeps its folder run, but got --name other"),
    (["--resume", "run", "--results", "other"], "keeps its folder run, but got --results other"),
    (["--space", "good.yaml", "--results", "good.yaml"], "folder that can be written"),
    (["--space", "good.yaml", "--results", "good.yaml/below"], "folder that can be written"),
    (["--space", "hostile.yaml"], "hostile.yaml:1: name"),
    (["--space", "pickle-data.yaml"], "pickle.npz: train_images must be an array of numbers or text"),
    (["--space", "torn-data.yaml"], "torn.npz can't be read"),
    (["--space", "none-data.yaml"], "none.npz can't be read"),
    (["--space", "bomb-data.yaml"], "bomb.npz: train_images must unpack to"),
]


@pytest.mark.parametrize(
    ("option", "given", "key", "setting"),
    [
        ("--objective", "flash", "objective", "flash"),
        ("--trials", "9", "trials", 9),
        ("--time-budget", "2m", "time_budget", 120),
        ("--sampler", "random", "sampler", "random"),
        ("--prior", "none", "prior", "none"),
        ("--fidelity", "auto", "fidelity", "auto"),
        ("--stopping", "halving", "stopping", "halving"),
        ("--confirm", "2", "confirm", 2),
        ("--seed", "4", "seed", 4),
        ("--concurrency", "1", "concurrency", 1),
        ("--gpus-per-trial", "0.5", "gpus_per_trial", 0.5),
    ],
)
def test_an_option_overrides_the_file(folder, monkeypatch, option, given, key, setting):
    asked = []
    monkeypatch.setattr("dacnn_search.run.run_job", lambda request, *_: asked.append(request.settings))
    with pytest.raises(SystemExit) as ended:
        main(["--space", str(folder / "three networks.yaml"), option, given])
    assert ended.value.code == 0
    assert getattr(asked[0], key) == setting


def test_trackers_are_asked_for_by_options(folder, monkeypatch):
    asked = []
    monkeypatch.setattr("dacnn_search.run.run_job", lambda *given: asked.append(given[-1]))
    for options in ([], ["--tensorboard"]):
        with pytest.raises(SystemExit):
            main(["--space", str(folder / "three networks.yaml"), *options])
    assert asked[0] is None
    assert (asked[1].tensorboard, asked[1].wandb, asked[1].mlflow) == (True, None, None)


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_told_before_anything_is_made(mistakes, capsys, arguments, message):
    before = sorted(mistakes.parent.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert sorted(mistakes.parent.rglob("*")) == before


def test_a_read_only_folder_is_told_before_anything_is_made(mistakes, capsys, monkeypatch):
    """As root, permissions bind nobody: the answer of the system is pretended."""
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    before = sorted(mistakes.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(["--space", "good.yaml", "--results", "results"])
    assert ended.value.code == 2
    assert f"results: results need a folder that can be written, but {mistakes} can't" in capsys.readouterr().err
    assert sorted(mistakes.rglob("*")) == before


@pytest.mark.parametrize("arguments", [MISTAKES[1][0], MISTAKES[8][0], MISTAKES[9][0], MISTAKES[10][0]])
def test_the_command_tells_a_mistake_without_a_traceback(mistakes, arguments):
    done = command(*arguments, cwd=mistakes)
    assert done.returncode == 2
    assert done.stdout == ""
    assert all(line.startswith(arguments[1]) for line in done.stderr.splitlines())


def test_a_mistake_imports_nothing_heavy(mistakes):
    code = (
        "import sys, dacnn_search.run as run\n"
        "try: run.main(['--space', 'bad.yaml'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'optuna', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=mistakes, check=True)
    assert done.stdout == "[]\n"
