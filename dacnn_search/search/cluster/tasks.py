"""Ray tasks: full trainings that report each epoch, several at once and again if a worker dies; the measurement of the
precision of a run."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import ray

from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.common.interrupt import Stop
from dacnn_search.data.dataset import ImageData
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import InputShape
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.training.recipe import Recipe

ATTEMPTS = 3  # at a training whose worker dies
POLL_SECONDS = 0.2  # between two looks for a signal

Job = TypeVar("Job", contravariant=True)


class TaskHandler(Protocol[Job]):
    """The calls of `run_tasks` for each job, which may be anything hashable. `checkpoint` is bytes now and then."""

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
    teacher: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Train one network in full, from a checkpoint if there is one, and score the test images.

    A `teacher` has an `architecture` and `weights`, arrays by their names in its weight file.
    Yields each epoch as `run_epochs` does, then the scores and the weights as arrays.
    """
    import torch

    from dacnn_search.search.cluster.worker import WorkerProcess, run_epochs
    from dacnn_search.training.trainer import build_seeded, evaluate
    from dacnn_search.training.weights import load_weights, trained_weights

    process, taught_by = WorkerProcess(data, slots), None
    if teacher is not None:
        model = build_seeded(Architecture.from_dict(teacher["architecture"]), data.num_classes, data.input_shape[0], 0)
        taught_by = load_weights(model, {name: torch.tensor(array) for name, array in teacher["weights"].items()})
    network = Architecture.from_dict(architecture)
    training, epochs = process.start_training(network, recipe, seed, checkpoint, taught_by)
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


def fix_run_precision(
    run: RunDirectory, recipe: Recipe, networks: Sequence[Architecture], slots: Slots
) -> Callable[[], Recipe]:
    """Return a function that returns a recipe with its precision `auto` replaced by the run's.

    If the run has none, a worker begins to measure it with these networks, and the function waits for the answer;
    `environment.json` gets `precision` and, on a CPU, `speed`. Where it can't be measured, as workers die, the recipe
    stays as it is, and each worker measures for itself.
    """
    environment = run.environment
    precision = environment.get("precision") if recipe.precision == "auto" else recipe.precision
    if precision in ("float32", "bfloat16"):
        return lambda: recipe.model_copy(update={"precision": precision})
    task = ray.remote(num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_trial, max_retries=0)
    shape, classes = tuple(environment["data"]["input_shape"]), environment["data"]["num_classes"]
    answer = task(_measure_precision).remote(networks, shape, classes, recipe, slots)

    def fixed() -> Recipe:
        try:
            measured = ray.get(answer)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError:  # its worker died
            return recipe
        run.set_environment(**measured)
        return recipe.model_copy(update={"precision": measured["precision"]})

    return fixed


def _measure_precision(
    networks: Sequence[Architecture], input_shape: InputShape, num_classes: int, recipe: Recipe, slots: Slots
) -> dict[str, Any]:
    """Return what `environment.json` says of the device of this worker: `precision` and the `speed` of a CPU."""
    from dacnn_search.training.device_data import pick_device
    from dacnn_search.training.speed import choose_precision, speed_for

    if slots.gpus_per_trial:
        precision = choose_precision(recipe, networks, input_shape, num_classes, pick_device())
        return {"precision": precision, "speed": None}
    speed = speed_for(networks, input_shape, num_classes, recipe.batch_size)
    return {"precision": speed.precision, "speed": speed.model_dump()}


def _reason(error: Exception) -> str:
    """Return what a worker's error says, in one line."""
    cause = getattr(error, "cause", None) or error
    words = str(cause).strip().partition("\n")[0]
    return words if isinstance(cause, DacnnSearchError) else f"{type(cause).__name__}: {words}"
