"""The main job: search a space, retrain the front, export it. `python -m dacnn_search.run --space FILE`."""

import contextlib
import importlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dacnn_search.common.command import DURATION, EPOCHS, GPUS, PATH, at_least, command, option_group
from dacnn_search.common.interrupt import orderly_end
from dacnn_search.search.cluster.slots import Resources
from dacnn_search.search.request import SearchRequest, prepare

if TYPE_CHECKING:
    from dacnn_search.search.tracking import Tracking

EPILOG = """\
A run directory results/<name>/ keeps everything. --resume continues a search that was interrupted, or with more
--trials one that was finished. Options given here override the settings of the search in the YAML file.
"""

search = option_group("Search")
resources = option_group("Resources")
trackers = option_group("Tracking")


@command(epilog=EPILOG)
@click.option("--space", type=PATH, metavar="FILE", help="YAML file, such as search_spaces/default.yaml")
@click.option("--resume", type=PATH, metavar="FOLDER", help="run directory of a search to go on with")
@click.option(
    "--extend", is_flag=True, help="with --resume and --space: go on in the new space with the trials that fit it"
)
@click.option("--repair", is_flag=True, help="with --resume: leave out damaged lines of the ledger")
@click.option("--name", help="name of a new run directory (default: the space's, numbered if taken)")
@click.option("--results", type=PATH, metavar="FOLDER", help="folder of a new run directory (default: results)")
@search("--objective", help="parameters or flash: what is kept small, beside the error")
@search("--trials", type=at_least(1), help="end after this many trials, those stopped early or failed counted")
@search("--time-budget", type=DURATION, help="start no trial after 90s, 30m, 2h, ...")
@search("--sampler", help="surrogate (auto), tpe, nsga2, nsga3, gp, random or qmc")
@search("--prior", help="auto or none: what the sampler surrogate knows before the first trial")
@search(
    "--fidelity", type=EPOCHS, help="auto, none, or epochs of a first cycle, after which the sampler judges each trial"
)
@search("--stopping", help="auto, none, front or halving: which trials end early")
@search("--confirm", type=at_least(0), help="train what reaches the front by so many further seeds; the mean counts")
@search("--seed", type=at_least(0), help="seed of proposals, weights and shuffling")
@resources("--concurrency", type=at_least(1), help="trials at once (default: as many as cores and GPUs hold)")
@resources("--gpus-per-trial", type=GPUS, help="share of a GPU per trial (default auto: as many as fit)")
@resources("--address", help="address of a running Ray cluster (default: Ray on this machine)")
@trackers("--tensorboard", is_flag=True, help="write learning curves to the run's folder tensorboard/")
@trackers("--wandb", metavar="PROJECT", help="report every trial to this project of Weights & Biases")
@trackers("--mlflow", metavar="URI", help="report every trial to this MLflow server, such as sqlite:///mlflow.db")
@click.option("--verbose", is_flag=True, help="show Ray's messages")
def main(
    space: Path | None,
    resume: Path | None,
    extend: bool,
    repair: bool,
    name: str | None,
    results: Path | None,
    address: str | None,
    verbose: bool,
    tensorboard: bool,
    wandb: str | None,
    mlflow: str | None,
    **settings: Any,
) -> None:
    """Search a space of weight-sharing CNNs for the Pareto front of accuracy against size, retrain the front in
    full and export it."""
    with orderly_end():
        request = prepare(
            space, resume=resume, results=results, name=name, extend=extend, repair=repair, settings=settings
        )
        tracking = None
        if tensorboard or wandb is not None or mlflow is not None:
            from dacnn_search.search.tracking import Tracking  # not at the top: it imports Ray Tune

            tracking = Tracking(tensorboard, wandb, mlflow)
    run_job(request, request.resources(address, verbose), tracking)


def run_job(request: SearchRequest, resources: Resources, tracking: "Tracking | None") -> None:
    """Search, retrain the front, export it, write the dashboard, and show all of it in the terminal.

    Raises what `run_search` and `retrain` raise.
    """
    with contextlib.ExitStack() as to_end:
        with orderly_end():
            from dacnn_search.search.cluster.ray_cluster import RaySession

            session = to_end.enter_context(RaySession(resources))
            if request.run is None:  # else there may be nothing to search
                # Most of the rest is imported while Ray starts. Both change the filters of warnings for a time.
                with warnings.catch_warnings(), ThreadPoolExecutor(1) as thread:
                    thread.submit(importlib.import_module, "dacnn_search.search.report")
                    session.start()
            from dacnn_search.dashboard.page import write_dashboard, write_index
            from dacnn_search.export.best import write_best
            from dacnn_search.search.report import write_end
            from dacnn_search.search.retrain import retrain_in_session
            from dacnn_search.search.search import search_in_session
            from dacnn_search.search.terminal import Terminal, front_table

        terminal = to_end.enter_context(Terminal())
        run = search_in_session(request, session, listener=terminal, tracking=tracking)
        settings = run.space.settings.retrain
        if run.front and (settings.top or settings.budgets or run.networks):
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


if __name__ == "__main__":
    main()
