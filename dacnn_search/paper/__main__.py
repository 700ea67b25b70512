"""Reproduce the paper's tables and figures: `python -m dacnn_search.paper --table 1` trains and compares."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from dacnn_search.common.command import GPUS, PATH, at_least, command, option_group
from dacnn_search.common.errors import InputError
from dacnn_search.common.interrupt import Interrupted
from dacnn_search.paper.experiments import EXPERIMENTS, Conditions, Experiment, describe_experiments

EPILOG = """\
Without --table or --figure it lists the experiments and what they would cost. The paper's protocol is kept: the test
set is looked at every epoch, nothing is selected by it. An interrupted command goes on where it was when it is given
again. docs/paper.md tells more.
"""

experiments = option_group("What")
conditions = option_group("How, alike for every network")
places = option_group("Where")
networks = option_group("Trained networks, these or any other folder of one")


@command(epilog=EPILOG)
@experiments("--table", type=click.IntRange(1, 8), multiple=True, metavar="N...", help="tables 1 to 8")
@experiments("--figure", type=click.IntRange(4, 7), multiple=True, metavar="N...", help="figures 4 to 7")
@conditions("--seeds", type=at_least(1), default=1, help="trainings of each network")
@conditions("--scale", type=float, default=1.0, help="times all widths, such as 0.25")
@conditions("--epochs", type=at_least(1), help="instead of the recipe's")
@conditions("--subset", type=at_least(2), help="train on so many images only")
@conditions("--recipe", type=click.Choice(("paper", "fast")), default="paper")
@places("--data", multiple=True, metavar="[NAME=]FILE.npz", help="take a data set from a file")
@places("--root", default="data", metavar="FOLDER", help="folder of the downloaded data sets")
@places("--results", type=PATH, default=Path("results/paper"), metavar="FOLDER")
@places("--concurrency", type=at_least(1), help="trainings at once (default: what cores and GPUs hold)")
@places("--gpus-per-trial", type=GPUS, help="share of a GPU per training (default auto: as many as fit)")
@places("--address", help="of a running Ray cluster")
@places("--repair", is_flag=True, help="leave out damaged lines of the ledger")
@places("--verbose", is_flag=True, help="show Ray's messages")
@networks("--compress", type=PATH, multiple=True, metavar="FOLDER...", help="compare in size and accuracy")
@networks("--against", metavar="NAME", help="network of the zoo or folder to compare with (default: resnet18)")
@networks("--filters", type=PATH, multiple=True, metavar="FOLDER...", help="picture the filters")
@networks("--layers", type=at_least(0), multiple=True, metavar="N...", help="only these: 0 is the stem")
@networks("--channels", type=at_least(0), multiple=True, metavar="N...", help="only these (default: 5 of each layer)")
def main(**given: Any) -> None:
    """Train the networks of the DACNN paper and compare with its tables and figures."""
    options = SimpleNamespace(**given)
    _check_together(options)
    if options.compress:
        from dacnn_search.paper.compression import compression_report

        print(compression_report(options.compress, options.against or "resnet18", options.results / "networks"), end="")
    elif options.filters:
        from dacnn_search.paper.filters import FILTERS, picture_network, write_filters

        for folder in options.filters:
            name = folder.resolve().name
            pictures = picture_network(folder, options.layers, options.channels or FILTERS)
            print(write_filters(pictures, name, options.results / "filters" / name))
    else:
        _reproduce(options)


def _check_together(options: SimpleNamespace) -> None:
    """Raise InputError for options that would do nothing."""
    tasks = {"--table or --figure": options.table or options.figure}
    tasks |= {"--compress": options.compress, "--filters": options.filters}
    given = [name for name, value in tasks.items() if value]
    if len(given) > 1:
        raise InputError(f"one of {', '.join(tasks)} can be given at once, but {' and '.join(given)} are")
    for name, owner in (("against", "compress"), ("layers", "filters"), ("channels", "filters")):
        if getattr(options, name) and not getattr(options, owner):
            raise InputError(f"--{name} is only used with --{owner}")


def _reproduce(options: SimpleNamespace) -> None:
    conditions = Conditions(options.scale, options.recipe, options.epochs, options.subset, options.seeds)
    kinds = ("table", "figure")
    chosen = [EXPERIMENTS[f"{kind}-{number}"] for kind in kinds for number in getattr(options, kind)]
    if not chosen:
        print(describe_experiments(conditions))
        return
    sources = _sources(options.data, options.root, chosen)
    from dacnn_search.paper.reproduce import reproduce
    from dacnn_search.search.cluster.slots import Resources
    from dacnn_search.search.terminal import Terminal

    resources = Resources(options.address, options.concurrency, options.gpus_per_trial, options.verbose)
    with Terminal() as terminal:
        options.results.mkdir(parents=True, exist_ok=True)
        terminal.began(options.results)
        given = {"resources": resources, "repair": options.repair, "listener": terminal}
        try:
            folders = reproduce(chosen, conditions, sources, options.results, **given)
        except Interrupted as error:
            error.args = ("interrupted; the same command goes on with what is not done",)
            raise
        for folder in folders:
            terminal.say((folder / "comparison.md").read_text(encoding="utf-8"))
            terminal.say(f"page  {folder / 'page.html'}")


def _sources(files: Sequence[str], root: str, experiments: Sequence[Experiment]) -> dict[str, str]:
    """Return where each data set is: an .npz file, which needs no name if there is one data set, or the `root`."""
    sources = {name: root for experiment in experiments for name in experiment.datasets}
    for text in files:
        name, separator, path = text.partition("=")
        if not separator and len(sources) == 1:
            name, path = *sources, text
        if name not in sources:
            named = ", ".join(f"{name}=FILE.npz" for name in sources)
            raise InputError(f"--data must be one of {named} here, but is {text}")
        if Path(path).suffix != ".npz":
            raise InputError(f"--data must be an .npz file, but is {path}")
        sources[name] = path
    return sources


if __name__ == "__main__":
    main()
