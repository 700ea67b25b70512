"""The search: an Optuna study proposes networks, Ray Tune's workers train them, the ledger records them.

Who does what: `Search` is the driver's side and knows nothing of Ray; `TuneSearcher` lets Tune ask it for trials and
tell it results. A trial is in the ledger, on disk, before anyone else hears of it.
"""

import hashlib
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dacnn_search.cluster import Slots, start_ray  # sets what Ray reads when it is imported
from dacnn_search.data import ImageData, load
from dacnn_search.derived import Derived
from dacnn_search.errors import DacnnSearchError, InputError, RunDirectoryError
from dacnn_search.files import lock
from dacnn_search.ledger import Ledger
from dacnn_search.pareto import front_of
from dacnn_search.progress import Listener, RunningTrial, Snapshot
from dacnn_search.proposals import Proposal, Proposals
from dacnn_search.run_directory import RunDirectory, now
from dacnn_search.settings import SearchSettings, validate
from dacnn_search.signals import orderly_end
from dacnn_search.space import SearchSpace

from ray import tune  # isort: skip
from ray.tune.search import Searcher  # isort: skip

__all__ = ["Search", "search"]

SAME_FAILURES = 5  # in a row, without a success between: the cause is not the networks


def search(
    space: SearchSpace | Path | str | None = None,
    *,
    resume: Path | str | None = None,
    results: Path | str = "results",
    name: str | None = None,
    address: str | None = None,
    listener: Listener | None = None,
    verbose: bool = False,
    **settings: Any,
) -> RunDirectory:
    """Search a space for the Pareto front of accuracy against parameters, and return its run directory.

    space: a `SearchSpace` or its YAML file; or `resume`: the run directory of a search to go on with.
    results, name: the run directory is results/name, by default named by the space.
    address: of a Ray cluster; by default Ray is started on this machine.
    settings: `trials`, `time_budget`, `sampler`, `seed`, `concurrency`, `gpus_per_trial` instead of the space's.

    Raises InputError for anything wrong with space, data or folder, before any training; signals.Interrupted after
    SIGINT or SIGTERM; DacnnSearchError if trials fail one after the other for one reason.
    """
    if (space is None) == (resume is None):
        raise InputError("a search needs a space or a run directory to resume, one of the two")
    run = None if resume is None else RunDirectory(resume)
    if run is not None:
        space = run.space
    elif not isinstance(space, SearchSpace):
        space = SearchSpace.from_yaml(space)  # type: ignore[arg-type]
    assert isinstance(space, SearchSpace)
    chosen = _merge(space.settings.search, run, settings)
    data = load(space.settings.data).without_test()
    if run is None:
        run = RunDirectory.create(Path(results), name, space, data.class_names, chosen.model_dump(mode="json"))
    listener = listener or Listener()
    with lock(run.folder), orderly_end(run.folder), Ledger.open(run.trials_file) as ledger:
        listener.began(run.folder)
        state = Search(run, space, chosen, ledger, listener)
        if not state.over:
            with start_ray(address, chosen.concurrency, chosen.gpus_per_trial, verbose) as slots:
                _drive(state, space, data, slots, verbose)
        state.close()
    return run


def _merge(settings: SearchSettings, run: RunDirectory | None, given: Mapping[str, Any]) -> SearchSettings:
    """The space's settings, under those a resumed run was started with, under those given now."""
    kept = {key: run.environment[key] for key in SearchSettings.model_fields if key in run.environment} if run else {}
    if run and given.get("seed") not in (None, kept.get("seed")):
        raise RunDirectoryError(
            f"{run.folder}: a resumed search keeps its seed {kept['seed']}, but got {given['seed']}"
        )
    wanted = {key: value for key, value in given.items() if value is not None}
    values, problems = validate({**settings.model_dump(mode="json"), **kept, **wanted}, SearchSettings)
    if problems:
        raise InputError("\n".join(message for _, message in problems))
    return SearchSettings.model_construct(**values)


@dataclass
class Running:
    """A trial that a worker has, or is about to get."""

    proposal: Proposal
    started: float
    epochs: list[dict[str, Any]] = field(default_factory=list)


class Search:
    """The driver's side of a search: what to train next, when to end, what to record and tell.

    `over`: no further trial is to be started. Times are seconds of search, by a clock that never goes back, summed
    over the sessions of a resumed search.
    """

    def __init__(
        self,
        run: RunDirectory,
        space: SearchSpace,
        settings: SearchSettings,
        ledger: Ledger,
        listener: Listener,
    ) -> None:
        self.run = run
        self.settings = settings
        self.running: dict[str, Running] = {}
        self.failure: str | None = None  # why the search can't go on
        self.exhausted = False
        self._space = space
        self._ledger = ledger
        self._listener = listener
        self._proposals = Proposals(space, settings.sampler, settings.seed, ledger.records)
        self._derived = Derived(run, space, listener)
        self._scale = run.scale
        self._epochs = space.settings.recipe.epochs
        self._begun = time.monotonic()
        self._elapsed_before = max((record["finished"] for record in ledger.records), default=0.0)
        self._finished_before = len(ledger.records)
        self._lock = threading.RLock()
        listener.update(self.snapshot())

    @property
    def elapsed(self) -> float:
        return self._elapsed_before + time.monotonic() - self._begun

    @property
    def over(self) -> bool:
        planned = len(self._ledger.records) + len(self.running)
        late = self.settings.time_budget is not None and self.elapsed >= self.settings.time_budget
        return self.exhausted or self.failure is not None or planned >= self.settings.trials or late

    @property
    def complete(self) -> bool:
        """Whether it ended by itself, not by a signal."""
        return self.over and not self.running

    def propose(self, key: str) -> dict[str, Any] | None:
        """The config of the next trial, to be known as `key`; None if the search is over."""
        if self.over:
            return None
        proposal = self._proposals.propose()
        if proposal is None:
            self.exhausted = True
            return None
        self.running[key] = Running(proposal, self.elapsed)
        return {
            "architecture": proposal.architecture.to_dict(),
            "seed": _training_seed(self.settings.seed, proposal.architecture.fingerprint),
        }

    def progress(self, key: str, result: Mapping[str, Any]) -> None:
        """A running trial has done some epochs."""
        if key in self.running:
            self.running[key].epochs += result["epochs"]
            self._tell()

    def finish(self, key: str, result: Mapping[str, Any] | None, lost: bool) -> None:
        """A trial has ended by itself, was stopped early, or its worker was lost (`lost`)."""
        running = self.running.pop(key, None)
        if running is None:
            return
        result = result or {}
        running.epochs += result.get("epochs", [])
        reason = "its worker process died" if lost else result.get("failure")
        try:
            record = self._ledger.append(self._record(running, reason, result))
        except OSError as error:  # a full disk, say: what is not on disk is not finished
            self.failure = f"{self.run.trials_file} can't be written: {error.strerror}"
            return
        self._proposals.tell(running.proposal, record["state"], record["accuracy"])
        self._watch_failures()
        self._listener.finished(record)
        self._tell()
        self._derived.refresh(self._ledger.records)

    def snapshot(self, state: str = "searching", message: str | None = None) -> Snapshot:
        """Where the search stands."""
        finished = len(self._ledger.records)
        return Snapshot(
            state=state,
            message=message,
            elapsed=self.elapsed,
            remaining=self._remaining(finished),
            finished=finished,
            trials=self.settings.trials,
            running=[self._running_trial(running) for running in self.running.values()],
            front=front_of(self._ledger.records),
            hypervolume=self._scale.hypervolume(front_of(self._ledger.records)),
        )

    def close(self) -> None:
        """Bring everything that is derived from the ledger up to date."""
        self._derived.close(self._ledger.records)

    def end(self, state: str, message: str | None = None) -> None:
        """Tell how the search ended."""
        self._listener.update(snapshot := self.snapshot(state, message))
        self._derived.write_status(snapshot)

    def _tell(self) -> None:
        self._listener.update(snapshot := self.snapshot())
        self._derived.write_status(snapshot)

    def _record(self, running: Running, reason: str | None, result: Mapping[str, Any]) -> dict[str, Any]:
        proposal, epochs = running.proposal, running.epochs
        last = epochs[-1] if epochs else {}
        accuracy = last.get("validation_accuracy")
        if reason is None and (accuracy is None or not math.isfinite(accuracy)):
            reason = f"no validation accuracy after {len(epochs)} epochs"
        state = "FAIL" if reason else "COMPLETE" if len(epochs) == self._epochs else "PRUNED"
        return {
            "trial": proposal.trial,
            "state": state,
            "fingerprint": proposal.architecture.fingerprint,
            "architecture": proposal.architecture.to_dict(),
            "choices": proposal.choices,
            "parameters": proposal.cost.parameters,
            "macs": proposal.cost.macs,
            "accuracy": accuracy,
            "loss": last.get("validation_loss"),
            "epochs": len(epochs),
            "seconds": round(sum(epoch["seconds"] for epoch in epochs), 4),
            "reason": reason or ("stopped early" if state == "PRUNED" else None),
            "curve": {
                "accuracy": [_rounded(epoch["validation_accuracy"]) for epoch in epochs],
                "loss": [_rounded(epoch["validation_loss"]) for epoch in epochs],
                "train_loss": [_rounded(epoch["train_loss"]) for epoch in epochs],
            },
            "seed": _training_seed(self.settings.seed, proposal.architecture.fingerprint),
            "started": round(running.started, 3),
            "finished": round(self.elapsed, 3),
            "time": now(),
            "worker": result.get("worker"),
            "peak_bytes": result.get("peak_bytes"),
            "duplicates": proposal.duplicates,
        }

    def _watch_failures(self) -> None:
        latest = self._ledger.records[-SAME_FAILURES:]
        reasons = {record["reason"] for record in latest if record["state"] == "FAIL"}
        if len(latest) == SAME_FAILURES and len(reasons) == 1 and all(r["state"] == "FAIL" for r in latest):
            self.failure = f"{SAME_FAILURES} trials in a row failed for one reason: {reasons.pop()}"

    def _remaining(self, finished: int) -> float | None:
        """Estimated seconds to the end, from the pace of this session."""
        done = finished - self._finished_before
        if not done:
            return None
        pace = (time.monotonic() - self._begun) / done
        left = max(0, self.settings.trials - finished) * pace
        return left if self.settings.time_budget is None else min(left, self.settings.time_budget - self.elapsed)

    def _running_trial(self, running: Running) -> RunningTrial:
        last = running.epochs[-1] if running.epochs else {}
        return RunningTrial(
            trial=running.proposal.trial,
            fingerprint=running.proposal.architecture.fingerprint,
            parameters=running.proposal.cost.parameters,
            epoch=len(running.epochs),
            epochs=self._epochs,
            accuracy=last.get("validation_accuracy"),
        )


class TuneSearcher(Searcher):
    """Lets Ray Tune ask a `Search` for trials and tell it how they went."""

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._search = search

    def suggest(self, trial_id: str) -> Any:
        config = self._search.propose(trial_id)
        return Searcher.FINISHED if config is None else config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._search.progress(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._search.finish(trial_id, result, lost=error)

    def save(self, checkpoint_path: str) -> None:
        """The ledger is what a search is resumed from."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its own state, and the search's files and study do not belong there."""
        return {}


class StopOnFailure(tune.Stopper):
    """Stops all trials once the search can't go on."""

    def __init__(self, search: Search) -> None:
        self._search: Search | None = search

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._search is not None and self._search.failure is not None

    def __getstate__(self) -> dict[str, Any]:
        return {"_search": None}


def _drive(state: Search, space: SearchSpace, data: ImageData, slots: Slots, verbose: bool) -> None:
    """Run Tune until the search is over. Raises KeyboardInterrupt or, if trials keep failing, DacnnSearchError."""
    from dacnn_search.worker import TrialWorker

    trainable = tune.with_parameters(TrialWorker, data=data, recipe=space.settings.recipe)
    resources = {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial}
    storage = tempfile.mkdtemp(prefix="dacnn-search-")
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=TuneSearcher(state),
            num_samples=-1,
            max_concurrent_trials=slots.concurrency,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=storage, verbose=3 if verbose else 0, stop=StopOnFailure(state)),
    )
    try:
        tuner.fit()  # returns after SIGINT
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    if state.failure:
        state.end("failed", state.failure)
        raise DacnnSearchError(f"{state.failure}; {len(state.run.records)} trials are in {state.run.trials_file}")
    if not state.complete:
        state.end("interrupted")
        raise KeyboardInterrupt
    state.end("finished")


def _training_seed(seed: int, fingerprint: str) -> int:
    """A trial's seed: the same for a network whenever it is trained in this search."""
    return int.from_bytes(hashlib.sha256(f"{seed} {fingerprint}".encode()).digest()[:4])


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 5)
