"""The main job in order: search, retraining, export, dashboard, and what is told of it in the terminal."""

from dacnn_search.common.interrupt import orderly_end
from dacnn_search.dashboard.page import write_dashboard, write_index
from dacnn_search.export.exporter import write_best
from dacnn_search.search.report import write_end
from dacnn_search.search.request import Task
from dacnn_search.search.retrain import retrain
from dacnn_search.search.search import run_task
from dacnn_search.search.terminal import Terminal, front_table
from dacnn_search.search.tracking import Tracking
from dacnn_search.storage.run_directory import RunDirectory

__all__ = ["run_job"]


def run_job(task: Task, *, address: str | None, verbose: bool, tracking: Tracking) -> RunDirectory:
    """Do what `dacnn_search.run` promises, within `one_ray`, and return the run directory. Raises what `search` and
    `retrain` raise.

    address: of a Ray cluster; by default Ray is started on this machine.
    """
    with Terminal() as terminal:
        run = run_task(task, address=address, listener=terminal, verbose=verbose, tracking=tracking)
        if run.front and (run.space.settings.retrain.top or run.networks):
            retrain(
                run,
                address=address,
                concurrency=task.settings.concurrency,
                gpus_per_trial=task.settings.gpus_per_trial,
                repair=task.repair,
                listener=terminal,
                verbose=verbose,
            )
        with orderly_end(run.folder):
            best = write_best(run)
            write_end(run)
            dashboard = write_dashboard(run.folder)
            write_index(run.folder.parent)
        terminal.table(front_table(run.front, run.networks))
        if best:
            terminal.say(f"networks   {best[0].parent}")
        terminal.say(f"dashboard  {dashboard}")
    return run
