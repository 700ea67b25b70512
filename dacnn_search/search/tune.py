"""Between a `Search` and Ray Tune: Tune asks it for trials, has its workers train them and tells it how they went."""

import contextlib
import gc
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.common.interrupt import Stop
from dacnn_search.data.dataset import ImageData
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.search.driver import Search
from dacnn_search.search.scheduling import OUT_OF_MEMORY, SearchScheduler
from dacnn_search.search.trial_worker import Parcel, TrialWorker

from ray import tune  # isort: skip
from ray.tune.execution import class_cache  # isort: skip
from ray.tune.search import Searcher  # isort: skip

__all__ = ["drive"]

# Tune sets a variable for PyTorch Lightning in the environment of its workers. Workers of another environment than
# Ray's own are new processes: those that Ray has started, and that have imported torch meanwhile, would stay idle.
class_cache.DEFAULT_ENV_VARS.clear()

CHECKPOINT_SECONDS = 60.0  # between two checkpoints of a trial
# Epochs shorter than this are reported together: a report costs the driver and the worker a few milliseconds. The
# second is for searches in which nothing but a display waits for reports.
REPORT_SECONDS, IDLE_REPORT_SECONDS = 0.1, 0.5


def drive(
    search: Search, data: ImageData, slots: Slots, stop: Stop, verbose: bool, callbacks: Sequence[Any] = ()
) -> None:
    """Run Tune until the search is over. Raises KeyboardInterrupt if a signal asks for the end, DacnnSearchError if
    the search can't go on. callbacks: for Tune, such as those of `tracking`."""
    search.looks_ahead = (
        slots.concurrency > 1
    )  # a single worker gains more from a proposal that knows of its last trial
    with stop.polled():
        while not (search.over or stop.requested):
            with _storage() as folder:
                error = _fit(_tuner(search, data, slots, stop, folder, verbose, callbacks))
            if error:
                _take_up(search, error)
    if search.failure:
        search.end("failed", search.failure)
        raise DacnnSearchError(f"{search.failure}; {search.finished} trials are in {search.run.trials_file}")
    if not search.over:
        search.interrupt()
        raise KeyboardInterrupt
    search.end("finished")


def _tuner(
    search: Search,
    data: ImageData,
    slots: Slots,
    stop: Stop,
    folder: Path,
    verbose: bool,
    callbacks: Sequence[Any],
) -> tune.Tuner:
    trainable = tune.with_parameters(
        TrialWorker,
        data=data,
        recipe=search.space.settings.recipe,
        slots=slots,
        checkpoint_seconds=CHECKPOINT_SECONDS,
        report_seconds=REPORT_SECONDS if search.stops else IDLE_REPORT_SECONDS,
    )
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial}),
        tune_config=tune.TuneConfig(
            search_alg=TuneSearcher(search, stop),
            scheduler=SearchScheduler(search),
            num_samples=-1,
            max_concurrent_trials=slots.concurrency,
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            verbose=3 if verbose else 0,
            stop=StopWhenAsked(search, stop),
            callbacks=list(callbacks),
        ),
    )


def _name(trial: Any) -> str:
    """What trackers and folders call a trial of Tune's."""
    return f"trial-{trial.config['trial']}"


def _fit(tuner: tune.Tuner) -> str | None:
    """Run a tuner; what it broke with, if it did. A worker that Ray's memory monitor kills breaks Tune itself."""
    try:
        tuner.fit()
    except Exception:
        return traceback.format_exc()
    return None


def _take_up(search: Search, error: str) -> None:
    """Go on after Tune broke, with what was running. Raises DacnnSearchError if nothing was."""
    gc.collect()  # the workers of the old tuner end with its last reference
    if not search.running:
        search.end("failed", "Ray Tune broke without a trial")
        raise DacnnSearchError(f"Ray Tune broke without a trial:\n{error}")
    if "OutOfMemoryError" in error:  # Ray does not say whose worker it killed
        search.lose(search.largest, OUT_OF_MEMORY, again=False)
    for key in list(search.running):
        search.lose(key, "its worker was stopped")


@contextlib.contextmanager
def _storage() -> Iterator[Path]:
    """A folder for Tune's own files, which nobody needs afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="dacnn-search-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class TuneSearcher(Searcher):
    """Lets Ray Tune ask a `Search` for trials and tell it how they went."""

    def __init__(self, search: Search, stop: Stop) -> None:
        super().__init__()
        self._search = search
        self._stop = stop

    def suggest(self, trial_id: str) -> Any:
        config = self._search.propose(trial_id)
        if config is None:  # a trial that runs may have to be trained again: nothing is final before it ends
            return Searcher.FINISHED if self._search.over else None
        return {**config, "checkpoint": config["checkpoint"] and Parcel(config["checkpoint"])}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._search.progress(trial_id, result, _unpacked(result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if self._stop.requested or self._search.failure:
            return  # Tune stops everything; a trial that has ended by itself in this moment is trained again
        if error:
            self._search.lose(trial_id, "its worker process died")
        else:
            _unpacked(result or {})
            self._search.finish(trial_id, result or {})

    def save(self, checkpoint_path: str) -> None:
        """The ledger is what a search is resumed from."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its own state, and the search's files and study do not belong there."""
        return {}


def _unpacked(result: Mapping[str, Any]) -> bytes | None:
    """The checkpoint in a worker's result, if there is one, taken out of it: Tune keeps results."""
    parcel: Parcel | None = result.get("checkpoint")
    if parcel is None:
        return None
    data, parcel.data = parcel.data, b""
    return data


class StopWhenAsked(tune.Stopper):
    """Stops all trials once the search can't go on or a signal asks for the end."""

    def __init__(self, search: Search, stop: Stop) -> None:
        self._search: Search | None = search
        self._stop: Stop | None = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._search is None or self._stop is None:
            return False
        return self._search.failure is not None or self._stop.requested

    def __getstate__(self) -> dict[str, Any]:
        return {"_search": None, "_stop": None}
