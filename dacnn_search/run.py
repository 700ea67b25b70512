"""The main job: search a space, retrain the front, export it. `python -m dacnn_search.run --space FILE`."""

import argparse
import contextlib
import importlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from dacnn_search.common.command import command, parsed, share, whole
from dacnn_search.common.interrupt import orderly_end
from dacnn_search.common.units import parse_duration
from dacnn_search.search.request import prepare

EPILOG = """\
A run directory results/<name>/ keeps everything. A search that was interrupted goes on with --resume; with more
--trials than before a finished one does as well. The settings of the search stand in the YAML file; what is given here
counts instead.
"""


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    options = _parser().parse_args(arguments)
    names = ("trials", "time_budget", "sampler", "stopping", "confirm", "seed", "concurrency", "gpus_per_trial")
    with contextlib.ExitStack() as to_end:
        with orderly_end():
            task = prepare(
                options.space,
                resume=options.resume,
                results=options.results,
                name=options.name,
                extend=options.extend,
                repair=options.repair,
                settings={name: getattr(options, name) for name in names},
            )

            from dacnn_search.search.tracking import Tracking

            tracking = Tracking(options.tensorboard, options.wandb, options.mlflow)
            from dacnn_search.search.cluster.ray_cluster import early_ray, one_ray

            to_end.enter_context(one_ray())
            if task.run is None:  # Ray will be needed
                with _meanwhile("dacnn_search.search.report"):
                    early_ray(options.address, task.settings.concurrency, options.verbose)
            from dacnn_search.job import run_job

        run_job(task, address=options.address, verbose=options.verbose, tracking=tracking)


@contextlib.contextmanager
def _meanwhile(module: str) -> Iterator[None]:
    """Import a module in another thread, while this one waits for Ray's processes."""
    thread = threading.Thread(target=importlib.import_module, args=(module,))
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dacnn_search.run",
        description="Search a space of weight-sharing CNNs for the Pareto front of accuracy against parameters, "
        "retrain the front in full and export it.",
        epilog=EPILOG,
    )
    parser.add_argument("--space", type=Path, help="YAML file, such as search_spaces/default.yaml")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="run directory of a search to go on with")
    parser.add_argument("--extend", action="store_true", help="with both: go on in that space, with what fits it")
    parser.add_argument("--repair", action="store_true", help="with --resume: leave out damaged lines of the ledger")
    parser.add_argument("--name", help="name of the run directory (default: the space's, numbered if taken)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where run directories are (results)")
    search = parser.add_argument_group("search")
    search.add_argument(
        "--trials", type=whole(1), help="end after this many trials, those stopped early or failed counted"
    )
    search.add_argument(
        "--time-budget", type=parsed(parse_duration), metavar="TIME", help="start no trial after 90s, 30m, 2h, ..."
    )
    search.add_argument("--sampler", help="auto, tpe, nsga2, nsga3, gp, random, qmc or surrogate")
    search.add_argument("--stopping", help="auto, none, front or halving: which trials end early")
    search.add_argument(
        "--confirm", type=whole(0), metavar="N", help="train what reaches the front by N further seeds; the mean counts"
    )
    search.add_argument("--seed", type=whole(0), help="of proposals, weights and shuffling")
    resources = parser.add_argument_group("resources")
    resources.add_argument("--concurrency", type=whole(1), help="trials at once (default: what cores and GPUs hold)")
    resources.add_argument(
        "--gpus-per-trial", type=parsed(share), help="share of a GPU per trial (default auto: as many as fit)"
    )
    resources.add_argument("--address", help="of a running Ray cluster (default: Ray on this machine)")
    tracking = parser.add_argument_group("tracking")
    tracking.add_argument("--tensorboard", action="store_true", help="learning curves in the run's folder tensorboard/")
    tracking.add_argument("--wandb", metavar="PROJECT", help="of Weights & Biases, to report every trial to")
    tracking.add_argument("--mlflow", metavar="URI", help="such as sqlite:///mlflow.db, to report every trial to")
    parser.add_argument("--verbose", action="store_true", help="show what Ray says")
    return parser


if __name__ == "__main__":
    main()
