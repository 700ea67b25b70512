import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from commands import exit_code
from safetensors.torch import save_file
from small_run import NETWORKS

from dacnn_search import export_network, load_run
from dacnn_search.common.errors import DataError, ExportError, InputError, RunDirectoryError
from dacnn_search.common.files import sha256_of, write_atomic
from dacnn_search.data.dataset import DataConfig, load
from dacnn_search.export.__main__ import main
from dacnn_search.export.best import write_best
from dacnn_search.export.classifier import as_classifier, load_model
from dacnn_search.export.exporter import export_folder, export_run
from dacnn_search.export.folder import read_config, read_metrics
from dacnn_search.export.formats import Formats, write_files
from dacnn_search.export.parity import choose_images, measure_file
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.model import build
from dacnn_search.space.settings import TrainSettings
from dacnn_search.space.validation import read_settings
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.trained import group_retrained
from dacnn_search.training.weights import read_weights, trained_weights

SEPARABLE = Architecture((Section(3, 6), Section(3, 8)), anchors=2, mixing="learned", convolutions="separable")
MIXED = Architecture((Section(3, 6), Section(3, 8, "block")), anchors=2, shortcuts="history", mixing="learned")
DEEP = Architecture((Section(8, 16), Section(8, 16), Section(16, 16)), "network")  # 34 layers


def kernels_of(path, sides=(3,)):
    """The kernels of these sides in an ONNX file. Mean and deviation of the images, as they are, are no kernels."""
    onnx = pytest.importorskip("onnx")
    tensors = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer}
    kernels = [shape for name, shape in tensors.items() if len(shape) == 4 and name not in ("mean", "std")]
    return sorted(shape for shape in kernels if shape[2] in sides)


def run_command(*arguments, expected=0):
    assert exit_code(main, *arguments) == expected


# ---- the folders of the networks trained in full


def test_best_has_a_folder_per_network_from_few_parameters_to_many(run_copy):
    folders = write_best(run_copy)
    assert [folder.name for folder in folders] == ["01-254", "02-2014"]
    assert folders == [network.folder for network in run_copy.networks]
    for folder, network in zip(folders, run_copy.networks, strict=True):
        seed = network.records[0]["seed"]
        weights = run_copy.weights_file(network.architecture.fingerprint, seed)
        assert (folder / "weights.safetensors").read_bytes() == weights.read_bytes()
        assert weights.stat().st_size == network.file_bytes


def test_config_describes_the_training_that_was_done(run_copy):
    folder = write_best(run_copy)[1]
    settings = read_settings(folder / "config.yaml", TrainSettings)
    record = next(record for record in run_copy.retrained if record["trial"] == 3)
    assert settings.architecture == Architecture.from_dict(record["architecture"])
    assert settings.recipe.model_dump(mode="json") == record["recipe"]
    assert settings.data == run_copy.space.settings.data
    assert settings.seed == record["seed"]


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ("data/own.npz", "data/own.npz"),
        ("{here}/data/own.npz", "data/own.npz"),
        ("{here}/../home/own.npz", "~/own.npz"),
        ("~/own.npz", "~/own.npz"),
    ],
)
def test_folders_to_share_hold_no_paths_of_this_machine(run_copy, tmp_path, monkeypatch, root, told):
    digits = load(run_copy.space.settings.data)
    here, home = tmp_path / "here", tmp_path / "home"
    for folder in (here / "data", home):
        folder.mkdir(parents=True)
        np.savez(folder / "own.npz", train_images=digits.train.images, train_labels=digits.train.labels)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    root = root.format(here=here).replace(f"{here}/..", str(tmp_path))
    text = run_copy.space_file.read_text().replace("{name: digits,", f"{{name: npz, root: {root},")
    write_atomic(run_copy.space_file, text)
    exported = export_run(run_copy, tmp_path / "out", Formats(("safetensors",)), top=1)
    for folder in (*write_best(run_copy), *exported):
        assert read_config(folder).data.root == told
        assert len(load(read_config(folder).data).train) == len(load(run_copy.space.settings.data).train)
        assert read_metrics(folder)["training"]["data"] == "own"
        for file in folder.iterdir():
            assert str(tmp_path).encode() not in file.read_bytes()


def test_metrics_have_mean_and_spread_over_the_seeds(run_copy):
    folder = write_best(run_copy)[0]
    training = read_metrics(folder)["training"]
    scores = [record["test_accuracy"] for record in run_copy.retrained if record["trial"] == 5]
    assert [seed["test_accuracy"] for seed in training["seeds"]] == scores
    assert training["test_accuracy"] == pytest.approx(np.mean(scores))
    assert training["test_accuracy_spread"] == pytest.approx(np.std(scores, ddof=1))


def test_card_says_what_it_is_and_how_to_use_it(run_copy):
    card = (write_best(run_copy)[0] / "README.md").read_text()
    for part in ("254", "digits", "± ", "2 trainings", "A A", "1.80 kB", "CC BY 4.0", "load_model", "standard error"):
        assert part in card


def test_hostile_words_of_the_data_are_text_in_the_card(run_copy):
    hostile = "<script>alert(1)</script> <img src=x onerror=alert(2)> | `code` [link](javascript:alert(3))\n# title"
    data = load(run_copy.space.settings.data)
    data = dataclasses.replace(data, name=hostile, class_names=(hostile,) * 10)
    card = (write_best(run_copy, data)[0] / "README.md").read_text()
    assert r"\<script\>alert(1)\</script\> \<img" in card
    assert not re.search(r"(?<!\\)(<script|<img|\[link)", card)
    assert "\n# title" not in card


def test_folders_that_are_right_stay_and_damaged_ones_are_written_again(run_copy):
    folders = write_best(run_copy)
    (folders[0] / "model.onnx").write_bytes(b"exported earlier")
    (folders[1] / "weights.safetensors").write_bytes(b"damaged")
    (folders[1] / "model.onnx").write_bytes(b"exported from other weights")
    best = run_copy.folder / "best"
    (best / ".tmp-0123").mkdir()  # left by a crash
    os.utime(best / ".tmp-0123", (0, 0))
    assert write_best(run_copy) == folders
    assert (folders[0] / "model.onnx").read_bytes() == b"exported earlier"
    assert not (folders[1] / "model.onnx").exists()
    assert load_model(folders[1]).classes == tuple("0123456789")
    assert {path.name for path in best.iterdir()} == {"01-254", "02-2014", ".lock"}


def retrain_a_smaller_network(run):
    """Add a retrained network with fewer parameters than the others: their ranks change."""
    record = {key: value for key, value in run.retrained[0].items() if key not in ("sequence", "check")}
    smaller = Architecture((Section(1, 4),)).canonical()
    weights = run.weights_file(smaller.fingerprint, 0)
    save_file(trained_weights(build(smaller, 10, 1).eval()), weights)
    facts = {"fingerprint": smaller.fingerprint, "architecture": smaller.to_dict(), "parameters": 200}
    with Ledger.open(run.retrained_file) as ledger:
        ledger.append({**record, **facts, "trial": 1, "weights_sha256": sha256_of(weights)})


def test_a_network_whose_rank_changes_takes_its_exports_along(run_copy):
    for folder in write_best(run_copy):
        (folder / "model.onnx").write_bytes(folder.name.encode())
        (folder / "notes.txt").write_text("of a user")
    retrain_a_smaller_network(run_copy)
    first, second, third = write_best(run_copy)
    assert first.name.startswith("01-")
    assert [(second / "model.onnx").read_bytes(), (third / "model.onnx").read_bytes()] == [b"01-254", b"02-2014"]
    assert (second / "notes.txt").exists()
    assert "02-254" in (second / "README.md").read_text()
    assert load_model(second).architecture == NETWORKS[5][0].canonical()
    assert len(list((run_copy.folder / "best").glob("*-*"))) == 3


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_a_user_keeps_in_best_is_never_changed(run_copy):
    folders = write_best(run_copy)
    best = run_copy.folder / "best"
    for name in ("backup", "03-9999", "07-254", "08-254"):
        shutil.copytree(folders[0], best / name)
    (best / "07-254" / "README.md").write_text("edited")
    (best / "08-254" / "metrics.json").write_text("[]")
    folders[0].rename(best / "09-254")
    (best / "mine").mkdir()
    (best / "mine" / "notes.txt").write_text("years of work")
    (folders[1] / "notes.txt").write_text("years of work")
    own = {path: content_of(path) for path in best.iterdir() if path.is_dir() and path != folders[1]}
    retrain_a_smaller_network(run_copy)
    assert [folder.name[:2] for folder in write_best(run_copy)] == ["01", "02", "03"]
    assert {path: content_of(path) for path in own} == own
    assert (best / "03-2014" / "notes.txt").read_text() == "years of work"
    assert load_model(best / "02-254").architecture == NETWORKS[5][0].canonical()


def test_another_seed_changes_the_metrics_and_keeps_exports_and_own_files(run_copy):
    folder = write_best(run_copy)[1]
    (folder / "model.onnx").write_bytes(b"exported")
    (folder / "notes.txt").write_text("of a user")
    record = {key: value for key, value in run_copy.retrained[0].items() if key not in ("sequence", "check")}
    weights = run_copy.weights_file(record["fingerprint"], 0)
    write_atomic(run_copy.weights_file(record["fingerprint"], 1), weights.read_bytes())
    with Ledger.open(run_copy.retrained_file) as ledger:
        ledger.append({**record, "seed": 1})
    write_best(run_copy)
    assert len(read_metrics(folder)["training"]["seeds"]) == 2
    assert {path.name for path in folder.iterdir()} >= {"model.onnx", "notes.txt"}


def test_networks_are_loaded_after_retraining_alone(run_copy):
    network = run_copy.best(max_parameters=1000)[0]
    assert not network.folder.exists()  # from Python nobody has written best/ yet
    assert load_model(network.folder).architecture == network.architecture
    assert load_model(str(run_copy.best()[0].folder)).architecture == run_copy.best()[0].architecture


def test_a_loaded_network_within_a_module_that_is_trained_stays_as_it_is(run_copy):
    classifier = load_model(run_copy.best()[0].folder)
    images = torch.rand(3, *classifier.input.shape)
    before = classifier(images)
    torch.nn.Sequential(classifier).train()
    assert torch.equal(classifier(images), before)


def test_networks_are_loaded_as_they_were_last_retrained(run_copy):
    write_best(run_copy)
    network = run_copy.best(trial=3)[0]
    record = {key: value for key, value in network.records[0].items() if key not in ("sequence", "check")}
    weights = run_copy.weights_file(record["fingerprint"], 0)
    tensors = read_weights(weights)
    tensors["classifier.bias"] += 1
    save_file(tensors, weights)
    with Ledger.open(run_copy.retrained_file) as ledger:
        ledger.append({**record, "weights_sha256": sha256_of(weights)})
    assert torch.equal(load_model(network.folder).weights["classifier.bias"], tensors["classifier.bias"])


def test_a_folder_that_no_retraining_fills_is_not_written(run_copy):
    with pytest.raises(InputError, match=r"must hold metrics.json"):
        load_model(run_copy.folder / "best" / "07-1")
    assert not (run_copy.folder / "best").exists()


@pytest.mark.parametrize("files", [[], {}, {"weights.safetensors": "no entry"}, None])
def test_a_damaged_list_of_files_is_told(run_copy, files):
    folder = write_best(run_copy)[0]
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**metrics, "files": files}))
    with pytest.raises(InputError, match="SHA-256 must be None"):
        load_model(folder)


@pytest.mark.parametrize(
    "given", [{"shape": [1, "8", 8]}, {"shape": [1, 8, -8]}, {"mean": ["a"]}, {"std": [0.0]}, {"classes": []}]
)
def test_a_damaged_input_is_told(run_copy, given):
    folder = write_best(run_copy)[0]
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**metrics, "input": metrics["input"] | given}))
    with pytest.raises(InputError, match="input must have shape"):
        load_model(folder)


@pytest.mark.slow
def test_a_folder_whose_data_are_gone_is_checked_on_random_images(run_copy, tmp_path):
    folder = write_best(run_copy)[0]
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("name: digits", f"name: npz\n  root: {tmp_path}/gone.npz"))
    with pytest.warns(UserWarning, match=r"random images only, as .*gone.npz"):
        export_folder(folder, tmp_path / "out", Formats(("pt2",)))
    measured = json.loads((tmp_path / "out" / folder.name / "metrics.json").read_text())["measured"]
    assert measured["part"] == "random"
    with pytest.raises(DataError, match=r"gone\.npz"):
        export_folder(folder, tmp_path / "again", Formats(("onnx",), int8=True))


def test_missing_weights_are_named(run_copy):
    run_copy.weights_file(NETWORKS[3][0].fingerprint, 0).unlink()
    with pytest.raises(InputError, match="the weights of trial 3 must be there"):
        write_best(run_copy)


def test_damaged_weights_are_not_given_away(run_copy):
    folders = write_best(run_copy)
    good = (folders[1] / "weights.safetensors").read_bytes()
    path = run_copy.weights_file(NETWORKS[3][0].fingerprint, 0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"the weights of trial 3 must be as written, but aren't; .* --resume "):
        write_best(run_copy)
    assert (folders[1] / "weights.safetensors").read_bytes() == good


def test_a_damaged_config_is_written_again(run_copy):
    config = write_best(run_copy)[0] / "config.yaml"
    good = config.read_bytes()
    config.write_bytes(good[:-20])
    write_best(run_copy)
    assert config.read_bytes() == good


def test_write_best_needs_no_torch(run_copy):
    code = (
        "import sys; from dacnn_search.export.best import write_best; from dacnn_search import load_run;"
        f"write_best(load_run({str(run_copy.folder)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- choosing


def test_networks_are_chosen_by_limits(small_run):
    def trials(**limits):
        return [network.trial for network in load_run(small_run.folder).best(**limits)]

    macs = small_run.best()[0].macs
    assert trials() == [3, 5]
    assert trials(max_parameters=2013) == trials(max_bytes=9991) == trials(max_macs=macs - 1) == [5]
    assert trials(max_parameters=2014) == trials(max_bytes=9992) == [3, 5]
    assert trials(top=1) == trials(min_accuracy=small_run.best()[0].accuracy) == [3]
    assert trials(trial=5) == [5]
    assert trials(min_accuracy=1.0) == []


def test_trainings_by_an_earlier_recipe_do_not_count():
    old, new = ({"fingerprint": "a", "parameters": 5, "recipe": {"epochs": epochs}} for epochs in (2, 4))
    records = [{**old, "seed": 0}, {**old, "seed": 1}, {**new, "seed": 0, "first": True}, {**new, "seed": 0}]
    assert group_retrained(records) == [({**new, "seed": 0},)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--max-parameters", "100"],
            "must keep --max-parameters 100, but none of 2 does; the best of each are 254 par",
        ),
        (
            ["--max-flash", "1kB"],
            "must keep --max-flash 1000, but none of 2 does; the best of each are 1,955 bytes of flash",
        ),
        (
            ["--max-macs", "1k", "--max-ram", "100B", "--max-bytes", "1kB", "--min-accuracy", "1"],
            "must keep --max-macs 1000, --max-ram 100, --max-bytes 1000, --min-accuracy 1.0, but none of 2",
        ),
        (["--trial", "7"], "the trial must be one of 2 that have ended, but is 7"),
        (["--formats", "tflite"], "formats must be some of safetensors, onnx, pt2"),
        (["--formats", "pt2", "--int8"], "int8 needs the format onnx"),
    ],
)
def test_wrong_choices_are_told_in_one_line(small_run, capsys, arguments, message):
    run_command(small_run.folder, *arguments, expected=2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_one_network_is_exported_by_its_folder(run_copy, tmp_path, capsys):
    folder = write_best(run_copy)[0]
    run_command(folder, "--formats", "safetensors", "--float16", "--to", tmp_path / "out")
    written = tmp_path / "out" / folder.name
    assert f"{written}\n" in capsys.readouterr().out
    assert {"weights.safetensors", "weights-float16.safetensors"} <= {path.name for path in written.iterdir()}
    run_command(folder, "--top", "1", expected=2)
    assert f"{folder} is one network: there is nothing to choose" in capsys.readouterr().err


def test_a_run_without_full_trainings_exports_nothing(run_copy, capsys):
    run_copy.retrained_file.unlink()
    run_command(run_copy.folder, expected=2)
    assert "an export needs networks that were trained in full, but there are none yet" in capsys.readouterr().err
    run_command(run_copy.folder, "--trial", "5", expected=2)
    again = f"python -m dacnn_search.train --run {run_copy.folder} --trial 5"
    assert (
        f"trial 5 was not trained in full; to do that, and then export its folder: {again}" in capsys.readouterr().err
    )


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"must hold space.yaml"):
        export_run(load_run(tmp_path), None, Formats())


def test_foreign_files_are_never_replaced(run_copy, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"own: must be new or hold an export, but holds thesis.tex"):
        export_network(build(NETWORKS[5][0], 10, 1), tmp_path / "own", formats=["safetensors"])
    assert (tmp_path / "own" / "thesis.tex").read_text() == "years of work"


# ---- files of other formats


def test_exported_files_do_what_the_network_does_and_store_kernels_once(run_copy, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    run_command(run_copy.folder, "--top", "1", "--to", tmp_path / "out", "--float16", "--int8")
    folder = tmp_path / "out" / "02-2014"
    assert "model-int8.onnx" in capsys.readouterr().out
    metrics = read_metrics(folder)
    accuracy = metrics["training"]["test_accuracy"]
    for name in ("weights.safetensors", "model.onnx", "model.pt2"):
        assert metrics["files"][name]["accuracy"] == pytest.approx(accuracy)
    for name in ("weights-float16.safetensors", "model-float16.onnx", "model-int8.onnx"):
        assert metrics["files"][name]["accuracy"] == pytest.approx(accuracy, abs=0.03)
    for name in ("model.onnx", "model-float16.onnx", "model-int8.onnx"):
        assert kernels_of(folder / name) == [(12, 1, 3, 3), (12, 12, 3, 3)]
        assert set(metrics["files"][name]["milliseconds"]) == {"1", "64"}
    assert f"{accuracy:.2%}" in (folder / "README.md").read_text()
    assert not (run_copy.folder / "best" / "02-2014" / "model.onnx").exists()


def test_onnx_takes_raw_pixels_of_any_number_of_images(exported_deep):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, model = exported_deep
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):
        pixels = np.random.default_rng(count).random((count, 1, 8, 8), dtype=np.float32)
        logits = session.run(None, {"pixels": pixels})[0]
        np.testing.assert_allclose(logits, model(torch.from_numpy(pixels)), rtol=1e-3, atol=1e-3)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(model.classes)


def test_deep_network_is_as_small_as_promised(exported_deep):
    folder, model = exported_deep
    weights = 4 * read_metrics(folder)["parameters"]
    assert weights == 4 * sum(tensor.numel() for tensor in model.weights.values())
    for name in ("weights.safetensors", "model.onnx"):
        assert (folder / name).stat().st_size < weights + 64_000
    assert kernels_of(folder / "model.onnx") == [(16, 1, 3, 3), (16, 16, 3, 3)]
    assert b"dacnn_search" not in (folder / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("architecture", "kernels"),
    [
        (MIXED, [(6, 1, 3, 3), *2 * [(6, 6, 3, 3)], (8, 6, 3, 3), *2 * [(8, 8, 3, 3)], *2 * [(8, 8, 1, 1)]]),
        (
            SEPARABLE,
            [
                *[(6, 1, 3, 3), (6, 1, 3, 3), (8, 6, 1, 1)],  # stem and transition
                *2 * [(6, 1, 3, 3), (6, 6, 1, 1), (8, 1, 3, 3), (8, 8, 1, 1)],
            ],
        ),
    ],
    ids=["full", "separable"],
)
def test_mixes_are_computed_from_anchors_that_are_stored_once(tmp_path, architecture, kernels):
    onnxruntime = pytest.importorskip("onnxruntime")
    data, network = load(DataConfig(name="digits")), build(architecture, 10, 1)
    network(torch.randn(64, 1, 8, 8))
    model, images = as_classifier(network, data), data.validation.images
    logits = model.logits(images)
    pixels = np.float32(images.transpose(0, 3, 1, 2)) / 255
    for file in write_files(tmp_path, model, Formats(("onnx",), int8=True), images):
        assert kernels_of(file, sides=(1, 3)) == sorted(kernels)
        found = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"pixels": pixels})[0]
        tolerance = 0.1 if "int8" in file.name else 1e-4
        np.testing.assert_allclose(found, logits, atol=tolerance * np.abs(logits).max())


def test_the_card_of_mixes_says_what_the_files_store(tmp_path):
    folder = export_network(build(MIXED, 10, 1), tmp_path / "mixed", formats=["safetensors"])
    assert "only the anchors and the scalars of the mix are stored" in (folder / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("network", ["dacnn18", "dacnn18-mix-reg", MIXED, SEPARABLE], ids=str)
def test_networks_are_as_small_in_every_format(network, tmp_path):
    pytest.importorskip("onnxruntime")
    folder = export_network(build(network, 10, 3), tmp_path / "out", float16=True)
    weights = 4 * read_metrics(folder)["parameters"]
    for file in ("weights.safetensors", "model.onnx", "model.pt2"):
        assert (folder / file).stat().st_size < weights + 64_000
    for file in ("weights-float16.safetensors", "model-float16.onnx"):
        assert (folder / file).stat().st_size < weights / 2 + 64_000


@pytest.fixture(scope="module")
def exported_deep(tmp_path_factory):
    """The folder of an untrained network of 34 layers, and the network."""
    folder = tmp_path_factory.mktemp("deep") / "deep"
    model = build(DEEP, 10, 1)
    for _ in range(2):
        model(torch.randn(8, 1, 8, 8))
    export_network(model, folder, data=load(DataConfig(name="digits")), formats=["onnx"])
    return folder, load_model(folder)


def test_file_that_says_something_else_fails_the_export(exported_deep, tmp_path):
    folder, model = exported_deep
    _, images, labels = choose_images(None, model)
    reference = model.logits(images)
    assert measure_file(folder / "model.onnx", model, images, labels, reference)["same_answers"] == 1
    reference[3, 4] += 0.1 * np.abs(reference).max()
    with pytest.raises(ExportError, match=r"model.onnx: logits may differ from the network's by"):
        measure_file(folder / "model.onnx", model, images, labels, reference)
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ExportError, match=r"model.onnx: can't be run outside of this package"):
        measure_file(tmp_path / "model.onnx", model, images, labels, reference)


# ---- any network


def test_export_of_a_network_without_data_needs_only_its_shape(tmp_path):
    torch.manual_seed(0)
    model = build(Architecture((Section(1, 4),)), 3, 2)
    folder = export_network(model, tmp_path / "new", input_shape=(2, 6, 5), formats=["safetensors"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.yaml",
        "metrics.json",
        "weights.safetensors",
    ]
    pixels = torch.rand(4, 2, 6, 5)
    torch.testing.assert_close(load_model(folder)(pixels), model.eval()(pixels), rtol=1e-4, atol=1e-4)
    assert "not trained by dacnn-search" in (folder / "README.md").read_text()


def test_formats_of_an_export_from_python_are_checked():
    with pytest.raises(InputError, match="but are 'h5'"):
        Formats(("h5",))


def test_damaged_weights_are_noticed(run_copy):
    folder = write_best(run_copy)[0]
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    assert read_weights(folder / "weights.safetensors")
    with pytest.raises(InputError, match="the SHA-256 must be"):
        load_model(folder)


def test_without_the_extra_other_formats_can_be_exported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # import onnxscript fails
    model = build(NETWORKS[5][0], 10, 1)
    with pytest.raises(InputError, match=r"ONNX files need the package onnxscript.*pip install onnx onnxscript"):
        export_network(model, tmp_path / "a", input_shape=(1, 8, 8))
    assert list(tmp_path.iterdir()) == []
    written = export_network(model, tmp_path / "b", input_shape=(1, 8, 8), formats=["safetensors", "pt2"])
    assert {"weights.safetensors", "model.pt2"} <= {path.name for path in written.iterdir()}
