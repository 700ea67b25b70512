"""Training of one network alone, from a config to a folder as `best/` has them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import InputError
from dacnn_search.common.files import replace_folder, write_atomic
from dacnn_search.data.dataset import DataConfig, load, summarise
from dacnn_search.data.published import KNOWN_SETS
from dacnn_search.export.exporter import describe_training
from dacnn_search.export.folder import (
    CONFIG,
    METRICS,
    WEIGHTS,
    NetworkInput,
    config_text,
    describe_network,
    read_input,
    write_metrics,
)
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import InputShape
from dacnn_search.space.settings import TrainSettings
from dacnn_search.space.validation import check_data
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.training.memory import SMALL_STEP

__all__ = ["choose_data", "default_folder", "settings_of_trial", "shape_before", "train_one"]


def train_one(
    settings: TrainSettings, out: Path, *, init: Path | None = None, say: Callable[[str], None] = print
) -> Path:
    """Train a network on the training and validation images together, as `search.retrain` does, score the test
    images once, and write config, weights, metrics and model card to the folder `out`, which is returned.

    init: a weight file, or a folder with one, to train on from. say: gets a line per epoch.
    Raises InputError if `out` is there already or anything given is wrong, TrainingError if the training breaks.
    """
    if out.exists():
        raise InputError(f"{out}: the folder to write must be new, but is there already; name another with --out")
    from dacnn_search.training.weights import trained_weights, write_weights

    data = load(settings.data).with_validation_in_train()
    architecture: Architecture = settings.architecture
    architecture.check_image_size(*data.input_shape[1:])
    model, result = _train(settings, architecture, data, init, say)
    recipe = settings.recipe.model_dump(mode="json")
    metrics = describe_network(architecture, NetworkInput.of(data), settings.name)
    metrics["training"] = describe_training([{**result, "recipe": recipe}], data, settings.data)
    metrics["training"]["init"] = None if init is None else str(init.resolve())
    with replace_folder(out) as folder:
        config = config_text(architecture, settings.data, recipe, settings.seed, settings.name)
        write_atomic(folder / CONFIG, config)
        write_weights(trained_weights(model), folder / WEIGHTS)
        write_metrics(folder, metrics, out.name)
    return out


def settings_of_trial(run: RunDirectory, trial: int) -> TrainSettings:
    """The network of a run's trial, to be trained by the run's recipe for full trainings.

    Raises InputError if the run has no such trial.
    """
    records = {record["trial"]: record for record in run.records}
    if trial not in records:
        raise InputError(f"{run.folder}: the trial must be one of {len(records)} finished ones, but is {trial}")
    space = run.space.settings
    return TrainSettings.model_construct(
        architecture=Architecture.from_dict(records[trial]["architecture"]),
        data=space.data,
        recipe=space.retrain.full_recipe(space.recipe),
        seed=0,
        name=f"{run.environment['name']}, trial {trial}",
    )


def choose_data(
    given: str,
    shape: Callable[[], InputShape | None],
    image_size: int | None = None,
    root: str | None = None,
) -> DataConfig:
    """The data that `--data` names: a data set, an .npz file, or a folder of images.

    shape: (C, H, W) of the images before, if there are any; for a folder size and channels are taken from there, the
    size unless `image_size` is given. root: the folder of a data set's files. Raises InputError for anything else.
    """
    path = Path(given)
    if root is not None and given not in KNOWN_SETS:
        raise InputError(f"--root is only used with a data set's name, but --data is {given}")
    of_images = given not in KNOWN_SETS and path.suffix != ".npz"
    if image_size is not None and not of_images:
        raise InputError(f"--image-size is only used with a folder of images, but --data is {given}")
    if given in KNOWN_SETS:
        return check_data({"name": given, "root": root})
    if not of_images:
        return check_data({"name": "npz", "root": given})
    if not path.is_dir():
        names = ", ".join(sorted(KNOWN_SETS))
        raise InputError(f"data must be one of {names}, an .npz file or a folder of images, but are {given!r}")
    before = shape()
    if before is None and image_size is None:
        raise InputError(f"a folder of images needs --image-size beside it, but {given} has none")
    channels, height, width = before or (3, 0, 0)
    size = image_size or max(height, width)
    return check_data({"name": "folder", "root": given, "image_size": size, "channels": 1 if channels == 1 else 3})


def shape_before(data: DataConfig | None, folder: Path | None) -> InputShape | None:
    """(C, H, W) of the images that a network was trained on: by the folder it lies in if that tells, else by the data
    themselves. Raises DataError if these can't be read."""
    if folder is not None and (folder / METRICS).is_file():
        return read_input(folder).shape
    return summarise(data).input_shape if data else None


def default_folder(name: str | None) -> Path:
    """`results/train/<name>`, numbered if it is there already."""
    plain = re.sub(r"[^\w.-]+", "-", name or "").strip("-.") or "network"
    folder, number = Path("results", "train", plain), 1
    while folder.exists():
        number += 1
        folder = folder.with_name(f"{plain}-{number}")
    return folder


def _train(
    settings: TrainSettings, architecture: Architecture, data: Any, init: Path | None, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    """The trained model and its record, with the keys of `retrained.jsonl`."""
    import torch

    from dacnn_search.network.cost import count_macs
    from dacnn_search.training.fine_tuning import start_from
    from dacnn_search.training.trainer import ResidentData, Training, build_seeded, evaluate, prepare_process
    from dacnn_search.training.weights import read_weights

    recipe, seed = settings.recipe, settings.seed
    small = 3 * count_macs(architecture, data.input_shape, data.num_classes) * recipe.batch_size < SMALL_STEP
    prepare_process(1 if small else torch.get_num_threads())
    model = build_seeded(architecture, data.num_classes, data.input_shape[0], seed)
    resident = ResidentData(data)
    if init is not None:
        start_from(model, read_weights(init / WEIGHTS if init.is_dir() else init), resident)
    training = Training(model, resident, recipe, seed=seed)
    seconds = 0.0
    while not training.finished:
        epoch = training.run_epoch()
        seconds += epoch.seconds
        say(f"epoch {epoch.epoch}/{recipe.epochs}  loss {epoch.train_loss:.4f}  {epoch.seconds:.1f} s")
    test = evaluate(model, resident, "test", precision="float32") if len(data.test) else None
    say(f"test accuracy {test.accuracy:.2%} of {len(data.test):,} images" if test else "no test images")
    return model, {
        "seed": seed,
        "epochs": recipe.epochs,
        "train_images": len(data.train),
        "test_accuracy": test.accuracy if test else None,
        "test_loss": test.loss if test else None,
        "seconds": seconds,
    }
