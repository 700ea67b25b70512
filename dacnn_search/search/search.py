"""The search: an Optuna study proposes networks, Ray Tune's workers train them, the ledger records them.

`dacnn_search.search.driver` has the driver's side, which knows nothing of Ray; `dacnn_search.search.tune` lets
Tune ask it for trials and tell it results.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dacnn_search.common.files import lock, sweep
from dacnn_search.common.interrupt import orderly_end
from dacnn_search.common.units import format_duration
from dacnn_search.data.dataset import ImageData, load
from dacnn_search.search.cluster.ray_cluster import check_address, one_ray, start_ray
from dacnn_search.search.cluster.slots import demand_of_space
from dacnn_search.search.driver import Search
from dacnn_search.search.listener import Listener
from dacnn_search.search.request import Task, prepare
from dacnn_search.search.tracking import Tracking
from dacnn_search.search.tune import drive
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.resume import check_nothing_lost, extend_run, forget_lost
from dacnn_search.storage.run_directory import PROPOSAL, TRIAL, RunDirectory

__all__ = ["run_search", "run_task"]


def run_search(
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
    """Do a search that has been prepared; see `run_search`."""
    space, run = task.space, task.run
    listener = listener or Listener()
    ray_options = (address, task.settings.concurrency, task.settings.gpus_per_trial, verbose)
    with one_ray():
        with orderly_end(run.folder if run else None):
            check_address(address)
            data = load(space.settings.data).without_test()
            if run is None:
                demand = demand_of_space(space, task.settings.trials, data.nbytes)
                with start_ray(*ray_options, demand):  # what can't be had is refused before a folder is made
                    run = _new_run(task, data)
        with lock(run.folder), orderly_end(run.folder) as stop:
            sweep(run.folder)
            listener.began(run.folder)
            with _opened(task, run, listener) as state:
                if state.over:
                    _accept(task, run)
                    listener.say(f"nothing to search: {_why_over(state)}")
                    state.end("finished")
                    return run
                demand = demand_of_space(space, task.settings.trials - state.finished, data.nbytes, run.records)
                with start_ray(*ray_options, demand) as slots:
                    _accept(task, run)
                    callbacks = tracking.begin(run, listener.say) if tracking else []
                    drive(state, data, slots, stop, verbose, callbacks)
    return run


def _new_run(task: Task, data: ImageData) -> RunDirectory:
    settings = task.settings.model_dump(mode="json")
    return RunDirectory.create(task.results, task.name, task.space, data.class_names, settings)


@contextlib.contextmanager
def _opened(task: Task, run: RunDirectory, listener: Listener) -> Iterator[Search]:
    """The state of a search whose ledgers have been opened, checked and, if it is to be, extended."""
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
            _accept(task, run)
            listener.say(f"extended: {kept} trials fit the new space, {dropped} do not and are left out")
        state = Search(run, task.space, task.settings, ledger, proposed, listener)
        try:
            yield state
        finally:
            state.close()


def _accept(task: Task, run: RunDirectory) -> None:
    """Keep the settings, and the file that says them, for those who resume: in this order, as an edited file counts
    only until it is kept."""
    run.set_environment(**task.settings.model_dump(mode="json"))
    run.set_space(task.space)


def _why_over(state: Search) -> str:
    """What keeps a search from going on."""
    if state.finished >= state.settings.trials:
        return f"{state.finished} of {state.settings.trials} trials have ended"
    return f"the time budget of {format_duration(state.settings.time_budget or 0.0)} is used up"
