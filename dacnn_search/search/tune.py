"""Everything of Ray Tune's: it asks a `Search` for trials, trains them on its workers and reports their results.

Tune's workers import this module, so it imports neither the driver nor the sampler. No other file uses private parts
of Tune.
"""

import contextlib
import gc
import os
import platform
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.common.interrupt import Stop
from dacnn_search.data.dataset import ImageData
from dacnn_search.network.architecture import Architecture
from dacnn_search.search.cluster.ray_cluster import default_environment
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.training.recipe import Recipe

if TYPE_CHECKING:
    from dacnn_search.search.cluster.worker import WorkerProcess
    from dacnn_search.search.driver import Search
    from dacnn_search.training.trainer import Training

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # dacnn_search.common.interrupt has one
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the ledger has them
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial without an accuracy must not end the run
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
}
CHECKPOINT_SECONDS = 60.0  # between two checkpoints of a trial
# Shorter epochs are reported together: a report costs the driver and the worker a few milliseconds. The second value is
# for searches without early stopping, in which only the display waits for reports.
REPORT_SECONDS, IDLE_REPORT_SECONDS = 0.1, 0.5
REPORT_SHARE = 0.2  # of a training's time so far: shorter epochs are reported together
OUT_OF_MEMORY = "out of memory: Ray killed its worker"


def drive(
    search: "Search",
    data: ImageData,
    slots: Slots,
    stop: Stop,
    *,
    verbose: bool = False,
    callbacks: Sequence[Any] = (),
    trainable: "type[TrialWorker]",
) -> None:
    """Run Tune until the search is over.

    `callbacks` are Tune's, such as those of `tracking`. `trainable` trains a trial: `TrialWorker`, or a class of a
    benchmark that pretends to.

    Raises KeyboardInterrupt if a signal asks for the end, DacnnSearchError if the search can't go on.
    """
    with stop.polled(), _adapted_tune():
        worker = tune.with_parameters(
            trainable,
            data=data,
            recipe=search.recipe,
            first_cycle=search.first_cycle,
            slots=slots,
            checkpoint_seconds=CHECKPOINT_SECONDS,
            report_seconds=IDLE_REPORT_SECONDS if search.settings.stopping == "none" else REPORT_SECONDS,
        )
        worker = tune.with_resources(worker, {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial})
        while not (search.over or stop.requested):
            with tempfile.TemporaryDirectory(prefix="dacnn-search-", ignore_cleanup_errors=True) as folder:
                adapter = SearchAdapter(search, stop)
                tune_config = tune.TuneConfig(
                    search_alg=adapter,
                    scheduler=SearchScheduler(search),
                    num_samples=-1,
                    max_concurrent_trials=slots.concurrency,
                    reuse_actors=True,
                    trial_name_creator=_trial_name,
                    trial_dirname_creator=_trial_name,
                )
                run_config = tune.RunConfig(
                    storage_path=folder, verbose=3 if verbose else 0, stop=adapter, callbacks=list(callbacks)
                )
                try:
                    tune.Tuner(worker, tune_config=tune_config, run_config=run_config).fit()
                except Exception as error:
                    _requeue_running_trials(search, error)
    if search.failure:
        search.end("failed", search.failure)
        raise DacnnSearchError(f"{search.failure}; {search.finished} trials are in {search.run.trials_file}")
    if not search.over:
        search.interrupt()
        raise KeyboardInterrupt
    search.end("finished")


def _trial_name(trial: Any) -> str:
    """Name a trial for trackers and folders."""
    return f"trial-{trial.config['trial']}"


def _requeue_running_trials(search: "Search", error: Exception) -> None:
    """Have the running trials trained again after Tune broke. Raises DacnnSearchError if there are none."""
    cause: BaseException | None = error
    while cause is not None:  # workers of the old tuner end with its last reference, some of which are in frames
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
    gc.collect()
    reason = f"Ray Tune broke: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if not search.running:
        search.end("failed", reason)
        raise DacnnSearchError(f"{reason}; no trial was running") from error
    search.listener.say(f"{reason}; it is started again")
    for key in list(search.running):
        search.lose(key, "its worker was stopped")


@contextlib.contextmanager
def _adapted_tune() -> Iterator[None]:
    """Change what Tune does by itself, for the time of the context.

    - Tune sets a variable for PyTorch Lightning in the environment of its workers. Workers with an environment of their
      own are new processes, while those that Ray has started, and that have imported torch meanwhile, would stay idle.
    - A worker that Ray's memory monitor kills is an error that Tune does not expect and breaks from. It is passed on as
      the death of the worker, so that its trial alone fails (see `SearchScheduler.on_trial_error`).
    """
    variables = dict(class_cache.DEFAULT_ENV_VARS)
    manager_class: Any = RayActorManager
    task_failed = manager_class._actor_task_failed

    def expect_out_of_memory(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, ray.exceptions.OutOfMemoryError):
            exception = ray.exceptions.RayActorError(error_msg=f"{OUT_OF_MEMORY}\n{exception}")
        task_failed(manager, tracked_actor_task, exception)

    with default_environment(ENVIRONMENT):
        class_cache.DEFAULT_ENV_VARS.clear()
        manager_class._actor_task_failed = expect_out_of_memory
        try:
            yield
        finally:
            manager_class._actor_task_failed = task_failed
            class_cache.DEFAULT_ENV_VARS.update(variables)


class NotPickled:
    """Keeps a search, with its files and study, out of the state that Tune pickles and nobody reads."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


class SearchAdapter(NotPickled, Searcher, tune.Stopper):
    """Let Tune ask a `Search` for trials, report how they ended, and ask whether all must stop."""

    def __init__(self, search: "Search", stop: Stop) -> None:
        super().__init__()
        self._search = search
        self._stop = stop

    def suggest(self, trial_id: str) -> Any:
        config = self._search.propose(trial_id)
        if config is None:  # a running trial may have to be trained again: nothing is final before it ends
            return Searcher.FINISHED if self._search.over else None
        checkpoint = config["checkpoint"] and CheckpointBytes(config["checkpoint"])
        return {**config, "checkpoint": checkpoint}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._search.progress(trial_id, result, _take_checkpoint(result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if self._stop.requested or self._search.failure:
            return  # Tune stops everything; a trial that ended by itself at this moment is trained again
        if error:
            self._search.lose(trial_id, "its worker process died")
        else:
            _take_checkpoint(result or {})
            self._search.finish(trial_id, result or {})

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: `SearchScheduler` stops single trials."""
        return False

    def stop_all(self) -> bool:
        return self._search.failure is not None or self._stop.requested

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a search is resumed from its ledger."""


class SearchScheduler(NotPickled, FIFOScheduler):
    """Start trials in order and stop those early that the `Search` stops."""

    def __init__(self, search: "Search") -> None:
        super().__init__()
        self._search = search

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        goes_on = self._search.goes_on(trial.trial_id, result["epochs"])
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Report workers that Ray killed for memory, before Tune reports that they died."""
        if trial.error_file is None:
            return
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
        if OUT_OF_MEMORY in text or "running low on memory" in text:
            self._search.lose(trial.trial_id, OUT_OF_MEMORY, again=False)


@dataclass(eq=False, repr=False)
class CheckpointBytes:
    """A checkpoint in a config or result of Tune's, which copies and prints all other values."""

    data: bytes

    def __deepcopy__(self, memo: dict[int, Any]) -> "CheckpointBytes":
        return self

    def __repr__(self) -> str:
        return f"<{len(self.data)} bytes>"


def _take_checkpoint(result: Mapping[str, Any]) -> bytes | None:
    """Take the checkpoint, if there is one, out of a worker's result: Tune keeps results."""
    checkpoint: CheckpointBytes | None = result.get("checkpoint")
    if checkpoint is None:
        return None
    data, checkpoint.data = checkpoint.data, b""
    return data


class TrialWorker(tune.Trainable):
    """Train the network of a `Search.propose` config, one trial after the other.

    A step trains one or more epochs, for at least `report_seconds` and a fifth of the training so far, since the worker
    waits between steps; one ends with the first cycle. Its result has

    - `epochs`: an `EpochResult` as a dict for each so far, those before a checkpoint included
    - `done`, and `failure`: why the training can't go on, else None
    - `worker`: host:pid
    - `peak_bytes`: GPU memory beside the data, None on a CPU
    - `recomputes`: whether it computes sections again to save memory
    - `checkpoint`: a `CheckpointBytes` now and then, else None
    - scalars for trackers

    Errors are reported, not raised, so that the process serves the next trial, unless its GPU is lost.
    """

    _process: "WorkerProcess | None" = None  # made in `step`, where errors are reported

    def setup(  # type: ignore[override]  # Tune passes what `with_parameters` was given
        self,
        config: dict[str, Any],
        data: ImageData,
        recipe: Recipe,
        first_cycle: int,
        slots: Slots,
        checkpoint_seconds: float,
        report_seconds: float,
    ) -> None:
        self._recipe = recipe
        self._first_cycle = first_cycle
        self._images = data
        self._slots = slots
        self._checkpoint_seconds = checkpoint_seconds
        self._report_seconds = report_seconds
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config = new_config
        self._training: Training | None = None
        self._epochs: list[dict[str, Any]] = []
        self._running: Iterator[dict[str, Any]] = iter(())  # what runs the epochs; the old one would keep its training
        return True

    def step(self) -> dict[str, Any]:
        failure = checkpoint = None
        try:
            checkpoint = self._run_epochs()
        except DacnnSearchError as error:
            failure = str(error)
        except Exception as error:  # a fault of ours must not cost the worker
            if self._slots.gpus_per_trial and not (self._process and self._process.device_works()):
                raise
            failure = f"{type(error).__name__}: {error}"
        done = failure is not None or len(self._epochs) == self._recipe.epochs
        process, training = self._process, self._training
        last = self._epochs[-1] if self._epochs else {}
        return {
            "epochs": self._epochs,
            "done": done,
            "failure": failure,
            "worker": f"{platform.node()}:{os.getpid()}",
            "peak_bytes": process.peak_bytes(training.model, self._recipe) if process and training else None,
            "recomputes": training is not None and training.model.recomputes,
            "checkpoint": CheckpointBytes(checkpoint) if checkpoint and not done else None,
            "epoch": len(self._epochs),
            "parameters": self._config["parameters"],
            "flash": self._config["flash"],
            "accuracy": last.get("validation_accuracy"),
            "loss": last.get("validation_loss"),
            "train_loss": last.get("train_loss"),
        }

    def _run_epochs(self) -> bytes | None:
        """Run epochs; return a checkpoint if one is due."""
        start = time.perf_counter()
        if self._training is None:
            self._start_training()
        enough = max(self._report_seconds, REPORT_SHARE * sum(epoch["seconds"] for epoch in self._epochs))
        for epoch in self._running:
            is_judged = epoch["epoch"] == self._first_cycle
            if epoch["checkpoint"] or is_judged or time.perf_counter() - start >= enough:
                return epoch["checkpoint"]
        return None

    def _start_training(self) -> None:
        """Start the training of the config, from its checkpoint if there is one."""
        from dacnn_search.search.cluster.worker import WorkerProcess, run_epochs

        if self._process is None:
            self._process = WorkerProcess(self._images, self._slots)
        architecture = Architecture.from_dict(self._config["architecture"])
        checkpoint: CheckpointBytes | None = self._config["checkpoint"]
        self._training, self._epochs = self._process.start_training(
            architecture,
            self._recipe,
            self._config["seed"],
            checkpoint.data if checkpoint else None,
            first_cycle=self._first_cycle,
        )
        self._running = run_epochs(self._training, self._epochs, self._checkpoint_seconds)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: our checkpoints travel with the results to the driver's run directory, not by Tune's storage."""
