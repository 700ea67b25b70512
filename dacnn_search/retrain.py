"""The full training of chosen networks of the front, and the only look at the test images."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy

from dacnn_search.cluster import Slots, start_ray
from dacnn_search.data import ImageData, load
from dacnn_search.derived import write_status
from dacnn_search.errors import DacnnSearchError, InputError
from dacnn_search.files import lock, write_atomic
from dacnn_search.ledger import Ledger
from dacnn_search.pareto import spread
from dacnn_search.progress import Listener, RunningTrial, Snapshot
from dacnn_search.recipe import Recipe
from dacnn_search.run_directory import RunDirectory, now
from dacnn_search.settings import RetrainSettings
from dacnn_search.signals import orderly_end
from dacnn_search.worker import train_fully

import ray  # isort: skip  # after dacnn_search.cluster, which sets what Ray reads

__all__ = ["retrain"]


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
    gpus_per_trial: float | None = None,
    listener: Listener | None = None,
    verbose: bool = False,
) -> list[dict[str, Any]]:
    """Train `top` networks of a run's front in full and score the test images once each; the records of all of them.

    The networks are spread over the front by parameters. They are trained on the training and validation images
    together, `seeds` times each, by the space's `retrain` recipe; what is done already is not done again. Weights go
    to `retrained/`, records to `retrained.jsonl`.

    Raises InputError for a run without finished trials, DacnnSearchError if a training breaks.
    """
    run = run if isinstance(run, RunDirectory) else RunDirectory(run)
    space = run.space
    given = {"top": top, "epochs": epochs, "seeds": seeds}
    settings = space.settings.retrain.model_copy(update={k: v for k, v in given.items() if v is not None})
    recipe = _recipe(settings, space.settings.recipe)
    if not run.front:
        raise InputError(f"{run.folder}: retraining needs a finished trial, but there is none")
    with lock(run.folder), orderly_end(run.folder), Ledger.open(run.retrained_file) as ledger:
        jobs = _missing_jobs(run, settings, recipe, ledger.records)
        if jobs:
            data = load(space.settings.data).with_validation_in_train()
            with start_ray(address, concurrency, gpus_per_trial, verbose) as slots:
                _train_all(run, jobs, data, recipe, slots, ledger, listener or Listener())
        chosen = {record["fingerprint"] for record in spread(run.front, settings.top)}
        return [dict(record) for record in ledger.records if record["fingerprint"] in chosen]


def _recipe(settings: RetrainSettings, searched: Recipe) -> Recipe:
    if settings.recipe is not None:
        return settings.recipe.model_copy(update={"epochs": settings.epochs} if settings.epochs else {})
    return searched.model_copy(update={"epochs": settings.epochs or 2 * searched.epochs})


def _missing_jobs(
    run: RunDirectory, settings: RetrainSettings, recipe: Recipe, records: Sequence[Mapping[str, Any]]
) -> list[Job]:
    """The trainings to do, the largest network first, so that the workers end together."""
    done = {
        (record["fingerprint"], record["seed"])
        for record in records
        if record["recipe"] == recipe.model_dump(mode="json")
        and run.weights_file(record["fingerprint"], record["seed"]).is_file()
    }
    jobs = [Job(record, seed) for record in spread(run.front, settings.top) for seed in range(settings.seeds)]
    missing = [job for job in jobs if (job.record["fingerprint"], job.seed) not in done]
    return sorted(missing, key=lambda job: -job.record["macs"])


def _train_all(
    run: RunDirectory,
    jobs: Sequence[Job],
    data: ImageData,
    recipe: Recipe,
    slots: Slots,
    ledger: Ledger,
    listener: Listener,
) -> None:
    threads = max(1, slots.concurrency // len(jobs)) if not slots.gpus_per_trial else 1
    remote = ray.remote(num_cpus=slots.cpus_per_trial * threads, num_gpus=slots.gpus_per_trial)(train_fully)
    shared = ray.put(data)
    board = _Board(run, len(jobs), recipe.epochs, listener)
    streams = {remote.remote(shared, job.record["architecture"], recipe, job.seed, threads): job for job in jobs}
    while streams:
        ready, _ = ray.wait(list(streams), num_returns=1)
        stream: Any = ready[0]
        try:
            message: Any = ray.get(next(stream))
        except StopIteration:
            streams.pop(stream)
            continue
        except ray.exceptions.RayError as error:
            raise DacnnSearchError(f"retraining of trial {streams[stream].record['trial']} broke: {error}") from error
        job = streams[stream]
        if "epoch" in message:
            board.progress(job, message["epoch"])
        else:
            board.finished(job, _keep(run, job, message, recipe, ledger))


def _keep(run: RunDirectory, job: Job, result: dict[str, Any], recipe: Recipe, ledger: Ledger) -> Mapping[str, Any]:
    """Write weights, then the record that speaks of them."""
    record = job.record
    path = run.weights_file(record["fingerprint"], job.seed)
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, safetensors.numpy.save(result["weights"]))
    copied = ("trial", "fingerprint", "architecture", "parameters", "macs", "accuracy")
    scored = ("test_accuracy", "test_loss", "train_images", "seconds")
    return ledger.append(
        {
            **{name: record[name] for name in copied},
            "seed": job.seed,
            "epochs": recipe.epochs,
            **{name: result[name] for name in scored},
            "curve": {"train_loss": result["train_loss"]},
            "recipe": recipe.model_dump(mode="json"),
            "time": now(),
        }
    )


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

    def _tell(self) -> None:
        snapshot = Snapshot(
            state="retraining",
            message=None,
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
        write_status(self._run, snapshot)
        self._listener.update(snapshot)
