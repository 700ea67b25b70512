"""Train one network alone: `python -m dacnn_search.train --network dacnn18-mix --data cifar10`."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from dacnn_search.common.command import PATH, at_least, command
from dacnn_search.common.errors import InputError
from dacnn_search.data.dataset import DataConfig, summarise
from dacnn_search.data.published import KNOWN_SETS
from dacnn_search.export.folder import METRICS, NetworkSettings, read_input
from dacnn_search.export.from_config import train_one
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.zoo import get
from dacnn_search.space.settings import TrainSettings
from dacnn_search.space.validation import check_data, read_settings
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.training.recipe import PRESETS, Recipe

EPILOG = """\
The network is trained on training and validation images together and scored on the test images once, at the end.
With --init it starts from stored weights, on the same data or, with --data, on others: a new classifier is made if
the number of classes differs.
"""


@command(epilog=EPILOG)
@click.option("--config", type=PATH, metavar="FILE", help="config.yaml of an exported network, or one like it")
@click.option("--network", metavar="NAME", help="a network of the paper, such as dacnn18-mix (docs/paper.md)")
@click.option("--run", type=PATH, metavar="FOLDER", help="run directory of a search, together with --trial")
@click.option("--trial", type=at_least(0), help="train the network of this trial of the run")
@click.option("--data", help="other data: a data set's name, an .npz file or a folder of images")
@click.option("--root", metavar="FOLDER", help="folder of a data set's files (default: data, where it downloads)")
@click.option("--image-size", type=at_least(8), help="side in pixels for a folder of images (default: as before)")
@click.option("--init", type=PATH, metavar="WEIGHTS", help="start from this weight file or exported network")
@click.option(
    "--recipe", type=click.Choice(tuple(PRESETS)), help="recipe instead of the config's (with --network: fast)"
)
@click.option("--epochs", type=at_least(1), help="epochs instead of the recipe's")
@click.option("--seed", type=at_least(0), help="seed of weights and shuffling instead of the config's")
@click.option("--out", type=PATH, metavar="FOLDER", help="where to write (default: results/train/<name>)")
def main(**given: Any) -> None:
    """Train one network alone and write config, weights, metrics and model card."""
    options = SimpleNamespace(**given)
    settings = _settings(options)
    print(f"network    {settings.architecture}")
    out = train_one(settings, options.out, init=options.init)
    print(f"written to {out}")


def _settings(options: SimpleNamespace) -> TrainSettings:
    """Return the settings of a training. Raises InputError for options that do not go together."""
    settings = _read_network(options)
    changed: dict[str, Any] = {"data": _choose_data(options, settings.data)}
    recipe = settings.recipe if options.recipe is None else Recipe(name=options.recipe)
    changed["recipe"] = recipe if options.epochs is None else recipe.model_copy(update={"epochs": options.epochs})
    if options.seed is not None:
        changed["seed"] = options.seed
    return settings.model_copy(update=changed)


def _read_network(options: SimpleNamespace) -> TrainSettings:
    """Return the network that --config, --network or --run names, with its data (if any) and recipe."""
    sources = [f"--{name}" for name in ("config", "network", "run") if getattr(options, name) is not None]
    if len(sources) != 1:
        raise InputError(f"give one of --config, --network and --run, but not {' and '.join(sources) or 'none'}")
    if (options.run is None) != (options.trial is None):
        raise InputError("--run and --trial must be given together, but only one is")
    if options.run is not None:
        return _settings_of_trial(RunDirectory(options.run), options.trial)
    if options.network is not None:
        if options.data is None:
            raise InputError("--network must have --data beside it, but has none")
        values = {"architecture": get(options.network), "data": None, "name": options.network}
        return TrainSettings.model_construct(**values, recipe=Recipe(), seed=0)
    return read_settings(options.config, TrainSettings if options.data is None else NetworkSettings)


def _settings_of_trial(run: RunDirectory, trial: int) -> TrainSettings:
    """Return the network of a run's trial, with the run's recipe for full trainings."""
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


def _choose_data(options: SimpleNamespace, before: DataConfig | None) -> DataConfig | None:
    """Return the data that --data names; without it those that the network was trained on before."""
    given, root, image_size = options.data, options.root, options.image_size
    if given is None:
        if root is not None:
            raise InputError("--root is only used with --data")
        if image_size is not None:
            raise InputError("--image-size is only used with --data and a folder of images")
        return before
    is_npz = Path(given).suffix == ".npz"
    if root is not None and given not in KNOWN_SETS:
        raise InputError(f"--root is only used with a data set's name, but --data is {given}")
    if image_size is not None and (given in KNOWN_SETS or is_npz):
        raise InputError(f"--image-size is only used with a folder of images, but --data is {given}")
    if given in KNOWN_SETS:
        return check_data({"name": given, "root": root})
    if is_npz:
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
