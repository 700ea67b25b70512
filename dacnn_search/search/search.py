"""The search: an Optuna study proposes networks, Ray Tune's workers train them, the ledger records them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dacnn_search.common.files import lock, sweep
from dacnn_search.common.interrupt import orderly_end
from dacnn_search.common.units import format_duration
from dacnn_search.dashboard.tensorboard import write_tensorboard
from dacnn_search.data.dataset import load
from dacnn_search.search.cluster.ray_cluster import RaySession
from dacnn_search.search.cluster.slots import demand_of_space, draw_networks
from dacnn_search.search.cluster.tasks import fix_run_precision
from dacnn_search.search.driver import Search
from dacnn_search.search.listener import Listener
from dacnn_search.search.remaining import expected_seconds
from dacnn_search.search.request import SearchRequest, prepare
from dacnn_search.search.tracking import Tracking
from dacnn_search.search.tune import TrialWorker, drive
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.resume import check_nothing_lost, extend_run, forget_lost
from dacnn_search.storage.run_directory import PROPOSAL, TRIAL, RunDirectory


def run_search(
    space: SearchSpace | Path | str | None = None,
    *,
    resume: Path | str | None = None,
    results: Path | str | None = None,
    name: str | None = None,
    extend: bool = False,
    repair: bool = False,
    address: str | None = None,
    listener: Listener | None = None,
    verbose: bool = False,
    **settings: Any,
) -> RunDirectory:
    """Search a space for the Pareto front of accuracy against size, and return the run directory.

    Args:
        space: The search space or its YAML file.
        resume: The run directory of a search to go on with. If `space` is given too, the run must be of that space.
        results: The folder of a new run directory. By default `results`.
        name: The name of a new run directory. By default the space's, numbered if it is taken.
        extend: Give the resumed run the networks and constraints of `space`, and keep the trials that fit.
        repair: Leave out damaged lines of the resumed run's ledger, which otherwise are an error.
        address: The address of a running Ray cluster. By default Ray is started on this machine.
        listener: Is told what happens.
        verbose: Show what Ray prints.
        settings: `objective`, `trials`, `time_budget`, `sampler`, `prior`, `fidelity`, `stopping`, `confirm`, `seed`,
            `concurrency`, `gpus_per_trial` instead of the space's.

    Raises InputError for anything wrong with space, data or folder, before any training; Interrupted after SIGINT or
    SIGTERM; DacnnSearchError if trials fail one after the other for one reason.
    """
    request = prepare(space, resume=resume, results=results, name=name, extend=extend, repair=repair, settings=settings)
    with RaySession(request.resources(address, verbose)) as session:
        return search_in_session(request, session, listener=listener or Listener())


def search_in_session(
    request: SearchRequest,
    session: RaySession,
    *,
    listener: Listener,
    tracking: Tracking | None = None,
    trainable: type[TrialWorker] = TrialWorker,
) -> RunDirectory:
    """Do a search that has been prepared; see `run_search` and, for `trainable`, `tune.drive`."""
    space, settings, run = request.space, request.settings, request.run
    with orderly_end(run.folder if run else None):
        data = load(space.settings.data).without_test()
        if run is None:
            session.slots(demand_of_space(space, settings.trials, data.nbytes))  # refuses before a folder is made
            run = RunDirectory.create(
                request.results, request.name, space, data.class_names, settings.model_dump(mode="json")
            )
    with lock(run.folder), orderly_end(run.folder) as stop:
        for folder in (run.folder, run.checkpoints, run.folder / "retrained", run.folder / "tensorboard"):
            sweep(folder)
        listener.began(run.folder)
        with _opened_search(request, run, listener) as search:
            if search.over:
                _keep_settings(request, run)
                over = f"{search.finished} of {settings.trials} trials have ended"
                if search.finished < settings.trials:
                    over = f"the time budget of {format_duration(settings.time_budget or 0.0)} is used up"
                listener.say(f"nothing to search: {over}")
                search.end("finished")
                return run
            slots = session.slots(demand_of_space(space, settings.trials - search.finished, data.nbytes, run.records))
            _keep_settings(request, run)
            search.looks_ahead = slots.concurrency > 1  # a single worker gains more from a better informed proposal
            networks = draw_networks(space)
            fixed = fix_run_precision(run, search.recipe, networks, slots)
            search.look_ahead()  # while a worker measures
            search.recipe = fixed()
            seconds = expected_seconds(run, space, search.recipe.precision, networks)
            search.remaining.expect(seconds, slots.concurrency)
            callbacks = tracking.begin(run, listener.say) if tracking else []
            verbose = session.resources.verbose
            drive(search, data, slots, stop, verbose=verbose, callbacks=callbacks, trainable=trainable)
    return run


@contextlib.contextmanager
def _opened_search(request: SearchRequest, run: RunDirectory, listener: Listener) -> Iterator[Search]:
    """Open, check and, if asked for, repair and extend the ledgers of a run; provide the state of its search."""
    with (
        Ledger.open(run.trials_file, TRIAL, repair=request.repair) as ledger,
        Ledger.open(run.proposals_file, PROPOSAL, repair=request.repair) as proposed,
    ):
        if request.repair:
            forget_lost(proposed, proposed.records, len(ledger.records))
        else:
            check_nothing_lost(run, ledger.records, proposed.records)
        if request.replaced is not None:
            kept, dropped = extend_run(run, request.replaced, request.space, ledger, proposed, repair=request.repair)
            _keep_settings(request, run)
            if (run.folder / "tensorboard").is_dir():  # it names trials by their numbers, which may be given out again
                write_tensorboard(run.folder, ledger.records, anew=True)
            listener.say(f"extended: {kept} trials fit the new space, {dropped} do not and are left out")
        search = Search(run, request.space, request.settings, ledger, proposed, listener)
        try:
            yield search
        finally:
            search.close()


def _keep_settings(request: SearchRequest, run: RunDirectory) -> None:
    """Write the settings and the space file for those who resume: in this order, as edits count until they are kept."""
    run.set_environment(**request.settings.model_dump(mode="json"))
    run.set_space(request.space)
