"""The search: an Optuna study proposes networks, Ray Tune's workers train them, the ledger records them.

`dacnn_search.searches.state` has the driver's side, which knows nothing of Ray; `dacnn_search.searches.tuning` lets
Tune ask it for trials and tell it results.
"""

from pathlib import Path
from typing import Any

from dacnn_search.cluster import check_address, start_ray
from dacnn_search.data import load
from dacnn_search.files import lock, sweep
from dacnn_search.ledger import Ledger
from dacnn_search.packing import demand_of_space
from dacnn_search.run_directory import PROPOSAL, TRIAL, RunDirectory
from dacnn_search.runs.extension import check_nothing_lost, extend_run, forget_lost
from dacnn_search.runs.progress import Listener
from dacnn_search.searches.state import Search
from dacnn_search.searches.tracking import Tracking
from dacnn_search.searches.tuning import drive
from dacnn_search.signals import orderly_end
from dacnn_search.space import SearchSpace
from dacnn_search.task import Task, prepare

__all__ = ["run_task", "search"]


def search(
    space: SearchSpace | Path | str | None = None,
    *,
    resume: Path | str | None = None,
    results: Path | str = "results",
    name: str | None = None,
    extend: bool = False,
    repair: bool = False,
    address: str | None = None,
    listener: Listener | None = None,
    verbose: bool = False,
    **settings: Any,
) -> RunDirectory:
    """Search a space for the Pareto front of accuracy against parameters, and return its run directory.

    space: a `SearchSpace` or its YAML file; or `resume`: the run directory of a search to go on with. Both: the run
    must be of that space, or, with `extend`, gets its networks and constraints and keeps the trials that fit.
    results, name: the run directory is results/name, by default named by the space.
    repair: leave out damaged lines of the ledger, which otherwise are an error.
    address: of a Ray cluster; by default Ray is started on this machine.
    settings: `trials`, `time_budget`, `sampler`, `stopping`, `confirm`, `seed`, `concurrency`, `gpus_per_trial`
    instead of the space's.

    Raises InputError for anything wrong with space, data or folder, before any training; signals.Interrupted after
    SIGINT or SIGTERM; DacnnSearchError if trials fail one after the other for one reason.
    """
    task = prepare(space, resume=resume, results=results, name=name, extend=extend, repair=repair, settings=settings)
    return run_task(task, address=address, listener=listener, verbose=verbose)


def run_task(
    task: Task,
    *,
    address: str | None = None,
    listener: Listener | None = None,
    verbose: bool = False,
    tracking: Tracking | None = None,
) -> RunDirectory:
    """Do a search that has been prepared; see `search`."""
    space, settings, run = task.space, task.settings, task.run
    listener = listener or Listener()
    with orderly_end(run.folder if run else None):
        check_address(address)
        data = load(space.settings.data).without_test()
        if run is None:
            chosen = settings.model_dump(mode="json")
            run = RunDirectory.create(task.results, task.name, space, data.class_names, chosen)
    with lock(run.folder), orderly_end(run.folder) as stop:
        sweep(run.folder)
        listener.began(run.folder)
        with (
            Ledger.open(run.trials_file, TRIAL, repair=task.repair) as ledger,
            Ledger.open(run.proposals_file, PROPOSAL, repair=task.repair) as proposed,
        ):
            if task.repair:
                forget_lost(proposed, len(ledger.records))
            else:
                check_nothing_lost(run, ledger.records, proposed.records)
            if task.extension is not None:
                kept, dropped = extend_run(run, task.extension, ledger, proposed)
                listener.say(f"extended: {kept} trials fit the new space, {dropped} do not and are left out")
            run.set_environment(**settings.model_dump(mode="json"))
            callbacks = tracking.begin(run, listener.say) if tracking else []
            state = Search(run, space, settings, ledger, proposed, listener)
            try:
                if not state.over:
                    demand = demand_of_space(space, settings.trials - state.finished, data.nbytes, ledger.records)
                    with start_ray(address, settings.concurrency, settings.gpus_per_trial, verbose, demand) as slots:
                        drive(state, data, slots, stop, verbose, callbacks)
            finally:
                state.close()
    return run
