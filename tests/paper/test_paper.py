"""The paper's experiments: who takes part, how they are trained, what is written of them."""

import csv
import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from commands import exit_code

from dacnn_search.common.errors import InputError, RunDirectoryError, TrainingError
from dacnn_search.data.dataset import DataConfig, ImageData, Split, load
from dacnn_search.data.published import KNOWN_SETS
from dacnn_search.export.classifier import load_model
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.model import build
from dacnn_search.network.zoo import get, names
from dacnn_search.paper.__main__ import main
from dacnn_search.paper.experiments import EXPERIMENTS, Conditions, Member
from dacnn_search.paper.page import write_report
from dacnn_search.paper.published import PUBLISHED
from dacnn_search.paper.report import Results, notes_of, rows_of, write_tables
from dacnn_search.paper.reproduce import LEDGER, reproduce
from dacnn_search.paper.trainings import PaperData, Task, load_data
from dacnn_search.paper.worker import train_watched
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.storage.ledger import Ledger, LedgerWarning, read_ledger
from dacnn_search.training.device_data import ResidentData
from dacnn_search.training.recipe import Recipe, learning_rate_at
from dacnn_search.training.trainer import evaluate
from dacnn_search.training.weights import load_weights

ROOT = Path(__file__).resolve().parents[2]


def images_of(dataset, train, test):
    """As many images as a data set has, all of them black."""
    classes = tuple(map(str, range(len(KNOWN_SETS[dataset].train_counts))))
    splits = [Split(np.zeros((n, 32, 32, 3), np.uint8), np.zeros(n, np.int64)) for n in (train, 0, test)]
    return ImageData(dataset, classes, *splits, mean=(0.5,) * 3, std=(0.2,) * 3, flip=False)


@functools.cache
def published_data(dataset):
    known = KNOWN_SETS[dataset]
    images = images_of(dataset, sum(known.train_counts), sum(known.test_counts))
    return PaperData(dataset, DataConfig(name=dataset), images, "digest")


def record(accuracy, seed=0, reason=None, curve=(0.1,)):
    return {
        "key": "k",
        "seed": seed,
        "test_accuracy": accuracy,
        "reason": reason,
        "curve": {"test_accuracy": [*curve, accuracy]},
        "device": "a|device",
        "precision": "float32",
        "versions": {"torch": "2", "ray": "2"},
        "command": ["x/paper.py", "--table", "1"],
        "time": "2026-03-14T10:00:00+00:00",
    }


def results(experiment, found, **conditions):
    records = {member: found.get(member.network, []) for member in experiment.members}
    data = {name: published_data(name) for name in ("cifar100", "cifar10", "svhn")}
    return Results(Conditions(**conditions), records, data)


def cells_of(folder):
    with (folder / "comparison.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_published_error_belongs_to_an_experiment():
    rows = {row for experiment in EXPERIMENTS.values() for row in experiment.rows}
    assert set(PUBLISHED) == rows
    for experiment in EXPERIMENTS.values():
        networks = {Member(row.dataset, row.zoo_name) for row in experiment.rows if row.zoo_name}
        assert networks <= set(experiment.members)
    assert set(EXPERIMENTS) == {f"table-{n}" for n in range(1, 9)} | {f"figure-{n}" for n in range(4, 8)}


@pytest.mark.parametrize(
    ("dataset", "flip", "epochs", "drops"),
    [("cifar100", True, 90, [45]), ("cifar10", False, 90, [45]), ("svhn", False, 60, [20, 40])],
)
def test_protocol_of_section_4(dataset, flip, epochs, drops):
    recipe = Conditions().recipe_for(dataset)
    assert (recipe.optimizer, recipe.epochs, recipe.flip, recipe.learning_rate) == ("adagrad", epochs, flip, 0.1)
    assert (recipe.crop, recipe.cutout, recipe.label_smoothing, recipe.weight_decay) == (0, 0, 0, 0)
    rates = [learning_rate_at(recipe, epoch * 391, epochs * 391) for epoch in range(epochs)]
    assert [epoch for epoch in range(1, epochs) if rates[epoch] < rates[epoch - 1]] == drops
    assert rates[-1] == pytest.approx(0.1 ** (1 + len(drops)))


def test_conditions_change_what_they_say_and_tell_it():
    conditions = Conditions(0.25, "fast", 10, 10_000)
    assert conditions.recipe_for("cifar100") == Recipe(name="fast", epochs=10, flip=True)
    assert conditions.suffix == "-scale0.25-epochs10-subset10000-fast"
    for words in ("0.25", "recipe fast", "10 epochs", "10,000 training images", "Every network was treated alike"):
        assert words in conditions.note
    full = "Full size, with the paper's recipe (batches of 128, in bfloat16 where that is faster)."
    assert (Conditions().suffix, Conditions().note) == ("", full)


@pytest.mark.parametrize("name", names())
def test_scaled_networks_are_the_same_but_for_their_widths(name):
    full, scaled = get(name), Conditions(scale=0.25).architecture(name)
    assert [s.width for s in scaled.sections] == [round(s.width / 4) for s in full.sections]
    assert scaled.decided_shortcuts == full.decided_shortcuts
    assert scaled.batch_norm == full.batch_norm
    for a, b in zip(scaled.blocks, full.blocks, strict=True):
        assert [(x.kernels, x.regulator) for x in a.layers] == [(x.kernels, x.regulator) for x in b.layers]
        assert (a.pool, a.shortcut) == (b.pool, b.shortcut)
    assert Conditions().architecture(name).fingerprint == full.fingerprint


def test_scale_that_would_change_the_networks():
    assert Conditions(scale=0.01).architecture("dacnn18").sections[0].width == 4
    with pytest.raises(InputError, match=r"keep the widths of resnet18 different, but 0\.01 makes 64, 128, 256, 512"):
        Conditions(scale=0.01).architecture("resnet18")
    with pytest.raises(InputError, match=r"scale must lie in \(0, 4\], but is 0"):
        Conditions(scale=0)


def test_rows_compare_with_the_published(tmp_path):
    experiment = EXPERIMENTS["table-1"]
    found = {
        "dacnn14": [record(0.60, 0, curve=(0.5, 0.7)), record(0.58, 1)],
        "dacnn18-no-bn": [record(None, 0, "training loss is <nan> in epoch 2")],
    }
    table = results(experiment, found)
    first, second, _, last = rows_of(experiment, table)
    assert first["error"] == pytest.approx(41)
    assert first["standard deviation"] == pytest.approx(2**0.5)
    assert first["lowest of any epoch"] == pytest.approx(30)
    assert first["published error"] == 42.29
    assert (second["error"], second["note"]) == (None, "without batch norm; not trained yet")
    assert last["error"] is None
    assert last["note"] == "without batch norm; seed 0: training loss is <nan> in epoch 2"
    folder = write_report(experiment, table, tmp_path)
    assert folder.name == "table-1"
    cells = cells_of(folder)
    assert (cells[0]["difference"], cells[0]["standard deviation"]) == ("-1.29", "1.41")
    assert cells[0]["parameters"] == "167652"
    text = (folder / "comparison.md").read_text(encoding="utf-8")
    assert "Command: `python -m dacnn_search.paper --table 1`" in text
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "loss is &lt;nan&gt; in" in page
    assert "loss is <nan>" not in page
    assert '"showSendToCloud": false' in page  # no button that uploads a figure


@pytest.mark.parametrize("unlike", [{"scale": 0.25}, {"epochs": 9}, {"subset": 9}, {"recipe": "fast"}, {}])
def test_difference_is_left_out_where_it_would_compare_unlike_trainings(tmp_path, unlike):
    experiment = EXPERIMENTS["table-1"]
    found = {"dacnn14": [record(0.60)], "dacnn14-no-bn": [record(0.03)]}
    table = results(experiment, found, **unlike)
    if not unlike:  # not the whole data set
        fewer = PaperData("cifar100", DataConfig(name="cifar100"), images_of("cifar100", 49_999, 10_000), "digest")
        table = dataclasses.replace(table, data={"cifar100": fewer})
    folder = write_report(experiment, table, tmp_path)
    assert {line["difference"] for line in cells_of(folder)} == {""}
    assert "| difference |" not in (folder / "comparison.md").read_text(encoding="utf-8")
    assert cells_of(folder)[1]["change"] == "+57.00"  # between two that were trained alike


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("table-1", {"dacnn14-no-bn": "dacnn14", "dacnn18-no-bn": "dacnn18"}),
        ("table-2", {f"dacnn{n}": f"free{n}" for n in (3, 5, 7, 9, 11, 14, 18, 34)}),
        ("table-3", {"dacnn14-mix": "vgg", "dacnn18-mix": "resnet18", "dacnn34-mix": "resnet34"}),
        (
            "table-4",
            {f"dacnn18-reg-{x}": "dacnn18-reg-none" for x in ("section1", "section2", "section3", "section4", "all")},
        ),
        ("table-5", {}),
        ("table-7", {"dacnn18-mix-reg": "resnet18", "dacnn34-mix-reg": "resnet34"}),
    ],
)
def test_networks_are_compared_with_their_counterparts(tmp_path, name, pairs):
    rows = rows_of(EXPERIMENTS[name], results(EXPERIMENTS[name], {}))
    assert {row["network"]: row["against"] for row in rows if row["against"]} == pairs


def test_change_is_that_of_the_error_between_counterparts(tmp_path):
    experiment = EXPERIMENTS["table-4"]
    found = {"dacnn18-reg-none": [record(0.5), record(0.6)], "dacnn18-reg-section3": [record(0.57)]}
    rows = {row["network"]: row for row in rows_of(experiment, results(experiment, found))}
    assert rows["dacnn18-reg-section3"]["change"] == pytest.approx(-2)
    assert rows["dacnn18-reg-section3"]["published change"] == pytest.approx(37.46 - 38.63)
    assert rows["dacnn18-reg-all"]["change"] is None


def test_order_of_the_networks_is_compared(tmp_path):
    experiment = EXPERIMENTS["table-3"]
    found = {row.zoo_name: [record(1 - row.top1_error / 200)] for row in experiment.rows}
    text = (write_report(experiment, results(experiment, found), tmp_path) / "comparison.md").read_text()
    assert "Rank correlation of our errors with the published ones, cifar100: 1.00 (6 rows)." in text


def test_extra_parameters_are_counted_as_the_table_does(tmp_path):
    experiment = EXPERIMENTS["table-4"]
    rows = rows_of(experiment, results(experiment, {}))
    assert [row["extra parameters"] for row in rows] == [0, 33_280, 33_280, 33_280, 33_280, 133_120]
    folder = write_report(experiment, results(experiment, {}), tmp_path)
    assert "| 301,284 | 133,120 | 131,072 |" in (folder / "comparison.md").read_text()


def test_table_8_is_derived_from_the_networks_on_cifar_10(tmp_path):
    experiment = EXPERIMENTS["table-8"]
    found = {"resnet18": [record(0.93)], "dacnn18": [record(0.83)]}
    plain, mixed, *others = rows_of(experiment, results(experiment, found))
    assert [row["network"] for row in others] == [None] * 6
    assert mixed["accuracy drop"] is None
    assert mixed["prune ratio"] == pytest.approx(49.6, abs=1)
    assert plain["accuracy drop"] == pytest.approx(10)
    assert plain["prune ratio"] == pytest.approx(98.5, abs=0.3)
    text = (write_report(experiment, results(experiment, found), tmp_path) / "comparison.md").read_text()
    assert "Compared with resnet18 here: 11,173,962 parameters, " in text
    assert "bytes of weights, test error 7.00%." in text


@pytest.mark.parametrize("table", ["table-1", "table-2", "table-3", "table-4"])
@pytest.mark.parametrize("recipe", ["paper", "fast"])
def test_the_committed_tables_are_what_the_committed_ledger_gives(table, recipe, tmp_path):
    experiment, conditions = EXPERIMENTS[table], Conditions(0.25, recipe, 10, 25_000)
    images = images_of("cifar100", 25_000, 10_000)
    data = PaperData("cifar100", DataConfig(name="cifar100"), images, "e8f7ed2b0344b2b8")
    ledger = read_ledger(ROOT / "results" / "paper" / LEDGER)
    records = {member: Task(member, data, conditions).find(ledger) for member in experiment.members}
    found = Results(conditions, records, {"cifar100": data})
    rows = rows_of(experiment, found)
    write_tables(experiment.heading, notes_of(experiment, found, rows), rows, tmp_path)
    committed = ROOT / "results" / "paper" / f"{table}{conditions.suffix}"
    for name in ("comparison.csv", "comparison.md"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (committed / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def digits():
    return load(DataConfig(name="digits", validation=0.0, subset=200))


SMALL = Architecture((Section(2, 4),))


def watch(data, recipe, state=None, architecture=SMALL):
    """All messages of the worker, with a checkpoint after each epoch."""
    return list(train_watched(data, architecture, recipe, 0, Slots(2, 1.0, 0.0), state, 0.0))


def test_worker_gives_the_test_curve_and_its_last_point_is_the_score_of_the_weights(digits):
    *epochs, result = watch(digits, Recipe(epochs=2))
    assert [message["epoch"] for message in epochs] == [1, 2]
    curve = result["curve"]
    assert curve["test_accuracy"] == [round(message["test_accuracy"], 6) for message in epochs]
    assert [len(curve[kind]) for kind in ("train_loss", "test_loss")] == [2, 2]
    stored = safetensors.torch.load(result["weights"])
    scored = evaluate(
        load_weights(build(SMALL, 10, 1), stored), ResidentData(digits, "cpu"), "test", precision="float32"
    )
    assert result["test_accuracy"] == pytest.approx(scored.accuracy, abs=2e-6)
    assert result["reason"] is None


def test_training_carried_on_from_a_checkpoint_ends_the_same(digits):
    recipe = Recipe(epochs=3, precision="float32")
    *epochs, whole = watch(digits, recipe)
    assert epochs[-1]["checkpoint"] is None  # nothing is left to carry on
    *rest, resumed = watch(digits, recipe, epochs[0]["checkpoint"])
    assert [message["epoch"] for message in rest] == [2, 3]
    assert resumed["curve"] == whole["curve"]
    assert resumed["weights"] == whole["weights"]


def test_training_that_diverges_is_a_result(digits):
    recipe = Recipe(epochs=2, optimizer="sgd", learning_rate=100.0, schedule="constant", precision="float32")
    *_, result = watch(digits, recipe, architecture=Architecture((Section(4, 4),), batch_norm=False))
    assert "training loss is nan in epoch" in result["reason"]
    assert result["test_accuracy"] is None


def test_running_out_of_memory_is_none(digits, monkeypatch):
    from dacnn_search.training.trainer import Training

    def fail(self):
        raise TrainingError("out of memory")

    monkeypatch.setattr(Training, "run_epoch", fail)
    with pytest.raises(TrainingError, match="out of memory"):
        watch(digits, Recipe(epochs=1))


def run(*arguments, expected=0):
    assert exit_code(main, *arguments) == expected


@pytest.mark.parametrize("program", ["paper.py", "__main__.py"])  # the first is what older ledgers have
def test_tables_name_the_command_that_made_them(program, tmp_path):
    experiment = EXPERIMENTS["table-1"]
    found = {"dacnn14": [record(0.6) | {"command": [program, "--table", "1", "--data", "my file.npz"]}]}
    table = results(experiment, found)
    notes = notes_of(experiment, table, rows_of(experiment, table))
    assert "Command: `python -m dacnn_search.paper --table 1 --data 'my file.npz'`" in notes


def test_list_of_experiments(capsys):
    run("--scale", 0.25, "--epochs", 10)
    text = capsys.readouterr().out
    for name in EXPERIMENTS:
        assert f"{name}  " in text
    assert "cifar100, 10 epochs: dacnn14, dacnn14-no-bn, dacnn18, dacnn18-no-bn" in text
    assert "all widths times 0.25" in text


def test_list_needs_neither_ray_nor_plotly():  # torch only where the speed of this machine is not known yet
    code = (
        "import sys\nfrom dacnn_search.paper.__main__ import main\ntry: main([])\nexcept SystemExit: pass\n"
        "assert not {'ray', 'plotly'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", 1, "--data", "x.csv"], "--data must be an .npz file, but is x.csv"),
        (["--table", 7, "--data", "x.npz"], "--data must be one of cifar10=FILE.npz, svhn=FILE.npz here, but is x.npz"),
        (["--table", 1, "--data", "none.npz"], "none.npz can't be read"),
        (["--table", 1, "--scale", 0], "scale must lie in (0, 4], but is 0"),
        (
            ["--table", 1, "--data", "cifar10=x.npz"],
            "--data must be one of cifar100=FILE.npz here, but is cifar10=x.npz",
        ),
        (["--against", "resnet18"], "--against is only used with --compress"),
        (["--table", 1, "--layers", 1], "--layers is only used with --filters"),
        (["--figure", 7, "--filters", "x"], "can be given at once, but --table or --figure and --filters are"),
        (["--filters", "none"], "none: the folder of a trained network must hold"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(*arguments, expected=2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture
def synthetic(tmp_path):
    """Three classes of 16x16 images that differ in colour, with noise."""
    random, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 90), ("test", 30)):
        labels = np.arange(count) % 3
        images = random.integers(0, 120, (count, 16, 16, 3))
        images[np.arange(count), :, :, labels] += 100
        arrays |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels}
    np.savez(tmp_path / "three.npz", **arrays)
    return tmp_path / "three.npz"


def reproduced(synthetic, results, *, networks, seeds, repair=False):
    """What a reproduction of Table 1 with some seeds tells, of networks that are in the ledger."""
    conditions = Conditions(0.05, "paper", 2, 60, seeds)
    rows = tuple(row for row in EXPERIMENTS["table-1"].rows if row.zoo_name in {member.network for member in networks})
    experiment = dataclasses.replace(EXPERIMENTS["table-1"], rows=rows)
    (folder,) = reproduce([experiment], conditions, {"cifar100": str(synthetic)}, results, repair=repair)
    return cells_of(folder)


@pytest.fixture
def known(synthetic, tmp_path, monkeypatch):
    """A ledger with three seeds of one network, none of which is to be trained."""
    member = Member("cifar100", "dacnn14")
    results = tmp_path / "results"
    results.mkdir()
    with Ledger.open(results / "trainings.jsonl") as ledger:
        data = load_data("cifar100", str(synthetic), 60)
        for seed in range(3):
            task = Task(member, data, Conditions(0.05, "paper", 2, 60), seed)
            *_, result = watch(data.images, task.recipe, architecture=task.architecture)
            ledger.append(task.record(result | {"test_accuracy": 0.5 + seed / 10}))
    monkeypatch.setattr("dacnn_search.paper.reproduce.RaySession", None)
    return results, (member,)


def test_seeds_that_are_known_stay_in_the_tables(known, synthetic):
    results, networks = known
    for seeds in (3, 1):
        (row,) = reproduced(synthetic, results, networks=networks, seeds=seeds)
        assert (row["trainings"], row["error"]) == ("3", "40.00")


def test_a_damaged_ledger_is_repaired_on_request(known, synthetic):
    results, networks = known
    path = results / "trainings.jsonl"
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, *others, first.replace(b'"seed":', b'"seed": ')]))
    with pytest.raises(RunDirectoryError, match=r"trainings.jsonl:4: damaged line.*: the same command with --repair"):
        reproduced(synthetic, results, networks=networks, seeds=3)
    with pytest.warns(LedgerWarning, match="kept 3 records"):
        reproduced(synthetic, results, networks=networks, seeds=3, repair=True)


def test_shares_of_gpus_are_those_of_a_search(capsys):
    for wrong in ("nan", "-1"):
        run("--table", 1, "--gpus-per-trial", wrong, expected=2)
        assert "must be auto or a number of at least 0" in capsys.readouterr().err


@pytest.mark.slow
def test_tables_are_reproduced_small_and_resumed(synthetic, tmp_path):
    conditions = ("--scale", "0.05", "--epochs", "2", "--subset", "60", "--data", synthetic, "--results", tmp_path)

    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "dacnn_search.paper", *map(str, (*arguments, *conditions))],
            capture_output=True,
            text=True,
            timeout=280,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
        ).stdout

    output = command("--table", 1, "--concurrency", 1)
    assert "The paper's protocol: the test set is looked at every epoch, nothing is selected by it." in output
    assert "all widths times 0.05 (rounded, at least 4), 2 epochs" in output
    records = read_ledger(tmp_path / "trainings.jsonl")
    # one after the other, the most work first
    assert [line["network"] for line in records] == ["dacnn18", "dacnn18-no-bn", "dacnn14", "dacnn14-no-bn"]
    assert f"--data {synthetic.name}" in " ".join(records[0]["command"])
    assert {(line["train_images"], len(line["curve"]["test_accuracy"])) for line in records} == {(60, 2)}
    model = load_model(
        tmp_path / "networks" / f"dacnn14-{next(r for r in records if r['network'] == 'dacnn14')['key']}"
    )
    assert model.architecture.sections[0].width == 6

    ledger = tmp_path / "trainings.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:3]))  # as if it had been killed
    output = command("--table", 1, 4)
    assert "trainings: 10, of them done already: 3" in output
    assert len(read_ledger(ledger)) == 10
    folder = tmp_path / "table-4-scale0.05-epochs2-subset60"
    rows = cells_of(folder)
    assert [row["network"] for row in rows] == [row.zoo_name for row in EXPERIMENTS["table-4"].rows]
    assert all(0 <= float(row["error"]) <= 100 and row["trainings"] == "1" for row in rows)
    assert (folder / "page.html").stat().st_size > 1_000_000  # Plotly is part of it
    assert "of them done already: 10" in command("--table", 1, 4)
