"""Train one network alone and write a folder such as those in `best/`."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dacnn_search.common.errors import InputError
from dacnn_search.common.files import new_folder, write_atomic
from dacnn_search.data.dataset import DataConfig, ImageData, load, summarise
from dacnn_search.data.published import KNOWN_SETS
from dacnn_search.export.folder import (
    CONFIG,
    METRICS,
    WEIGHTS,
    NetworkInput,
    config_text,
    describe_network,
    describe_training,
    portable_path,
    read_input,
    write_metrics,
)
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import InputShape, count_macs
from dacnn_search.space.settings import TrainSettings
from dacnn_search.space.validation import check_data
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.training.speed import SMALL_STEP_MACS

if TYPE_CHECKING:
    from torch import Tensor

    from dacnn_search.network.model import Network

__all__ = ["choose_data", "settings_of_trial", "train_one"]


def train_one(
    settings: TrainSettings,
    out: Path | None = None,
    *,
    init: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Train a network on training and validation images together, score the test images once, write its folder.

    Returns the folder. Nothing is written before the training has ended, and nothing is replaced: if the name is taken
    by then, the folder gets the next number that is free.

    Args:
        settings: Architecture, data, recipe, seed and name.
        out: The folder to write, by default `results/train/<name>`.
        init: A weight file, or a folder with one, to start from.
        say: Called with a line per epoch.

    Raises InputError if `out` exists at the start or anything given is wrong, TrainingError if the training breaks.
    """
    if out is not None and out.exists():
        raise InputError(f"{out}: the folder to write must be new, but is there already; name another with --out")
    from dacnn_search.training.weights import trained_weights

    data = load(settings.data).with_validation_in_train()
    settings.architecture.check_image_size(*data.input_shape[1:])
    out = out or Path("results", "train", _plain_name(settings.name))
    out.parent.mkdir(parents=True, exist_ok=True)
    model, record = _train(settings, data, init, say)
    metrics = describe_network(settings.architecture, NetworkInput.of(data), settings.name)
    metrics["training"] = describe_training([record], data, settings.data)
    metrics["training"]["init"] = None if init is None else _without_folder(init)
    config = config_text(settings.architecture, settings.data, record["recipe"], settings.seed, settings.name)
    return _write_new(out, config, trained_weights(model), metrics)


def settings_of_trial(run: RunDirectory, trial: int) -> TrainSettings:
    """Return the network of a run's trial, with the run's recipe for full trainings.

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
    *,
    root: str | None = None,
    image_size: int | None = None,
    before: DataConfig | None = None,
    folder: Path | None = None,
) -> DataConfig:
    """Return the data that `--data` names.

    Args:
        given: A data set, an .npz file, or a folder of images.
        root: The folder of a data set's files.
        image_size: The side to which a folder's images are resized, by default that of the images before.
        before: The data that the network was trained on before.
        folder: The network's folder, which tells the images' size and channels even if these data are gone.

    Raises InputError for anything else, DataError if the data before are needed but can't be read.
    """
    path = Path(given)
    if root is not None and given not in KNOWN_SETS:
        raise InputError(f"--root is only used with a data set's name, but --data is {given}")
    if image_size is not None and (given in KNOWN_SETS or path.suffix == ".npz"):
        raise InputError(f"--image-size is only used with a folder of images, but --data is {given}")
    if given in KNOWN_SETS:
        return check_data({"name": given, "root": root})
    if path.suffix == ".npz":
        return check_data({"name": "npz", "root": given})
    if not path.is_dir():
        names = ", ".join(sorted(KNOWN_SETS))
        raise InputError(f"data must be one of {names}, an .npz file or a folder of images, but are {given!r}")
    channels, height, width = _shape_before(before, folder) or (3, 0, 0)
    size = image_size or max(height, width)
    if not size:
        raise InputError(f"a folder of images needs --image-size beside it, but {given} has none")
    return check_data({"name": "folder", "root": given, "image_size": size, "channels": 1 if channels == 1 else 3})


def _shape_before(data: DataConfig | None, folder: Path | None) -> InputShape | None:
    """Return (C, H, W) of the images that a network was trained on, if that is known."""
    if folder is not None and (folder / METRICS).is_file():
        return read_input(folder).shape
    return None if data is None else summarise(data).input_shape


def _train(
    settings: TrainSettings, data: ImageData, init: Path | None, say: Callable[[str], None]
) -> tuple["Network", dict[str, Any]]:
    """Return the trained network and its record, with the keys of `retrained.jsonl`."""
    import torch

    from dacnn_search.training.fine_tuning import start_from
    from dacnn_search.training.trainer import ResidentData, Training, build_seeded, evaluate
    from dacnn_search.training.weights import read_weights

    recipe, seed, architecture = settings.recipe, settings.seed, settings.architecture
    small = 3 * count_macs(architecture, data.input_shape, data.num_classes) * recipe.batch_size < SMALL_STEP_MACS
    if small:
        torch.set_num_threads(1)
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
        "recipe": recipe.model_dump(mode="json"),
        "epochs": recipe.epochs,
        "train_images": len(data.train),
        "test_accuracy": test.accuracy if test else None,
        "test_loss": test.loss if test else None,
        "seconds": seconds,
    }


def _write_new(wanted: Path, config: str, weights: Mapping[str, "Tensor"], metrics: Mapping[str, Any]) -> Path:
    """Write a network's folder under the name `wanted` or, if that is taken, under the next number that is free."""
    from dacnn_search.training.weights import write_weights

    folder, number = wanted, 1
    while True:
        try:
            with new_folder(folder) as new:
                write_atomic(new / CONFIG, config)
                write_weights(weights, new / WEIGHTS)
                write_metrics(new, metrics, folder.name)
            return folder
        except FileExistsError:
            number += 1
            folder = wanted.with_name(f"{wanted.name}-{number}")


def _without_folder(path: Path) -> str:
    """Return a path for others to read: of one that only this machine has, the name alone."""
    portable = Path(portable_path(str(path)))
    return portable.name if portable.is_absolute() else str(portable)


def _plain_name(name: str | None) -> str:
    return re.sub(r"[^\w.-]+", "-", name or "").strip("-.") or "network"
