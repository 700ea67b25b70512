"""Train one network alone: `python -m dacnn_search.train --network dacnn18-mix --data cifar10`."""

import contextlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from dacnn_search.common.command import PATH, at_least, command
from dacnn_search.common.errors import InputError
from dacnn_search.common.files import new_folder
from dacnn_search.common.privacy import relative_path
from dacnn_search.data.dataset import DataConfig, ImageData, load, summarise
from dacnn_search.data.published import KNOWN_SETS
from dacnn_search.export.folder import METRICS, WEIGHTS, NetworkInput, describe_trained, read_input, write_folder
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import estimate_cost
from dacnn_search.network.zoo import get
from dacnn_search.space.settings import TrainSettings
from dacnn_search.space.validation import check_data, read_settings
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.training.recipe import PRESETS, Recipe
from dacnn_search.training.speed import SMALL_STEP_MACS

if TYPE_CHECKING:
    from dacnn_search.network.model import Network

ALIKE = 0.01  # the most that mean or std of a teacher's pixels in [0, 1] may differ

EPILOG = """\
The network is trained on training and validation images together and scored on the test images once, at the end.
With --init it starts from stored weights, on the same data or, with --data, on others: a new classifier is made if
the number of classes differs. With --teacher, a recipe's share of distillation follows another network's outputs.
"""


@command(epilog=EPILOG)
@click.option("--config", type=PATH, metavar="FILE", help="config.yaml of an exported network, or one like it")
@click.option("--network", metavar="NAME", help="a network of a paper, such as dacnn18-mix or thriftynet")
@click.option("--run", type=PATH, metavar="FOLDER", help="run directory of a search, together with --trial")
@click.option("--trial", type=at_least(0), help="train the network of this trial of the run")
@click.option("--data", help="other data: a data set's name, an .npz file or a folder of images")
@click.option("--root", metavar="FOLDER", help="folder of a data set's files (default: data, where it downloads)")
@click.option("--image-size", type=at_least(8), help="side in pixels for a folder of images (default: as before)")
@click.option("--init", type=PATH, metavar="WEIGHTS", help="start from this weight file or exported network")
@click.option("--teacher", type=PATH, metavar="FOLDER", help="exported network that teaches, on the same images")
@click.option(
    "--recipe", type=click.Choice(tuple(PRESETS)), help="recipe instead of the config's (with --network: fast)"
)
@click.option("--epochs", type=at_least(1), help="epochs instead of the recipe's")
@click.option("--seed", type=at_least(0), help="seed of weights and shuffling instead of the config's")
@click.option("--out", type=PATH, metavar="FOLDER", help="where to write (default: results/train/<name>)")
def main(**given: Any) -> None:
    """Train one network alone and write config, weights, metrics and model card."""
    options = SimpleNamespace(**given)
    settings = _read_network(options)
    recipe = settings.recipe if options.recipe is None else Recipe(name=options.recipe)
    changed = {
        "data": _choose_data(options, settings.data),
        "recipe": recipe.model_copy(update={} if options.epochs is None else {"epochs": options.epochs}),
        "seed": settings.seed if options.seed is None else options.seed,
    }
    print(f"network    {settings.architecture}")
    out = train_one(settings.model_copy(update=changed), options.out, init=options.init, teacher=options.teacher)
    print(f"written to {out}")


def train_one(
    settings: TrainSettings,
    out: Path | None = None,
    *,
    init: Path | None = None,
    teacher: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Train a network on training and validation images together, score the test images once, write its folder.

    Returns the folder, by default `results/train/<name>`. Nothing is written before the training has ended, and nothing
    is replaced: if the name is taken by then, the folder gets the next number that is free. `init` is a weight file, or
    a folder with one, to start from; `teacher` is the folder of a network on the same images, to learn from; `say` is
    called with a line per epoch.

    Raises InputError if `out` exists at the start or anything given is wrong, TrainingError if the training breaks.
    """
    if out is not None and out.exists():
        raise InputError(f"{out}: the folder to write must be new, but is there already; name another with --out")
    if teacher is not None and not settings.recipe.distillation:
        raise InputError("--teacher needs a recipe with a share of distillation, but the recipe's is 0")
    if settings.data is None:
        raise InputError("data is missing: the config of the network names none; name some with --data")
    data = load(settings.data).with_validation_in_train()
    settings.architecture.check_image_size(*data.input_shape[1:])
    name = re.sub(r"[^\w.-]+", "-", settings.name or "").strip("-.") or "network"
    out = out or Path("results", "train", name)
    out.parent.mkdir(parents=True, exist_ok=True)
    weights, record = _train(settings, data, init, teacher, say)
    config, metrics = describe_trained(settings.architecture, [record], data, settings.data, settings.name)
    metrics["training"]["init"] = None if init is None else relative_path(str(init))
    for number in itertools.count(1):
        folder = out if number == 1 else out.with_name(f"{out.name}-{number}")
        with contextlib.suppress(FileExistsError):
            with new_folder(folder) as new:
                write_folder(new, config, weights, metrics, folder.name)
            break
    return folder


def _train(
    settings: TrainSettings, data: ImageData, init: Path | None, teacher: Path | None, say: Callable[[str], None]
) -> tuple[bytes, dict[str, Any]]:
    """Return the trained weights as a file and their record, with the keys of `retrained.jsonl`."""
    import torch
    from safetensors.torch import save

    from dacnn_search.training.trainer import ResidentData, Training, build_seeded, evaluate
    from dacnn_search.training.weights import read_weights, start_from, trained_weights

    recipe, seed, architecture = settings.recipe, settings.seed, settings.architecture
    size = data.input_shape, data.num_classes
    if 3 * estimate_cost(architecture, *size).macs * recipe.batch_size < SMALL_STEP_MACS:
        torch.set_num_threads(1)
    model = build_seeded(architecture, data.num_classes, data.input_shape[0], seed)
    resident = ResidentData(data)
    if init is not None:
        start_from(model, read_weights(init / WEIGHTS if init.is_dir() else init), resident)
    seconds = 0.0
    taught_by = None if teacher is None else _load_teacher(teacher, data)
    if recipe.distillation and taught_by is None:
        say(f"the recipe's distillation of {recipe.distillation:g} is not used: there is no --teacher")
    training = Training(model, resident, recipe, seed=seed, teacher=taught_by)
    while not training.finished:
        epoch = training.run_epoch()
        seconds += epoch.seconds
        say(f"epoch {epoch.epoch}/{recipe.epochs}  loss {epoch.train_loss:.4f}  {epoch.seconds:.1f} s")
    test = evaluate(model, resident, "test", precision="float32") if len(data.test) else None
    say(f"test accuracy {test.accuracy:.2%} of {len(data.test):,} images" if test else "no test images")
    return save(trained_weights(model)), {
        "seed": seed,
        "recipe": recipe.model_dump(mode="json"),
        "teacher": None if taught_by is None else taught_by.architecture.fingerprint,
        "precision": training.precision,
        "epochs": recipe.epochs,
        "train_images": len(data.train),
        "test_accuracy": test.accuracy if test else None,
        "test_loss": test.loss if test else None,
        "seconds": seconds,
    }


def _load_teacher(folder: Path, data: ImageData) -> "Network":
    """Load an exported network. Raises InputError unless it has these classes, and images of this size and look."""
    from dacnn_search.export.classifier import load_model

    model, own = load_model(folder), NetworkInput.of(data)
    for name in NetworkInput.model_fields:
        given, wanted = getattr(model.input, name), getattr(own, name)
        same = np.allclose(given, wanted, atol=ALIKE) if name in ("mean", "std") else given == wanted
        if not same:
            words = f"{name} {shorten(str(wanted), 60)}, but has {shorten(str(given), 60)}"
            raise InputError(f"{folder}: a teacher must have the {words}")
    return model.network


def _read_network(options: SimpleNamespace) -> TrainSettings:
    """Return the network that --config, --network or --run names, with its data (if any) and recipe."""
    sources = [f"--{name}" for name in ("config", "network", "run") if getattr(options, name) is not None]
    if len(sources) != 1:
        raise InputError(f"give one of --config, --network and --run, but not {' and '.join(sources) or 'none'}")
    if (options.run is None) != (options.trial is None):
        raise InputError("--run and --trial must be given together, but only one is")
    if options.network is not None:
        if options.data is None:
            raise InputError("--network must have --data beside it, but has none")
        return TrainSettings.model_construct(architecture=get(options.network), name=options.network)
    if options.config is not None:
        settings = read_settings(options.config, TrainSettings)
        if settings.data is None and options.data is None:
            raise InputError(f"{options.config}: data is missing; name some with --data")
        return settings
    run = RunDirectory(options.run)
    records = {record["trial"]: record for record in run.records}
    if options.trial not in records:
        raise InputError(f"{run.folder}: the trial must be one of {len(records)} finished ones, but is {options.trial}")
    space = run.space.settings
    return TrainSettings.model_construct(
        architecture=Architecture.from_dict(records[options.trial]["architecture"]),
        data=space.data,
        recipe=space.retrain.full_recipe(space.recipe),
        name=f"{run.environment['name']}, trial {options.trial}",
    )


def _choose_data(options: SimpleNamespace, before: DataConfig | None) -> DataConfig | None:
    """Return the data that --data names; without it those that the network was trained on before."""
    given, root, image_size = options.data, options.root, options.image_size
    if given is None:
        if root is not None or image_size is not None:
            raise InputError("--root and --image-size are only used with --data")
        return before
    if image_size is not None and (given in KNOWN_SETS or Path(given).suffix == ".npz"):
        raise InputError(f"--image-size is only used with a folder of images, but --data is {given}")
    if given in KNOWN_SETS:
        return check_data({"name": given, "root": root})
    if root is not None:
        raise InputError(f"--root is only used with a data set's name, but --data is {given}")
    if Path(given).suffix == ".npz":
        return check_data({"name": "npz", "root": given})
    if not Path(given).is_dir():
        names = ", ".join(sorted(KNOWN_SETS))
        raise InputError(f"data must be one of {names}, an .npz file or a folder of images, but are {given!r}")
    if options.config is not None and (options.config.parent / METRICS).is_file():
        channels, height, width = read_input(options.config.parent).shape  # also where the data before are gone
    else:
        channels, height, width = (3, 0, 0) if before is None else summarise(before).input_shape
    size = image_size or max(height, width)
    if not size:
        raise InputError(f"a folder of images needs --image-size beside it, but {given} has none")
    return check_data({"name": "folder", "root": given, "image_size": size, "channels": 1 if channels == 1 else 3})


if __name__ == "__main__":
    main()
