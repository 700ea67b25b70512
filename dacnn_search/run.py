"""The main job: search a space, retrain the front, export it. `python -m dacnn_search.run --space FILE`."""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dacnn_search.common.command import command, parsed, share, whole
from dacnn_search.common.interrupt import orderly_end
from dacnn_search.common.units import parse_duration
from dacnn_search.search.cluster.slots import Resources
from dacnn_search.search.request import SearchRequest, prepare

if TYPE_CHECKING:
    from dacnn_search.search.tracking import Tracking

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
    with orderly_end():
        request = prepare(
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
    run_job(request, request.resources(options.address, options.verbose), tracking)


def run_job(request: SearchRequest, resources: Resources, tracking: "Tracking") -> None:
    """Search, retrain the front, export it, write the dashboard, and show all of it in the terminal.

    Raises what `run_search` and `retrain` raise.
    """
    with contextlib.ExitStack() as to_end:
        with orderly_end():
            from dacnn_search.search.cluster.ray_cluster import ray_session

            session = to_end.enter_context(ray_session(resources))
            if request.run is None:  # else there may be nothing to search
                session.start()  # its workers get ready while this process imports the rest
            from dacnn_search.dashboard.page import write_dashboard, write_index
            from dacnn_search.export.exporter import write_best
            from dacnn_search.search.report import write_end
            from dacnn_search.search.retrain import retrain_in_session
            from dacnn_search.search.search import search_in_session
            from dacnn_search.search.terminal import Terminal, front_table

        terminal = to_end.enter_context(Terminal())
        run = search_in_session(request, session, listener=terminal, tracking=tracking)
        if run.front and (run.space.settings.retrain.top or run.networks):
            retrain_in_session(run, session, repair=request.repair, listener=terminal)
        with orderly_end(run.folder):
            best = write_best(run)
            write_end(run)
            dashboard = write_dashboard(run.folder)
            write_index(run.folder.parent)
        terminal.table(front_table(run.front, run.networks))
        if best:
            terminal.say(f"networks   {best[0].parent}")
        terminal.say(f"dashboard  {dashboard}")


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
