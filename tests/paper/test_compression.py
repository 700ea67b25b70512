"""Sizes and accuracies against a reference, as in the paper's Table 8."""

import json
import shutil

import pytest

from dacnn_search.common.errors import InputError
from dacnn_search.export.best import write_best
from dacnn_search.export.folder import METRICS
from dacnn_search.network.zoo import get
from dacnn_search.paper.__main__ import main
from dacnn_search.paper.compression import compression_report, measure, prune_ratio, reference_for


@pytest.fixture(scope="module")
def folders(small_run):
    return write_best(small_run)


def test_prune_ratio():
    assert prune_ratio(250, 1000) == 75
    assert prune_ratio(1500, 1000) == -50


def test_a_folder_is_measured_and_compared_with_another(folders):
    small, large = map(measure, folders)
    assert small["parameters"] == 254
    assert small["file_bytes"] == (folders[0] / "weights.safetensors").stat().st_size
    report = compression_report([folders[0]], str(folders[1]))
    assert f"{100 * (1 - small['parameters'] / large['parameters']):.1f}%" in report
    drop = large["training"]["test_accuracy"] - small["training"]["test_accuracy"]
    assert f"{100 * drop:+.2f} points" in report
    assert "no accuracy" not in report


def test_a_network_of_the_zoo_is_as_large_as_the_data_make_it(folders):
    reference = reference_for("resnet18", folders[0])
    assert reference["training"]["test_accuracy"] is None
    assert 11_170_000 < reference["parameters"] < 11_174_000  # 10 classes, 1 channel
    assert "resnet18 has no accuracy here" in compression_report([folders[0]], "resnet18")


def test_its_accuracy_is_that_of_a_training_on_the_same_data_by_the_same_recipe(folders, tmp_path):
    trained = tmp_path / "networks"
    for name, accuracy, epochs in (("one", 0.9, 2), ("two", 0.8, 2), ("longer", 0.1, 3)):
        folder = trained / name
        shutil.copytree(folders[0], folder)
        metrics = json.loads((folder / METRICS).read_text())
        metrics["fingerprint"] = get("dacnn3").fingerprint
        metrics["training"]["test_accuracy"] = accuracy
        metrics["training"]["recipe"]["epochs"] = epochs
        (folder / METRICS).write_text(json.dumps(metrics))
    assert reference_for("dacnn3", folders[0], trained)["training"]["test_accuracy"] == pytest.approx(0.85)
    assert reference_for("dacnn5", folders[0], trained)["training"]["test_accuracy"] is None


def test_no_drop_between_networks_that_were_tested_on_different_data(folders, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folders[1], other)
    metrics = json.loads((other / METRICS).read_text())
    metrics["training"]["data"] = "letters"
    (other / METRICS).write_text(json.dumps(metrics))
    report = compression_report([folders[0]], str(other))
    assert " points" not in report
    assert "No accuracy drop is told between networks that were tested on different data." in report


def test_references_that_are_not_there(folders, tmp_path):
    with pytest.raises(
        InputError, match=r"must be the folder of a trained network or one of dacnn3, .*but is 'resnet'"
    ):
        reference_for("resnet", folders[0])
    with pytest.raises(InputError, match=r"must hold metrics\.json"):
        measure(tmp_path)


def test_command(folders, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--compress", str(folders[0]), str(folders[1]), "--against", "dacnn3", "--results", str(tmp_path)])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| tiny, trial 5", "| tiny, trial 3"]


def test_folders_that_lack_weights_or_sizes_are_refused(folders, tmp_path):
    folder = tmp_path / "network"
    shutil.copytree(folders[0], folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"weights\.safetensors: the weights must be there, but: No such file"):
        measure(folder)
    shutil.copy(folders[0] / "weights.safetensors", folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["parameters"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(InputError, match=r"metrics\.json: must have the size of the network, but lacks 'parameters'"):
        measure(folder)
