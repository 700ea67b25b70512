"""Run full trainings as Ray tasks that report each epoch: several at once, and again those whose worker dies."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import ray

from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.common.interrupt import Stop
from dacnn_search.data.dataset import ImageData
from dacnn_search.network.architecture import Architecture
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.training.recipe import Recipe

__all__ = ["TaskHandler", "run_tasks", "train_fully"]

ATTEMPTS = 3  # at a training whose worker dies
POLL_SECONDS = 0.2  # between two looks for a signal

Job = TypeVar("Job", contravariant=True)


class TaskHandler(Protocol[Job]):
    """What `run_tasks` calls for each job, which may be anything hashable. `checkpoint` is bytes now and then."""

    def arguments(self, job: Job) -> tuple[Any, ...]: ...  # what the function that does the job is called with
    def progressed(self, job: Job, message: Mapping[str, Any]) -> None: ...  # `epoch`, `checkpoint` or None, and more
    def finished(self, job: Job, result: dict[str, Any]) -> None: ...  # the last message of a task, without `epoch`
    def lost(self, job: Job) -> None: ...  # its worker died; the job begins again
    def failed(self, job: Job, reason: str) -> None: ...  # the job is given up


def run_tasks(
    jobs: Sequence[Job], handler: TaskHandler[Job], work: Callable[..., Iterator[Any]], slots: Slots, stop: Stop
) -> None:
    """Do each job on a worker, in their order, as many at once as there are slots, until all have finished or failed.

    `work` does a job and yields its messages, which are dicts. Raises KeyboardInterrupt once a signal has asked for the
    end; a call of the handler is never interrupted.
    """
    # What is tried again is decided below, not by Ray.
    task = ray.remote(num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_trial, max_retries=0)(work)
    waiting = collections.deque(jobs)
    streams: dict[Any, Job] = {}
    deaths: collections.Counter[Job] = collections.Counter()
    with stop.polled():
        while waiting or streams:
            while waiting and len(streams) < slots.concurrency:
                job = waiting.popleft()
                streams[task.remote(*handler.arguments(job))] = job
            ready: list[Any] = ray.wait(list(streams), num_returns=1, timeout=POLL_SECONDS)[0]
            for stream in ready:
                job = streams[stream]
                try:
                    message = ray.get(next(stream))
                except StopIteration:
                    del streams[stream]
                except ray.exceptions.RayError as error:
                    del streams[stream]
                    died = not isinstance(error, ray.exceptions.RayTaskError | ray.exceptions.OutOfMemoryError)
                    deaths[job] += died
                    if died and deaths[job] < ATTEMPTS:
                        waiting.appendleft(job)
                        handler.lost(job)
                    else:
                        handler.failed(job, _reason(error))
                else:
                    handler.progressed(job, message) if "epoch" in message else handler.finished(job, message)
            if stop.requested:
                raise KeyboardInterrupt


def train_fully(
    data: ImageData,
    architecture: Mapping[str, Any],
    recipe: Recipe,
    seed: int,
    slots: Slots,
    checkpoint: bytes | None,
    checkpoint_seconds: float,
) -> Iterator[dict[str, Any]]:
    """Train one network in full, from a checkpoint if there is one, and score the test images.

    Yields each epoch as `run_epochs` does, then the scores and the weights as arrays.
    """
    from dacnn_search.search.cluster.worker import WorkerProcess, run_epochs
    from dacnn_search.training.trainer import evaluate
    from dacnn_search.training.weights import trained_weights

    process = WorkerProcess(data, slots)
    training, epochs = process.start_training(Architecture.from_dict(architecture), recipe, seed, checkpoint)
    yield from run_epochs(training, epochs, checkpoint_seconds)
    model = training.model
    test = evaluate(model, process.data, "test", precision="float32") if len(data.test) else None
    yield {
        "test_accuracy": test.accuracy if test else None,
        "test_loss": test.loss if test else None,
        "train_images": len(data.train),
        "seconds": sum(epoch["seconds"] for epoch in epochs),
        "train_loss": [round(epoch["train_loss"], 5) for epoch in epochs],
        "weights": {name: tensor.numpy() for name, tensor in trained_weights(model).items()},
    }


def _reason(error: Exception) -> str:
    """Return what a worker's error says, in one line."""
    cause = getattr(error, "cause", None) or error
    words = str(cause).strip().partition("\n")[0]
    return words if isinstance(cause, DacnnSearchError) else f"{type(cause).__name__}: {words}"
