"""The full training of chosen networks of the front, and the only look at the test images."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy

from dacnn_search.common.errors import DacnnSearchError, InputError
from dacnn_search.common.files import lock, sha256_of, write_atomic
from dacnn_search.common.interrupt import Stop, orderly_end
from dacnn_search.data.dataset import ImageData, load
from dacnn_search.network.architecture import Architecture
from dacnn_search.search.cluster.ray_cluster import start_ray
from dacnn_search.search.cluster.slots import Demand, Share, Slots, demand_of, most_excess
from dacnn_search.search.cluster.tasks import Broken, WorkerDied, run_streams
from dacnn_search.search.listener import Listener, RunningTrial, Snapshot
from dacnn_search.search.report import write_status
from dacnn_search.search.trial_worker import train_fully
from dacnn_search.space.settings import RetrainSettings
from dacnn_search.storage.checkpoint import Checkpoints
from dacnn_search.storage.front import spread
from dacnn_search.storage.ledger import Ledger, now
from dacnn_search.storage.run_directory import RETRAINED, RunDirectory
from dacnn_search.storage.trained import judge
from dacnn_search.training.recipe import Recipe

import ray  # isort: skip  # after dacnn_search.search.cluster.ray_cluster, which sets what Ray reads

__all__ = ["retrain"]

CHECKPOINT_SECONDS = 60.0  # between two checkpoints of a training


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One full training of one network of the front."""

    record: Mapping[str, Any]
    seed: int


def retrain(
    run: RunDirectory | Path | str,
    *,
    top: int | None = None,
    epochs: int | None = None,
    seeds: int | None = None,
    address: str | None = None,
    concurrency: int | None = None,
    gpus_per_trial: Share = None,
    repair: bool = False,
    listener: Listener | None = None,
    verbose: bool = False,
) -> list[dict[str, Any]]:
    """Train `top` networks of a run's front in full and score the test images once each; the records of all of them.

    The networks are spread over the front by parameters. They are trained on the training and validation images
    together, `seeds` times each, by the space's `retrain` recipe; what is done already is not done again. Weights go
    to `retrained/`, records to `retrained.jsonl`. A training whose weights are damaged is done again, one that a crash
    cut short goes on from its last checkpoint. The front is then judged on the test images, which the listener is told.

    concurrency, gpus_per_trial: by default the search's. repair: leave out damaged lines of `retrained.jsonl`, which
    otherwise are an error.

    A training that breaks is told to the listener and left out. Raises InputError for a run without finished trials,
    signals.Interrupted after SIGINT or SIGTERM, DacnnSearchError if every training breaks.
    """
    run = run if isinstance(run, RunDirectory) else RunDirectory(run)
    space = run.space
    given = {"top": top, "epochs": epochs, "seeds": seeds}
    settings = space.settings.retrain.model_copy(update={k: v for k, v in given.items() if v is not None})
    recipe = settings.full_recipe(space.settings.recipe)
    if not run.front:
        raise InputError(f"{run.folder}: retraining needs a finished trial, but there is none")
    listener = listener or Listener()
    with (
        lock(run.folder),
        orderly_end(run.folder) as stop,
        Ledger.open(run.retrained_file, RETRAINED, repair=repair) as ledger,
    ):
        jobs = _missing_jobs(run, settings, recipe, ledger.records)
        if jobs:
            data = load(space.settings.data).with_validation_in_train()
            demand = _demand_of(jobs, run, data, recipe)
            kept = run.environment
            concurrency = concurrency or kept.get("concurrency")
            concurrency = concurrency and min(concurrency, len(jobs))
            gpus_per_trial = kept.get("gpus_per_trial") if gpus_per_trial is None else gpus_per_trial
            with start_ray(address, concurrency, gpus_per_trial, verbose, demand) as slots:
                board = _Board(run, len(jobs), recipe.epochs, listener)
                try:
                    _train_all(_Trainings(run, recipe, ledger, data, slots), jobs, board, stop)
                except DacnnSearchError as error:
                    board.failed(str(error))
                    raise
            board.ended()
        if judgement := judge(run.networks):
            listener.say(str(judgement))
        chosen = {record["fingerprint"] for record in spread(run.front, settings.top)}
        return [dict(record) for record in ledger.records if record["fingerprint"] in chosen]


def _missing_jobs(
    run: RunDirectory, settings: RetrainSettings, recipe: Recipe, records: Sequence[Mapping[str, Any]]
) -> list[Job]:
    """The trainings to do, the largest network first, so that the workers end together: of networks of the front, and
    those whose weights are lost."""
    done = {
        (record["fingerprint"], record["seed"])
        for record in records
        if Recipe.model_validate(record["recipe"]) == recipe and run.has_weights(record)
    }
    jobs = [Job(record, seed) for record in spread(run.front, settings.top) for seed in range(settings.seeds)]
    missing = [job for job in jobs if (job.record["fingerprint"], job.seed) not in done]
    known = [Job(r, r["seed"]) for network in run.networks for r in network.records if not run.has_weights(r)]
    distinct = {(job.record["fingerprint"], job.seed): job for job in [*known, *missing]}
    return sorted(distinct.values(), key=lambda job: -job.record["macs"])


def _demand_of(jobs: Sequence[Job], run: RunDirectory, data: ImageData, recipe: Recipe) -> Demand:
    """What the trainings need, by the estimate and what the search's trials took in excess of it."""
    images = (data.input_shape, data.num_classes)
    networks = [Architecture.from_dict(job.record["architecture"]) for job in jobs]
    factor = most_excess(run.records, *images, run.space.settings.recipe)
    return demand_of(networks, *images, recipe, data_bytes=data.nbytes, factor=factor)


def _train_all(trainings: "_Trainings", jobs: Sequence[Job], board: "_Board", stop: Stop) -> None:
    """Train all. Raises KeyboardInterrupt if a signal asks for the end, DacnnSearchError if every training breaks."""
    failures: list[str] = []
    try:
        for job, message in run_streams(jobs, trainings.start, trainings.concurrency, stop):
            if isinstance(message, WorkerDied):
                board.lost(job)
            elif isinstance(message, Broken):
                failures.append(board.broke(job, message.reason))
            elif "epoch" in message:
                trainings.checkpoint(job, message)
                board.progress(job, message["epoch"])
            else:
                board.finished(job, trainings.keep(job, message))
    except KeyboardInterrupt:
        board.interrupted()
        raise
    if len(failures) == len(jobs):
        raise DacnnSearchError(failures[0])


class _Trainings:
    """Starts trainings as Ray tasks and keeps their results."""

    def __init__(self, run: RunDirectory, recipe: Recipe, ledger: Ledger, data: ImageData, slots: Slots) -> None:
        self._run = run
        self._recipe = recipe
        self._ledger = ledger
        self._data = ray.put(data)
        self._slots = slots
        self._checkpoints = Checkpoints(run.checkpoints)

    @property
    def concurrency(self) -> int:
        """How many trainings may run at once."""
        return self._slots.concurrency

    def start(self, job: Job) -> Any:
        """The stream of a training's messages."""
        slots = self._slots
        task = ray.remote(num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_trial, max_retries=0)
        carried_on = self._checkpoints.load(self._key(job))
        return task(train_fully).remote(
            self._data,
            job.record["architecture"],
            self._recipe,
            job.seed,
            slots,
            carried_on,
            CHECKPOINT_SECONDS,
        )

    def checkpoint(self, job: Job, message: Mapping[str, Any]) -> None:
        """Keep what a training may be carried on from."""
        if message["checkpoint"]:
            with self._telling_disk(self._run.checkpoints):
                self._checkpoints.save(self._key(job), message["epoch"], message["checkpoint"])

    def keep(self, job: Job, result: dict[str, Any]) -> Mapping[str, Any]:
        """Write weights, then the record that speaks of them."""
        record = job.record
        path = self._run.weights_file(record["fingerprint"], job.seed)
        copied = ("trial", "fingerprint", "architecture", "parameters", "macs", "accuracy")
        scored = ("test_accuracy", "test_loss", "train_images", "seconds")
        with self._telling_disk(path.parent):
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, safetensors.numpy.save(result["weights"]))
            kept = self._ledger.append(
                {
                    **{name: record[name] for name in copied},
                    "seed": job.seed,
                    "epochs": self._recipe.epochs,
                    **{name: result[name] for name in scored},
                    "curve": {"train_loss": result["train_loss"]},
                    "recipe": self._recipe.model_dump(mode="json"),
                    "weights_sha256": sha256_of(path),
                    "time": now(),
                }
            )
        self._checkpoints.drop(self._key(job))
        return kept

    def _key(self, job: Job) -> str:
        """Of the checkpoints of a training: another recipe makes it another training."""
        recipe = json.dumps(self._recipe.model_dump(mode="json"), sort_keys=True)
        return f"{job.record['fingerprint']}-{job.seed}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"

    @contextlib.contextmanager
    def _telling_disk(self, folder: Path) -> Iterator[None]:
        """Raise what goes wrong with the disk as DacnnSearchError."""
        try:
            yield
        except OSError as error:
            raise DacnnSearchError(f"{folder} can't be written: {error.strerror}") from error


class _Board:
    """Tells listener and `status.json` how the retraining goes."""

    def __init__(self, run: RunDirectory, jobs: int, epochs: int, listener: Listener) -> None:
        self._run = run
        self._jobs = jobs
        self._epochs = epochs
        self._listener = listener
        self._front = run.front
        self._hypervolume = run.scale.hypervolume(self._front)
        self._running: dict[Job, int] = {}
        self._done = 0
        self._tell()

    def progress(self, job: Job, epoch: int) -> None:
        self._running[job] = epoch
        self._tell()

    def finished(self, job: Job, record: Mapping[str, Any]) -> None:
        self._running.pop(job, None)
        self._done += 1
        self._listener.retrained(record)
        self._tell()

    def lost(self, job: Job) -> None:
        """A training's worker process died."""
        self._running.pop(job, None)
        self._listener.say(f"retraining of trial {job.record['trial']}: its worker process died")

    def broke(self, job: Job, reason: str) -> str:
        """A training is given up; which and why."""
        self._running.pop(job, None)
        message = f"retraining of trial {job.record['trial']} broke: {reason}"
        self._listener.say(message)
        return message

    def ended(self) -> None:
        """All is done."""
        self._tell("finished")

    def interrupted(self) -> None:
        """A signal has ended all."""
        self._tell("interrupted")

    def failed(self, message: str) -> None:
        """The retraining can't go on."""
        self._tell("failed", message)

    def _tell(self, state: str = "retraining", message: str | None = None) -> None:
        snapshot = Snapshot(
            state=state,
            message=message,
            elapsed=0.0,
            remaining=None,
            finished=self._done,
            trials=self._jobs,
            running=[
                RunningTrial(
                    job.record["trial"],
                    job.record["fingerprint"],
                    job.record["parameters"],
                    epoch,
                    self._epochs,
                    None,
                )
                for job, epoch in self._running.items()
            ],
            front=self._front,
            hypervolume=self._hypervolume,
        )
        with contextlib.suppress(OSError):  # the status is for others; nothing depends on it
            write_status(self._run, snapshot)
        self._listener.update(snapshot)
