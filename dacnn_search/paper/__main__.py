"""The paper's tables and figures: `python -m dacnn_search.paper --table 1` trains what they need and compares."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dacnn_search.common.command import command, parsed, share, whole
from dacnn_search.common.errors import InputError
from dacnn_search.paper.experiments import EXPERIMENTS, Conditions, Experiment, describe_experiments

EPILOG = """\
Without --table or --figure it lists the experiments and what they would cost. The paper's protocol is kept: the test
set is looked at every epoch, nothing is selected by it. An interrupted command goes on where it was when it is given
again. docs/paper.md tells more.
"""
TABLES, FIGURES = range(1, 9), range(4, 8)


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and do what it says."""
    options = _parser().parse_args(arguments)
    _check_together(options)
    if options.compress:
        from dacnn_search.paper.compression import compression_report

        print(compression_report(options.compress, options.against or "resnet18", options.results / "networks"), end="")
    elif options.filters:
        from dacnn_search.paper.filters import FILTERS, visualise, write_filters
        from dacnn_search.training.trainer import prepare_process

        prepare_process(threads=1)  # a few images at a time are too little for more
        for folder in options.filters:
            out = options.results / "filters" / folder.resolve().name
            pictures = visualise(folder, layers=options.layers, filters=options.channels or FILTERS)
            print(write_filters(pictures, out))
    else:
        _reproduce(options)


def _check_together(options: argparse.Namespace) -> None:
    """Raise InputError for options that would do nothing."""
    tasks = {"--table or --figure": options.table or options.figure}
    tasks |= {f"--{name}": getattr(options, name) for name in ("compress", "filters")}
    given = [name for name, value in tasks.items() if value]
    if len(given) > 1:
        raise InputError(f"one of {', '.join(tasks)} can be given at once, but {' and '.join(given)} are")
    for name, owner in (("against", "compress"), ("layers", "filters"), ("channels", "filters")):
        if getattr(options, name) is not None and not getattr(options, owner):
            raise InputError(f"--{name} is only used with --{owner}")


def _reproduce(options: argparse.Namespace) -> None:
    conditions = Conditions(options.scale, options.recipe, options.epochs, options.subset, options.seeds)
    chosen = [EXPERIMENTS[f"table-{number}"] for number in options.table]
    chosen += [EXPERIMENTS[f"figure-{number}"] for number in options.figure]
    if not chosen:
        print(describe_experiments(conditions))
        return
    files = _files(options.data, chosen)
    from dacnn_search.paper.reproduce import Source, reproduce
    from dacnn_search.search.terminal import Terminal

    with Terminal() as terminal:
        options.results.mkdir(parents=True, exist_ok=True)
        terminal.began(options.results)
        folders = reproduce(
            chosen,
            conditions,
            Source(options.root, files),
            options.results,
            address=options.address,
            concurrency=options.concurrency,
            gpus_per_trial=options.gpus_per_trial,
            repair=options.repair,
            listener=terminal,
            verbose=options.verbose,
        )
        for folder in folders:
            terminal.say((folder / "comparison.md").read_text(encoding="utf-8"))
            terminal.say(f"page  {folder / 'page.html'}")


def _files(given: Sequence[str], experiments: Sequence[Experiment]) -> dict[str, str]:
    """The .npz files by data set; one without a name is for the only data set there is."""
    wanted = list(dict.fromkeys(member.dataset for experiment in experiments for member in experiment.members))
    files = {}
    for text in given:
        name, separator, path = text.partition("=")
        if not separator and len(wanted) == 1:
            name, path = wanted[0], text
        if name not in wanted:
            named = ", ".join(f"{name}=FILE.npz" for name in wanted)
            raise InputError(f"--data must be one of {named} here, but is {text}")
        if Path(path).suffix != ".npz":
            raise InputError(f"--data must be an .npz file, but is {path}")
        files[name] = path
    return files


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dacnn_search.paper",
        description="Train the networks of the DACNN paper and compare with its tables and figures.",
        epilog=EPILOG,
    )
    what = parser.add_argument_group("what")
    what.add_argument("--table", type=int, nargs="+", default=[], choices=TABLES, metavar="N", help="tables 1 to 8")
    what.add_argument("--figure", type=int, nargs="+", default=[], choices=FIGURES, metavar="N", help="figures 4 to 7")
    how = parser.add_argument_group("how, alike for every network")
    how.add_argument("--seeds", type=whole(1), default=1, help="trainings of each network (1)")
    how.add_argument("--scale", type=float, default=1.0, help="times all widths, such as 0.25 (1)")
    how.add_argument("--epochs", type=whole(1), help="instead of the recipe's")
    how.add_argument("--subset", type=whole(2), help="train on so many images only")
    how.add_argument("--recipe", choices=("paper", "fast"), default="paper", help="(paper)")
    where = parser.add_argument_group("where")
    where.add_argument(
        "--data", action="append", default=[], metavar="[NAME=]FILE.npz", help="take a data set from a file"
    )
    where.add_argument("--root", default="data", help="folder of the downloaded data sets (data)")
    where.add_argument("--results", type=Path, default=Path("results/paper"), help="(results/paper)")
    where.add_argument("--concurrency", type=whole(1), help="trainings at once (default: what cores and GPUs hold)")
    where.add_argument(
        "--gpus-per-trial", type=parsed(share), help="share of a GPU per training (default auto: as many as fit)"
    )
    where.add_argument("--address", help="of a running Ray cluster")
    where.add_argument("--repair", action="store_true", help="leave out damaged lines of the ledger")
    where.add_argument("--verbose", action="store_true", help="show Ray's messages")
    other = parser.add_argument_group("trained networks, these or any other folder of one")
    other.add_argument("--compress", type=Path, nargs="+", metavar="FOLDER", help="compare in size and accuracy")
    other.add_argument("--against", metavar="NAME", help="network of the zoo or folder to compare with (resnet18)")
    other.add_argument("--filters", type=Path, nargs="+", metavar="FOLDER", help="picture the filters")
    other.add_argument("--layers", type=whole(0), nargs="+", metavar="N", help="only these: 0 is the stem")
    other.add_argument("--channels", type=whole(0), nargs="+", metavar="N", help="only these (5 of each layer)")
    return parser


if __name__ == "__main__":
    main()
