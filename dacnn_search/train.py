"""Train one network alone: `python -m dacnn_search.train --network dacnn18-mix --data cifar10`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dacnn_search.common.command import command, whole
from dacnn_search.common.errors import InputError
from dacnn_search.data.dataset import DataConfig
from dacnn_search.export.from_config import choose_data, settings_of_trial, train_one
from dacnn_search.network.zoo import get
from dacnn_search.space.settings import TrainSettings
from dacnn_search.space.validation import read_settings
from dacnn_search.training.recipe import PRESETS, Recipe

EPILOG = """\
The network is trained on training and validation images together and scored on the test images once, at the end.
With --init it starts from stored weights, on the same data or, with --data, on others: a new classifier is made if
the number of classes differs.
"""


class _AnyData(TrainSettings):
    """A config whose data are not used, and may be missing."""

    data: DataConfig | None = None  # type: ignore[assignment]


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    options = _parser().parse_args(arguments)
    settings = _settings(options)
    print(f"network    {settings.architecture}")
    out = train_one(settings, options.out, init=options.init)
    print(f"written to {out}")


def _settings(options: argparse.Namespace) -> TrainSettings:
    if (options.run is None) != (options.trial is None):
        raise InputError("--run and --trial must be given together, but only one is")
    if options.run is not None:
        from dacnn_search.storage.run_directory import RunDirectory

        settings = settings_of_trial(RunDirectory(options.run), options.trial)
    elif options.network is not None:
        if options.data is None:
            raise InputError("--network must have --data beside it, but has none")
        values = {"architecture": get(options.network), "data": None, "name": options.network}
        settings = TrainSettings.model_construct(**values, recipe=Recipe(), seed=0)
    else:
        model = TrainSettings if options.data is None else _AnyData
        settings = read_settings(options.config, model)[0]
    changed: dict[str, Any] = {}
    if options.data is not None:
        changed["data"] = choose_data(
            options.data,
            root=options.root,
            image_size=options.image_size,
            before=settings.data,
            folder=options.config and options.config.parent,
        )
    elif options.root is not None:
        raise InputError("--root is only used with --data")
    elif options.image_size is not None:
        raise InputError("--image-size is only used with --data and a folder of images")
    if options.recipe is not None:
        settings = settings.model_copy(update={"recipe": Recipe(name=options.recipe)})
    if options.epochs is not None:
        changed["recipe"] = settings.recipe.model_copy(update={"epochs": options.epochs})
    if options.seed is not None:
        changed["seed"] = options.seed
    return settings.model_copy(update=changed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dacnn_search.train",
        description="Train one network alone and write config, weights, metrics and model card.",
        epilog=EPILOG,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, help="config.yaml of an exported network, or one like it")
    what.add_argument("--network", metavar="NAME", help="a network of the paper, such as dacnn18-mix (docs/paper.md)")
    what.add_argument("--run", type=Path, metavar="FOLDER", help="run directory of a search, together with --trial")
    parser.add_argument("--trial", type=whole(0), help="train the network of this trial of the run")
    parser.add_argument("--data", help="other data: a data set's name, an .npz file or a folder of images")
    parser.add_argument("--root", metavar="FOLDER", help="of a data set's files (default: data, where it downloads)")
    parser.add_argument(
        "--image-size", type=whole(8), help="side in pixels for a folder of images (default: as before)"
    )
    parser.add_argument("--init", type=Path, metavar="WEIGHTS", help="start from this weight file or exported network")
    parser.add_argument("--recipe", choices=tuple(PRESETS), help="instead of the config's (with --network: fast)")
    parser.add_argument("--epochs", type=whole(1), help="instead of the recipe's")
    parser.add_argument("--seed", type=whole(0), help="of weights and shuffling, instead of the config's")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: results/train/<name>)")
    return parser


if __name__ == "__main__":
    main()
