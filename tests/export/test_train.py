import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import exit_code
from hypothesis import given, settings
from PIL import Image
from safetensors.torch import save_file
from strategies import architectures

from dacnn_search.common.files import sha256_of
from dacnn_search.data.dataset import DataConfig, load
from dacnn_search.export.best import write_best
from dacnn_search.export.classifier import load_model
from dacnn_search.export.folder import read_config, read_metrics
from dacnn_search.network.model import build
from dacnn_search.network.zoo import get
from dacnn_search.space.settings import TrainSettings
from dacnn_search.space.validation import read_settings
from dacnn_search.train import main, train_one
from dacnn_search.training.device_data import ResidentData
from dacnn_search.training.speed import Speed
from dacnn_search.training.weights import read_weights, start_from, trained_weights


@pytest.fixture(scope="module")
def best(small_run):
    return write_best(small_run)[1]


@pytest.fixture
def image_folder(tmp_path):
    """Three classes of digits as image files."""
    digits = load(DataConfig(name="digits")).train
    for label in (1, 4, 7):
        folder = tmp_path / "own" / f"digit {label}"
        folder.mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.labels == label][:40]):
            Image.fromarray(image[..., 0]).save(folder / f"{number}.png")
    return tmp_path / "own"


def train(*arguments, expected=0):
    assert exit_code(main, *arguments) == expected


def test_metrics_and_card_tell_the_precision_that_auto_became(best, tmp_path, monkeypatch):
    monkeypatch.setattr("dacnn_search.training.speed.measure_speed", lambda *_: Speed(float32=1.0, bfloat16=9.0))
    train("--config", best / "config.yaml", "--epochs", 1, "--out", tmp_path / "out")
    training = read_metrics(tmp_path / "out")["training"]
    assert (training["recipe"]["precision"], training["precision"]) == ("auto", "bfloat16")
    assert "in bfloat16 |" in (tmp_path / "out" / "README.md").read_text()
    assert read_config(tmp_path / "out").recipe.precision == "auto"  # another machine may have another one


def test_config_gives_the_same_network_again(small_run, best, tmp_path, capsys):
    train("--config", best / "config.yaml", "--out", tmp_path / "again")
    assert "epoch 2/2" in capsys.readouterr().out
    first, again = (read_weights(folder / "weights.safetensors") for folder in (best, tmp_path / "again"))
    for name, tensor in first.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-3, atol=1e-3)
    before, after = (read_metrics(folder)["training"] for folder in (best, tmp_path / "again"))
    assert after["test_accuracy"] == pytest.approx(before["test_accuracy"], abs=0.01)
    assert load_model(tmp_path / "again").classes == tuple("0123456789")


def test_trial_of_a_run_is_trained_by_the_recipe_for_full_trainings(small_run, tmp_path):
    run = shutil.copytree(small_run.folder, tmp_path / "run")
    text = (run / "space.yaml").read_text()
    full = "retrain: {epochs: 3, recipe: {name: best, batch_size: 64}}"
    (run / "space.yaml").write_text(re.sub("^retrain:.*", "", text, flags=re.MULTILINE) + full)
    train("--run", run, "--trial", 5, "--out", tmp_path / "five")
    metrics = read_metrics(tmp_path / "five")
    assert (metrics["name"], metrics["parameters"]) == ("tiny, trial 5", 254)
    training = metrics["training"]
    assert (training["epochs"], training["recipe"]["name"], training["recipe"]["batch_size"]) == (3, "best", 64)
    train("--run", run, "--trial", 5, "--epochs", 1, "--out", tmp_path / "short")
    assert read_metrics(tmp_path / "short")["training"]["epochs"] == 1


def test_trained_network_goes_on_with_other_data_and_classes(best, image_folder, tmp_path):
    arguments = ("--config", best / "config.yaml", "--data", image_folder, "--init", best / "weights.safetensors")
    train(*arguments, "--epochs", 10, "--out", tmp_path / "tuned")
    model = load_model(tmp_path / "tuned")
    assert model.classes == ("digit 1", "digit 4", "digit 7")
    assert read_metrics(tmp_path / "tuned")["training"]["test_accuracy"] > 0.6  # of three classes
    config = read_config(tmp_path / "tuned").data
    assert (config.root, config.image_size, config.channels) == (str(image_folder), 8, 1)
    assert read_metrics(tmp_path / "tuned")["training"]["init"] == "weights.safetensors"


def test_names_of_two_trainings_at_once_are_numbered_and_nothing_is_replaced(best, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = read_settings(best / "config.yaml", TrainSettings)
    config = config.model_copy(update={"name": "mine", "recipe": config.recipe.model_copy(update={"epochs": 1})})

    def train_another(line):
        if line.startswith("epoch"):
            others.append(train_one(config, say=lambda _: None))

    others = []
    last = train_one(config, say=train_another)
    assert [path.name for path in (*others, last)] == ["mine", "mine-2"]
    assert {path.name for path in Path("results", "train").iterdir()} == {"mine", "mine-2"}
    others, out = [], Path("out")
    last = train_one(config, out, say=lambda line: others or others.append(train_one(config, out, say=lambda _: None)))
    assert (others, last) == ([Path("out")], Path("out-2"))
    assert all(load_model(folder) for folder in (*others, last))


def test_an_interrupted_training_leaves_nothing(best, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_one(read_settings(best / "config.yaml", TrainSettings), say=interrupt)
    assert not list(Path("results", "train").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of --config, --network and --run, but not none"),
        (["--network", "dacnn18", "--data", "."], "a folder of images needs --image-size beside it, but . has none"),
        (["--config", "none.yaml"], "none.yaml: no such file"),
        (["--config", "{best}/config.yaml", "--data", "imagenet"], "data must be one of cifar10, cifar100, digits"),
        (["--config", "{best}/config.yaml", "--init", "none"], "none: no such file"),
        (["--config", "{best}/config.yaml", "--out", "{best}"], "must be new, but is there already"),
        (["--run", "{run}", "--trial", "99"], "the trial must be one of 2 finished ones, but is 99"),
        (["--run", "{run}"], "--run and --trial must be given together"),
        (["--network", "dacnn18"], "--network must have --data beside it, but has none"),
        (["--network", "dacnn18-mixed", "--data", "digits"], "is 'dacnn18-mixed'; did you mean dacnn18-mix"),
        (["--network", "dacnn18", "--data", "digits", "--root", "x"], "root is not allowed for data set 'digits'"),
        (
            ["--network", "dacnn18", "--data", "x.npz", "--root", "x"],
            "--root is only used with a data set's name",
        ),
        (
            ["--config", "{best}/config.yaml", "--data", "digits", "--image-size", "32"],
            "--image-size is only used with a folder of images, but --data is",
        ),
        (["--config", "{best}/config.yaml", "--image-size", "32"], "--image-size are only used with --data"),
        (
            ["--config", "{best}/config.yaml", "--data", ".", "--image-size", "1000"],
            "data.image_size: must be less than or equal to 256, but is 1000",
        ),
        (
            ["--run", "{run}", "--trial", "5", "--init", "{best}"],
            "weights: blocks.0.layers.0.norm.bias must have shape",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(small_run, best, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    train(*(text.format(best=best, run=small_run.folder) for text in arguments), expected=2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_where_the_data_before_are_gone_the_folder_tells_the_size(best, image_folder, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(best, moved)
    config = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(config.replace("name: digits", f"name: npz\n  root: {tmp_path}/gone.npz"))
    arguments = ("--config", moved / "config.yaml", "--data", image_folder, "--epochs", 1)
    train(*arguments, "--out", tmp_path / "again")
    data = read_config(tmp_path / "again").data
    assert (data.image_size, data.channels) == (8, 1)
    (moved / "metrics.json").unlink()
    train(*arguments, "--out", tmp_path / "failed", expected=2)
    assert "gone.npz" in capsys.readouterr().err


def test_a_network_is_taught_by_the_folder_of_another(small_run, best, tmp_path, capsys):
    teacher = write_best(small_run)[0]
    config = tmp_path / "config.yaml"
    config.write_text((best / "config.yaml").read_text().replace("recipe:\n", "recipe:\n  distillation: 0.9\n"))
    train("--config", config, "--out", tmp_path / "alone")
    assert "the recipe's distillation of 0.9 is not used: there is no --teacher\n" in capsys.readouterr().out
    train("--config", config, "--teacher", teacher, "--out", tmp_path / "taught")
    assert "not used" not in capsys.readouterr().out
    trained = [read_metrics(tmp_path / name)["training"] for name in ("alone", "taught")]
    assert [training["teacher"] for training in trained] == [None, read_metrics(teacher)["fingerprint"]]
    assert trained[0]["seeds"][0]["test_loss"] != trained[1]["seeds"][0]["test_loss"]
    assert "90% of the loss" in (tmp_path / "taught" / "README.md").read_text()


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"classes": list("abc")}, "must have the classes ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9'), but has"),
        ({"shape": [1, 16, 16]}, "must have the shape (1, 8, 8), but has (1, 16, 16)"),
        ({"mean": [0.9]}, "must have the mean (0.3"),
        ({}, "--teacher needs a recipe with a share of distillation, but the recipe's is 0"),
    ],
)
def test_an_unfit_teacher_is_refused_in_one_line(small_run, best, tmp_path, capsys, changed, rule):
    """Of other classes or images, or one that would not be asked."""
    teacher = shutil.copytree(best, tmp_path / "teacher")
    metrics = read_metrics(teacher)
    metrics["input"] |= changed
    (teacher / "metrics.json").write_text(json.dumps(metrics))
    if "classes" in changed:
        weights = read_weights(teacher / "weights.safetensors")
        weights |= {f"classifier.{name}": weights[f"classifier.{name}"][:3].clone() for name in ("weight", "bias")}
        save_file(weights, teacher / "weights.safetensors")
        metrics["files"]["weights.safetensors"]["sha256"] = sha256_of(teacher / "weights.safetensors")
        (teacher / "metrics.json").write_text(json.dumps(metrics))
    recipe = ("--recipe", "best") if changed else ()
    train("--config", best / "config.yaml", *recipe, "--teacher", teacher, "--out", tmp_path / "out", expected=2)
    error = capsys.readouterr().err
    assert rule in error
    assert error.count("\n") == 1


def test_networks_without_data_are_trained_with_data_given(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"architecture": {"sections": [{"depth": 1, "width": 4}]}, "recipe": {"epochs": 1}}))
    train("--config", config, "--data", "digits", "--out", tmp_path / "out")
    assert read_config(tmp_path / "out").data == DataConfig(name="digits")


def test_networks_of_the_paper_are_trained_by_name(tmp_path):
    train("--network", "dacnn3", "--data", "digits", "--recipe", "paper", "--epochs", 1, "--out", tmp_path / "out")
    model = load_model(tmp_path / "out")
    assert model.architecture.fingerprint == get("dacnn3").fingerprint
    metrics = read_metrics(tmp_path / "out")
    assert (metrics["name"], metrics["training"]["recipe"]["optimizer"]) == ("dacnn3", "adagrad")
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"architecture": "dacnn3", "data": {"name": "digits"}, "recipe": {"epochs": 1}}))
    train("--config", config, "--out", tmp_path / "again")
    assert load_model(tmp_path / "again").architecture == model.architecture


@given(architectures())
@settings(max_examples=15)
def test_start_from_weights_computes_the_same_and_trains_close_to_it(architecture):
    torch.manual_seed(0)
    data = ResidentData(digits_subset())
    trained = build(architecture, 10, 1)
    for _ in range(3):
        trained(data.batch(data.train, slice(0, 64))[0])
    trained.eval()
    images, _ = data.batch(data.train, slice(None))
    expected = trained(images)
    model = start_from(build(architecture, 10, 1), trained_weights(trained), data)
    scale = float(expected.detach().abs().max()) + 1
    # In training mode, with all training images as one batch, the batch's statistics are those that were measured.
    torch.testing.assert_close(model(images), expected, rtol=1e-3, atol=2e-3 * scale)
    model = start_from(build(architecture, 10, 1), trained_weights(trained), data).eval()
    torch.testing.assert_close(model(images), expected, rtol=1e-3, atol=2e-3 * scale)


def digits_subset():
    return load(DataConfig(name="digits", subset=100))


def test_new_classifier_only_where_the_number_of_classes_differs():
    torch.manual_seed(0)
    data = ResidentData(digits_subset())
    stored = trained_weights(build("dacnn3", 3, 1).eval())
    other = build("dacnn3", 10, 1)
    own = other.classifier.weight.detach().clone()
    assert torch.equal(start_from(other, stored, data).classifier.weight, own)
    stored = trained_weights(build("dacnn3", 10, 1).eval())
    assert np.array_equal(start_from(other, stored, data).classifier.weight.detach(), stored["classifier.weight"])
