"""The dashboard without a browser: what is in the pages, what is not, and the command."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import xml.etree.ElementTree
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from synthetic_run import INPUT_SHAPE, teach, write_c_metrics, write_ledger, write_networks, write_run

from dacnn_search.common.errors import InputError, RunDirectoryError
from dacnn_search.dashboard.__main__ import build_page, main
from dacnn_search.dashboard.importance import importance
from dacnn_search.dashboard.page import write_comparison, write_dashboard, write_figure, write_index
from dacnn_search.dashboard.payload import run_payload
from dacnn_search.dashboard.server import make_server
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import count_parameters, estimate_cost
from dacnn_search.storage.front import front_of
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.run_directory import RunDirectory

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b> & \u2028 {{payload}}"


def payload_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="payload">(.*?)</script>', text, re.DOTALL)
    values: dict[str, Any] = json.loads(data)
    return values


def test_page_holds_the_ledger(tmp_path: Path) -> None:
    records = write_run(tmp_path / "run", trials=40)
    page = write_dashboard(tmp_path / "run")
    assert page == tmp_path / "run" / "dashboard.html"
    payload = payload_of(page)
    trials = payload["trials"]
    for index, record in enumerate(records):
        assert payload["states"][trials["state"][index]] == record["state"]
        for name in ("trial", "parameters", "macs", "epochs", "reason", "fingerprint"):
            assert trials[name][index] == record[name]
        assert trials["accuracy"][index] == pytest.approx(record["accuracy"], abs=1e-5)
        curve = [value / 1e4 for value in payload["curves"]["accuracy"][index]]
        assert curve == pytest.approx(record["curve"]["accuracy"], abs=1e-4)
        for name, column in payload["choices"].items():
            assert column[index] == record["choices"].get(name)
    assert [trials["trial"][i] for i in payload["front"]] == [r["trial"] for r in front_of(records)]


def test_networks_are_described_by_the_architecture(tmp_path: Path) -> None:
    records = write_run(tmp_path, trials=40)
    trials = run_payload(RunDirectory(tmp_path, snapshot=True))["trials"]
    for index, record in enumerate(records):
        architecture = Architecture.from_dict(record["architecture"])
        assert trials["network"][index] == str(architecture)
        assert sum(trials["parts"][index]) == record["parameters"]
        free = dataclasses.replace(
            architecture, sharing="none", anchors=1, mixing="turn", shortcuts=architecture.decided_shortcuts
        )
        assert trials["unshared"][index] == count_parameters(free, 1, 10)
        layers = [layer for block in architecture.blocks for layer in block.layers]
        drawn = [layer for section in trials["drawing"][index] for block, _ in section for layer in block]
        assert [layer[1:] for layer in drawn] == [[layer.regulator, layer.history] for layer in layers]
        kernels = [tuple(f"anchor{anchor}" for anchor in anchors) for anchors, *_ in drawn]
        assert kernels == [() if layer.in_width != layer.width else layer.kernels for layer in layers]
        assert Architecture.from_dict(trials["config"][index]).fingerprint == record["fingerprint"]


def test_parameters_of_mixes_and_history_have_parts_of_their_own(tmp_path: Path) -> None:
    sections = (Section(3, 8), Section(4, 16))
    write_networks(tmp_path, [Architecture(sections, anchors=2, mixing="learned", shortcuts="history", history=2)])
    payload = run_payload(RunDirectory(tmp_path, snapshot=True))
    parts = dict(zip(payload["parts"], payload["trials"]["parts"][0], strict=True))
    assert parts["mixing scalars"] == 2 * 7
    assert parts["history scalars"] == (1 + 2 + 2) + (1 + 2 + 2 + 2)  # a transition begins it anew


def test_a_network_says_no_more_of_itself_than_it_needs(tmp_path: Path) -> None:
    sections = (Section(3, 8),)
    networks = [
        Architecture(sections, mixing="learned", history=3),  # one kernel is no mix, and no shortcut uses the history
        Architecture(sections, anchors=2, mixing="learned", shortcuts="history", history=3),
        Architecture(sections, convolutions="separable"),
    ]
    write_networks(tmp_path, networks)
    plain, other, separable = run_payload(RunDirectory(tmp_path, snapshot=True))["trials"]["config"]
    assert plain.keys() == {"sections", "sharing", "anchors", "shortcuts", "batch_norm"}
    assert other.keys() - plain.keys() == {"mixing", "history"}
    assert separable.keys() - plain.keys() == {"convolutions"}


def test_flash_and_ram_follow_from_architecture_and_images(tmp_path: Path) -> None:
    """The ledgers of older runs lack them."""
    records = write_run(tmp_path, trials=10)
    trials = run_payload(RunDirectory(tmp_path, snapshot=True))["trials"]
    costs = [estimate_cost(Architecture.from_dict(r["architecture"]), INPUT_SHAPE, 10) for r in records]
    assert trials["flash"] == [cost.flash for cost in costs]
    assert trials["ram"] == [cost.ram for cost in costs]
    data = json.loads((tmp_path / "environment.json").read_text())["data"]
    change_environment(tmp_path, data=data | {"input_shape": [1, 32, 32]})
    larger = run_payload(RunDirectory(tmp_path, snapshot=True))["trials"]
    assert all(a > b for a, b in zip(larger["ram"], trials["ram"], strict=True))


def test_the_page_knows_what_was_searched_for(tmp_path: Path) -> None:
    write_run(tmp_path, trials=3)
    assert run_payload(RunDirectory(tmp_path, snapshot=True))["run"]["objective"] == "parameters"
    change_environment(tmp_path, objective="flash")
    assert run_payload(RunDirectory(tmp_path, snapshot=True))["run"]["objective"] == "flash"


def test_drawings_of_known_networks(tmp_path: Path) -> None:
    sections = (Section(3, 8, "block"), Section(2, 16, "layer"))
    networks = [
        Architecture(sections, shortcuts="block"),
        Architecture((Section(3, 8),), anchors=2, mixing="learned", shortcuts="history", history=2),
    ]
    write_networks(tmp_path, networks)
    assert run_payload(RunDirectory(tmp_path, snapshot=True))["trials"]["drawing"] == [
        [
            [[[[[1], False, 0], [[1], True, 0]], "identity"], [[[[1], True, 0]], "identity"]],
            [[[[[], True, 0], [[2], True, 0]], "projection"], [[[[2], True, 0]], "identity"]],
        ],
        [[[[[[1, 2], False, 1], [[1, 2], False, 2]], "none"], [[[[1, 2], False, 2]], "none"]]],
    ]


def test_page_is_one_file_under_a_strict_policy(tmp_path: Path) -> None:
    write_run(tmp_path, trials=5)
    text = write_dashboard(tmp_path).read_text(encoding="utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert sorted(re.findall(r"'sha256-([^']+)'", policy)) == sorted(hashes)
    assert not re.findall(r"<script[^>]+src|<link[^>]+stylesheet|@import", text)
    assert "scattergl" not in scripts[0].lower()


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    write_run(
        tmp_path / "run",
        trials=12,
        name=HOSTILE,
        class_names=[HOSTILE] * 10,
        failing=0.5,
        reason=HOSTILE,
        references=[{"name": HOSTILE, "parameters": 900, "accuracy": 0.5}],
    )
    page = write_dashboard(tmp_path / "run")
    text = page.read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "alert(1)</script>" not in text
    assert text.count("<script") == 4  # the payload, ours, Plotly's, the start of the plots
    assert payload_of(page)["run"]["name"] == HOSTILE
    assert "<img src=x" not in write_index(tmp_path).read_text(encoding="utf-8")
    figure = write_figure(tmp_path / "run", tmp_path / "front.svg").read_text(encoding="utf-8")
    xml.etree.ElementTree.fromstring(figure)


def test_two_thousand_trials_stay_under_8_megabytes(tmp_path: Path) -> None:
    records = write_run(tmp_path, trials=300)
    long = [
        {**records[i % 300], "sequence": i + 1, "trial": i, "curve": {k: [0.12345] * 90 for k in records[0]["curve"]}}
        for i in range(2000)
    ]
    write_ledger(tmp_path / "trials.jsonl", long)
    page = write_dashboard(tmp_path)
    assert page.stat().st_size < 8_000_000
    assert len(payload_of(page)["curves"]["accuracy"][0]) == 40  # thinned, and says of how many epochs
    assert payload_of(page)["curves"]["length"][0] == 90


@pytest.mark.parametrize(("trials", "failing"), [(0, 0.0), (1, 0.0), (6, 1.0)])
def test_runs_without_much_in_them(tmp_path: Path, trials: int, failing: float) -> None:
    write_run(tmp_path / "run", trials=trials, failing=failing, retrained=False)
    payload = payload_of(write_dashboard(tmp_path / "run"))
    assert len(payload["trials"]["trial"]) == trials
    assert len(payload["front"]) == (1 if trials and not failing else 0)
    assert write_index(tmp_path).exists()
    xml.etree.ElementTree.fromstring(write_figure(tmp_path / "run", tmp_path / "x.svg").read_text())


def test_only_ledger_and_environment_are_needed(tmp_path: Path) -> None:
    write_run(tmp_path, trials=5)
    for name in ("status.json", "retrained.jsonl", "space.yaml"):
        (tmp_path / name).unlink()
    (tmp_path / "environment.json").write_text('{"format": 1}')
    payload = payload_of(write_dashboard(tmp_path))
    assert payload["run"]["name"] == tmp_path.name
    assert set(payload["trials"]["flash"]) == {None}  # unknown, as the size of the images is


def test_retrained_networks_come_with_their_seeds_and_config(tmp_path: Path) -> None:
    records = write_run(tmp_path, trials=30)
    retrained = payload_of(write_dashboard(tmp_path))["retrained"]
    front = front_of(records)
    assert next(records[entry["index"]]["trial"] for entry in retrained) == front[0]["trial"]
    assert [entry["folder"][:8] for entry in retrained] == ["best/01-", "best/02-", "best/03-"]
    assert all(len(entry["seeds"]) == 2 and "digits" in entry["config"] for entry in retrained)
    assert {entry["teacher"] for entry in retrained} == {None}


def test_a_taught_network_comes_with_the_folder_of_its_teacher(tmp_path: Path) -> None:
    write_run(tmp_path, trials=30)
    teach(tmp_path)
    first, second, third = payload_of(write_dashboard(tmp_path))["retrained"]
    assert [first["teacher"], second["teacher"], third["teacher"]] == [third["folder"], third["folder"], None]


def test_the_accuracy_of_exported_c_code_is_told(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_c_metrics(tmp_path)
    told = [entry["int8"] for entry in payload_of(write_dashboard(tmp_path))["retrained"]]
    assert told[0] == {"accuracy": 0.9721, "float_accuracy": 0.9749, "part": "test"}
    assert told[1] == {"accuracy": None, "float_accuracy": None, "part": None}  # there were no images to measure it on
    assert told[2] is None  # not exported as C code


def test_a_ledger_that_lost_trials_is_shown_without_them(tmp_path: Path) -> None:
    write_run(tmp_path)
    lines = (tmp_path / "trials.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (lines[: len(lines) // 2], []):
        (tmp_path / "trials.jsonl").write_bytes(b"".join(kept))
        assert payload_of(write_dashboard(tmp_path))


def test_a_page_shows_neither_secrets_nor_paths_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a run from before the command line was masked."""
    home = tmp_path / "home" / "someone"
    run = home / "project" / "results" / "run"
    write_run(run, trials=12)
    environment = json.loads((run / "environment.json").read_text())
    command = [f"{home}/venv/dacnn_search/run.py", "--mlflow", "https://me:secret@host", f"--space={home}/other/a.yaml"]
    given = {
        "data": {"name": "folder", "root": f"{home}/images"},
        "architecture": {"sections": 1, "depth": 1, "width": 4},
    }
    data = environment["data"] | {"name": f"folder {home}/images"}
    change_environment(run, command=command, data=data, space=environment["space"] | {"given": given})
    message = f"{run}/trials.jsonl can't be written; https://me:secret@host is down"
    (run / "status.json").write_text(json.dumps({"state": "failed", "message": message}))
    config = min(run.glob("best/*/config.yaml"))
    config.write_text(f"data:\n  name: folder\n  root: {home}/project/images\n")
    shutil.copytree(run, run.with_name("other"))
    monkeypatch.chdir(home / "project")
    payload = payload_of(write_dashboard(run))
    assert payload["run"]["folder"] == "results/run"  # from where the commands of the cards work
    assert payload["run"]["command"] == "python -m dacnn_search.run --mlflow https://***@host --space=a.yaml"
    assert payload["run"]["data"]["name"] == "folder images"
    assert payload["status"]["message"] == "results/run/trials.jsonl can't be written; https://***@host is down"
    assert payload["retrained"][0]["config"] == "data:\n  name: folder\n  root: images\n"
    pages = [
        run / "dashboard.html",
        write_index(run.parent),
        write_comparison([run, run.with_name("other")], home / "c"),
    ]
    for page in pages:
        assert "me:secret" not in page.read_text()
        assert str(home) not in page.read_text()


def test_time_of_search_is_that_of_the_ledger(tmp_path: Path) -> None:
    """After retraining from Python, version 0.1 wrote a status of 0 seconds that counted trainings as trials."""
    finished = [
        max(r["finished"] for r in write_run(tmp_path / name, trials=8, seed=len(name))) for name in ("a", "bb")
    ]
    for name in ("a", "bb"):
        status = {"state": "interrupted", "elapsed": 0.0, "finished": 2, "trials": 6}
        (tmp_path / name / "status.json").write_text(json.dumps(status))
    assert payload_of(write_dashboard(tmp_path / "a"))["status"]["elapsed"] == finished[0]
    results = payload_of(write_comparison([tmp_path / "a", tmp_path / "bb"], tmp_path / "out.html"))["results"]
    assert next(row["values"] for row in results if row["name"] == "time of search") == finished


@pytest.mark.parametrize("objective", ["parameters", "flash"])
def test_importance_finds_the_choice_that_matters(objective: str) -> None:
    rng = np.random.default_rng(0)
    records: list[dict[str, Any]] = []
    for sequence in range(200):
        size = 10 ** rng.uniform(3, 5)
        choices = {"good": bool(rng.integers(2)), "idle": int(rng.integers(30)), "fixed": 1}
        accuracy = 0.8 + 0.03 * np.log10(size) + 0.01 * choices["good"] + rng.normal(0, 0.002)
        record = {"state": "COMPLETE", "accuracy": accuracy if sequence else 0.1, "parameters": 100, "flash": 2_000}
        record[objective] = int(size)
        records.append({**record, "choices": choices})
    shares, note = importance(records, objective)
    assert next(entry["choice"] for entry in shares) == "good"
    assert shares[0]["share"] > 0.7
    assert all(entry["share"] < 0.08 for entry in shares[1:])
    effects = {entry["value"]: entry["effect"] for entry in shares[0]["effects"]}
    assert effects["true"] - effects["false"] == pytest.approx(0.01, abs=0.002)
    assert "199" in note or "200" in note
    assert f"log {objective}" in note


def test_values_of_choices_are_told_as_the_page_has_them() -> None:
    rng = np.random.default_rng(0)
    records: list[dict[str, Any]] = []
    for number in range(100):
        choices = {"growth": (1.0, 1.5, 2.0)[number % 3], "width": int(rng.integers(8, 64))}
        record = {"state": "COMPLETE", "accuracy": rng.uniform(0.8, 0.9), "parameters": int(rng.integers(1000, 9000))}
        records.append({**record, "choices": choices})
    effects = {entry["choice"]: entry["effects"] for entry in importance(records)[0]}
    assert [(effect["value"], effect.get("range")) for effect in effects["growth"]] == [
        ("1", None),
        ("1.5", None),
        ("2", None),
    ]
    ranges = [effect["range"] for effect in effects["width"]]
    assert all(
        f"{low} to {high}" == effect["value"] for (low, high), effect in zip(ranges, effects["width"], strict=True)
    )
    assert all(sum(low <= r["choices"]["width"] <= high for low, high in ranges) == 1 for r in records)


def test_importance_needs_trials() -> None:
    shares, note = importance([])
    assert shares == []
    assert "20" in note


def test_index_lists_runs_latest_first_and_damaged_ones(tmp_path: Path) -> None:
    write_run(tmp_path / "first", trials=10)
    write_run(tmp_path / "second <b>", trials=10)
    environment = json.loads((tmp_path / "second <b>" / "environment.json").read_text())
    environment["started"] = "2027-01-01T00:00:00Z"
    (tmp_path / "second <b>" / "environment.json").write_text(json.dumps(environment))
    write_run(tmp_path / "damaged", trials=3)
    (tmp_path / "damaged" / "trials.jsonl").write_text("not a ledger\n")
    write_dashboard(tmp_path / "first")
    text = write_index(tmp_path).read_text(encoding="utf-8")
    assert text.index("second &lt;b&gt;") < text.index(">first<") < text.index("damaged line")
    assert 'href="first/dashboard.html"' in text
    assert "<svg" in text
    assert "script-src 'none'" in text


def test_comparison_groups_seeds_and_lists_differences(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"tpe-{seed}", trials=20 + seed, seed=seed)
    write_run(tmp_path / "random", trials=20, seed=9, sampler="random")
    folders = [tmp_path / name for name in ("tpe-0", "tpe-1", "tpe-2", "random")]
    payload = payload_of(write_comparison(folders, tmp_path / "comparison.html"))
    assert [run["group"] for run in payload["runs"]] == [0, 0, 0, 1]
    assert [group["label"] for group in payload["groups"]] == ["tpe (3 seeds)", "random (1 seed)"]
    bands = payload["groups"][0]
    curves = np.array([run["hypervolume"][:20] for run in payload["runs"][:3]])
    assert bands["trials"]["x"] == list(range(1, 21))
    assert bands["trials"]["middle"] == pytest.approx(np.median(curves, axis=0).tolist(), abs=1e-5)
    for by in ("trials", "time"):
        assert all(a <= b <= c for a, b, c in zip(*(bands[by][k] for k in ("low", "middle", "high")), strict=True))
    for here, median in zip(bands["time"]["x"], bands["time"]["middle"], strict=True):
        ended = [sum(time <= here for time in run["finished"]) for run in payload["runs"][:3]]
        values = [[0.0, *run["hypervolume"]][count] for run, count in zip(payload["runs"], ended, strict=False)]
        assert median == pytest.approx(np.median(values), abs=1e-5)
    assert payload["groups"][1]["trials"] is None
    differences = {row["name"]: row["values"] for row in payload["differences"]}
    assert differences["sampler"] == ["tpe", "tpe", "tpe", "random"]
    assert "epochs" not in differences
    results = {row["name"]: row["values"] for row in payload["results"]}
    for run, accuracy in zip(payload["runs"], results["highest accuracy"], strict=True):
        assert accuracy == max(point[1] for point in run["front"])


def test_searches_for_flash_are_drawn_and_compared_by_flash(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for seed, folder in enumerate(folders):
        write_run(folder, trials=30, seed=seed)
        space = json.loads((folder / "environment.json").read_text())["space"]
        if folder.name != "c":
            change_environment(folder, objective="flash", space=space | {"least": 1_600, "most": 300_000})
    runs = [RunDirectory(folder, snapshot=True) for folder in folders]
    for compared, objective in ((runs[:2], "flash"), (runs, "parameters")):
        payload = payload_of(write_comparison([run.folder for run in compared], tmp_path / "comparison.html"))
        assert payload["size"]["key"] == objective
        differing = [row["values"] for row in payload["differences"] if row["name"] == "objective"]
        assert differing == ([] if objective == "flash" else [["flash", "flash", "parameters"]])
        for run, shown in zip(compared, payload["runs"], strict=True):
            front = front_of(run.records, objective)
            assert [size for size, _, _ in shown["front"]] == [r[objective] for r in front]
            assert 0 < shown["hypervolume"][-1] < 1
    assert "log flash" in payload_of(write_dashboard(folders[0]))["importance"]["note"]
    figure = write_figure(folders[0], tmp_path / "front.svg").read_text()
    assert ">bytes of flash<" in figure
    assert figure.count("l5 5l-5 5") == len(runs[0].front)
    index = write_index(tmp_path).read_text()
    assert index.count('B of flash"') == 2
    assert index.count(' parameters"') == 1


def change_environment(folder: Path, **values: Any) -> None:
    path = folder / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_runs_that_differ_in_more_than_the_seed_are_no_repeated_seeds(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c", "d")]
    architecture = {"sections": 1, "depth": 1, "width": 4}
    given = {"data": {"name": "digits"}, "architecture": architecture, "search": {"trials": 8}}
    same = {"data": {"name": "digits", "split_seed": 0}, "architecture": architecture, "search": {"trials": 9}}
    others = (given, same, given, given | {"data": {"name": "digits", "split_seed": 1}})
    for seed, (folder, other) in enumerate(zip(folders, others, strict=True)):
        write_run(folder, trials=8, seed=seed)
        space = json.loads((folder / "environment.json").read_text())["space"]
        change_environment(folder, space=space | {"given": other}, confirm=2 if folder.name == "c" else 0)
    payload = payload_of(write_comparison(folders, tmp_path / "comparison.html"))
    assert [run["group"] for run in payload["runs"]] == [0, 0, 1, 2]
    assert payload["groups"][0]["label"].endswith(" and 1 more seed")
    assert not payload["comparable"]
    assert {"confirm", "space.given.data.split_seed"} <= {row["name"] for row in payload["differences"]}
    assert payload_of(write_comparison(folders[:3], tmp_path / "comparison.html"))["comparable"]


@pytest.mark.parametrize("setting", [{"prior": "none"}, {"fidelity": "auto"}, {"stopping": "none"}])
def test_runs_that_search_in_another_way_are_no_repeated_seeds(tmp_path: Path, setting: dict[str, str]) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    given = {"data": {"name": "digits"}, "architecture": {"sections": 1, "depth": 1, "width": 4}}
    for folder in folders:
        write_run(folder, trials=8)
        space = json.loads((folder / "environment.json").read_text())["space"]
        change_environment(folder, space=space | {"given": given}, **(setting if folder.name == "b" else {}))
    payload = payload_of(write_comparison(folders, tmp_path / "comparison.html"))
    assert [run["group"] for run in payload["runs"]] == [0, 1]


def test_comparison_of_a_run_with_itself_and_an_empty_one(tmp_path: Path) -> None:
    write_run(tmp_path / "a", trials=8)
    write_run(tmp_path / "empty", trials=0, retrained=False)
    folders = [tmp_path / "a", tmp_path / "a", tmp_path / "empty"]
    assert len(payload_of(write_comparison(folders, tmp_path / "out.html"))["runs"]) == 3


def test_figure_shows_every_front_member(tmp_path: Path) -> None:
    records = write_run(tmp_path, trials=40)
    tree = xml.etree.ElementTree.fromstring(write_figure(tmp_path, tmp_path / "front.svg").read_text())
    diamonds = [path for path in tree.iter("{http://www.w3.org/2000/svg}path") if "l5 5" in path.get("d", "")]
    assert len(diamonds) == len(front_of(records))


def test_figure_shows_each_retrained_network_once(tmp_path: Path) -> None:
    write_run(tmp_path, trials=40)
    path = tmp_path / "retrained.jsonl"
    squares = write_figure(tmp_path, tmp_path / "front.svg").read_text().count("<rect x=")
    with Ledger.open(path) as ledger:
        known = [{key: value for key, value in r.items() if key not in ("sequence", "check")} for r in ledger.records]
        ledger.append({**known[0], "seed": 99})
    assert write_figure(tmp_path, tmp_path / "front.svg").read_text().count("<rect x=") == squares


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "a run directory must hold environment.json"),
        (["run", "--out", "page.html"], "--out is only used for a page that compares several runs, but got page.html"),
        (["run", "--image", "front.svg", "--open"], "--serve and --open can't go with them"),
        (["run", "--image", "front.pdf"], "--image must end in .svg or .png, but is front.pdf"),
        (["run", "--image", "front.png"], "a PNG is drawn by Chromium or Chrome"),
        (["run", "run", "--image", "front.svg"], "--image and --tensorboard take one run, but got 2"),
        (["run", "run", "--out", "no/such/folder/page.html"], "can't be written"),
        (["run", "--serve", "99999"], "--serve needs a port that is free, but 99999"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: None)  # as if there were no browser
    write_run(tmp_path / "run", trials=3, retrained=False)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_run_behind_serve_is_no_port(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--serve", "run"])
    assert "must be a port's number (run directories stand before it), but is 'run'" in capsys.readouterr().err


def test_command_writes_dashboard_comparison_and_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_run(tmp_path / "results" / name, trials=4, retrained=False)
    cases = {
        "results/a": "results/a/dashboard.html",
        "results/a results/b": "results/comparison.html",
        "results": "results/index.html",
        "results/a --image front.svg": "front.svg",
    }
    for arguments, written in cases.items():
        with pytest.raises(SystemExit) as stopped:
            main(arguments.split())
        assert stopped.value.code == 0
        assert capsys.readouterr().out == f"{written}\n"
        assert Path(written).stat().st_size > 0


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, trials=3)
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"status\.json"):
        write_dashboard(tmp_path)


def test_server_serves_the_page_to_this_machine_only(tmp_path: Path) -> None:
    write_run(tmp_path, trials=3)
    with make_server(lambda path: write_dashboard(tmp_path) if path == "/" else None, 0) as server:
        assert server.server_address[0] == "127.0.0.1"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            with urllib.request.urlopen(f"{address}/") as answer:
                assert b'id="payload"' in answer.read()
            for path, host, status in (("/trials.jsonl", None, 404), ("/", "evil.example", 403)):
                request = urllib.request.Request(address + path, headers={"Host": host} if host else {})
                with pytest.raises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(request)
                assert refused.value.code == status
                refused.value.close()
        finally:
            server.shutdown()
            thread.join()


def test_port_that_is_taken(tmp_path: Path) -> None:
    with make_server(lambda _: tmp_path, 0) as server, pytest.raises(InputError, match="--serve needs a port"):
        make_server(lambda _: tmp_path, server.server_port)


def test_the_links_of_a_served_index_lead_to_its_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "a run", trials=3)
    write_index(tmp_path)
    (link,) = re.findall(r'<a href="([^"]+)"', (tmp_path / "index.html").read_text())
    pages = [
        build_page([tmp_path], path=path) for path in ("/", f"/{unquote(link)}", "/a run/", "/a run/dashboard.html")
    ]
    assert pages == [tmp_path / "index.html", *[tmp_path / "a run" / "dashboard.html"] * 3]
    assert build_page([tmp_path], path="/../outside/") is None
    assert build_page([tmp_path], path="/a run/trials.jsonl") is None


def test_the_description_is_shown_as_text(tmp_path: Path) -> None:
    write_run(tmp_path / "run", trials=3)
    change_environment(tmp_path / "run", description="for <b>small</b> ones")
    assert payload_of(write_dashboard(tmp_path / "run"))["run"]["description"] == "for <b>small</b> ones"
    assert "for &lt;b&gt;small&lt;/b&gt; ones" in write_index(tmp_path).read_text()


def test_neither_torch_nor_ray_nor_optuna_nor_pandas_is_loaded() -> None:
    heavy = ("torch", "torchvision", "ray", "optuna", "pandas", "plotly")
    code = f"import sys, dacnn_search.dashboard.page; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
