"""Train one network alone and write a folder such as those in `best/`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dacnn_search.common.errors import InputError
from dacnn_search.common.files import new_folder
from dacnn_search.common.privacy import relative_path
from dacnn_search.data.dataset import ImageData, load
from dacnn_search.export.folder import (
    WEIGHTS,
    NetworkInput,
    config_text,
    describe_network,
    describe_training,
    write_folder,
)
from dacnn_search.network.cost import count_macs
from dacnn_search.space.settings import TrainSettings
from dacnn_search.training.speed import SMALL_STEP_MACS

if TYPE_CHECKING:
    from dacnn_search.network.model import Network

__all__ = ["train_one"]


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
    from safetensors.torch import save

    from dacnn_search.training.weights import trained_weights

    if out is not None and out.exists():
        raise InputError(f"{out}: the folder to write must be new, but is there already; name another with --out")
    data = load(settings.data).with_validation_in_train()
    settings.architecture.check_image_size(*data.input_shape[1:])
    name = re.sub(r"[^\w.-]+", "-", settings.name or "").strip("-.") or "network"
    out = out or Path("results", "train", name)
    out.parent.mkdir(parents=True, exist_ok=True)
    model, record = _train(settings, data, init, say)
    metrics = describe_network(settings.architecture, NetworkInput.of(data), settings.name)
    metrics["training"] = describe_training([record], data, settings.data)
    metrics["training"]["init"] = None if init is None else relative_path(str(init))
    config = config_text(settings.architecture, settings.data, record["recipe"], settings.seed, settings.name)
    weights = save(trained_weights(model))
    folder, number = out, 1
    while True:
        try:
            with new_folder(folder) as new:
                write_folder(new, config, weights, metrics, folder.name)
            return folder
        except FileExistsError:
            number += 1
            folder = out.with_name(f"{out.name}-{number}")


def _train(
    settings: TrainSettings, data: ImageData, init: Path | None, say: Callable[[str], None]
) -> tuple["Network", dict[str, Any]]:
    """Return the trained network and its record, with the keys of `retrained.jsonl`."""
    import torch

    from dacnn_search.training.fine_tuning import start_from
    from dacnn_search.training.trainer import ResidentData, build_seeded, evaluate, train
    from dacnn_search.training.weights import read_weights

    recipe, seed, architecture = settings.recipe, settings.seed, settings.architecture
    small = 3 * count_macs(architecture, data.input_shape, data.num_classes) * recipe.batch_size < SMALL_STEP_MACS
    if small:
        torch.set_num_threads(1)
    model = build_seeded(architecture, data.num_classes, data.input_shape[0], seed)
    resident = ResidentData(data)
    if init is not None:
        start_from(model, read_weights(init / WEIGHTS if init.is_dir() else init), resident)
    seconds = 0.0
    for epoch in train(model, resident, recipe, seed=seed):
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
