"""The trainings of a reproduction: how a worker does one, and how they are started, kept and reported on."""

import dataclasses
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import safetensors.torch
import torch

from dacnn_search.common.errors import TrainingError
from dacnn_search.common.machine import processor_name
from dacnn_search.common.units import format_duration
from dacnn_search.data.dataset import ImageData
from dacnn_search.network.architecture import Architecture
from dacnn_search.paper.archive import CHECKPOINTS, Task, network_folder, write_network
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.search.cluster.tasks import start_task
from dacnn_search.search.cluster.worker import WorkerProcess, run_epochs
from dacnn_search.search.listener import Listener
from dacnn_search.storage.checkpoint import Checkpoints
from dacnn_search.storage.ledger import Ledger
from dacnn_search.training.evaluation import evaluate_split
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.trainer import Training
from dacnn_search.training.weights import trained_weights

__all__ = ["Trainings", "train_watched"]

CHECKPOINT_SECONDS = 300.0
SECONDS_PER_LINE = 10.0  # between two reports on what is running
KINDS = ("train_loss", "test_loss", "test_accuracy")  # of curves


@dataclass(eq=False)
class Trainings:
    """The `TaskHandler` of a reproduction. `broken` has a line for each training that was given up."""

    tasks: Sequence[Task]
    results: Path
    ledger: Ledger
    slots: Slots
    listener: Listener
    write_reports: Callable[[], Any]
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._checkpoints = Checkpoints(self.results / CHECKPOINTS)
        self._images = {data: ray.put(data.images) for data in {task.data for task in self.tasks}}
        self._running: dict[Task, str] = {}
        self._left = {task: task.work for task in self.tasks}
        self._work = 0.0  # that this process has seen done
        self._start = self._last_line = time.monotonic()

    def start(self, task: Task) -> Any:
        state = self._checkpoints.load(task.key)
        values = (task.architecture, task.recipe, task.seed, self.slots, state, CHECKPOINT_SECONDS)
        return start_task(train_watched, self.slots, self._images[task.data], *values)

    def progressed(self, task: Task, message: Mapping[str, Any]) -> None:
        epoch, epochs = message["epoch"], task.recipe.epochs
        if message["checkpoint"] is not None:
            self._checkpoints.save(task.key, epoch, message["checkpoint"])
        error = 100 * (1 - message["test_accuracy"])
        self._running[task] = f"{task.member.network} epoch {epoch}/{epochs} at {error:.1f}%"
        self._work += task.work / epochs
        self._left[task] = task.work * (1 - epoch / epochs)
        if time.monotonic() >= self._last_line + SECONDS_PER_LINE:
            self._last_line = time.monotonic()
            seconds = (self._last_line - self._start) * sum(self._left.values()) / self._work
            running = ", ".join(self._running.values())
            self.listener.say(f"{self._done} done, about {format_duration(seconds)} left; {running}")

    def finished(self, task: Task, result: dict[str, Any]) -> None:
        """Write the trained network, then the record that speaks of it."""
        record = task.record(result)
        if record["reason"] is None:
            write_network(task, record, result["weights"], network_folder(self.results, record))
        self.ledger.append(record)
        self._checkpoints.drop(task.key)
        self._end(task)
        outcome = record["reason"] or f"test error {100 * (1 - record['test_accuracy']):.2f}%"
        self.listener.say(f"{self._done} {task}: {outcome}, in {format_duration(record['seconds'])}")
        self.write_reports()

    def lost(self, task: Task) -> None:
        self._running.pop(task, None)
        self.listener.say(f"{task}: its worker process died")

    def failed(self, task: Task, reason: str) -> None:
        self._end(task)
        self.broken.append(f"{task}: {reason}")

    @property
    def _done(self) -> str:
        return f"{len(self.tasks) - len(self._left)}/{len(self.tasks)}"

    def _end(self, task: Task) -> None:
        self._running.pop(task, None)
        del self._left[task]


def train_watched(
    data: ImageData,
    architecture: Architecture,
    recipe: Recipe,
    seed: int,
    slots: Slots,
    state: bytes | None,
    checkpoint_seconds: float,
) -> Iterator[dict[str, Any]]:
    """Train one network as the paper did: on all training images, with a look at the test images after every epoch.

    Nothing is selected by that look: the result is the last epoch's, in float32; the epochs before it are scored in
    the training's precision. Yields each epoch as `run_epochs` does, from the checkpoint `state` on if there is one,
    with its test scores; at the end the result, with the weights as a safetensors file. A training whose loss is not
    finite is a result too, with a `reason` and no accuracy.
    """
    process = WorkerProcess(data, slots)
    training, epochs = process.start_training(architecture, recipe, seed, state)
    reason = None
    try:
        yield from run_epochs(training, epochs, checkpoint_seconds, _run_epoch)
    except TrainingError as error:
        if all(parameter.isfinite().all() for parameter in training.model.parameters()):
            raise  # for another cause, such as a lack of memory
        reason = str(error)
    curve = {kind: [round(e[kind], 6) if math.isfinite(e[kind]) else None for e in epochs] for kind in KINDS}
    device = process.data.device
    on_cpu = device.type == "cpu"
    yield {
        "test_accuracy": None if reason else curve["test_accuracy"][-1],
        "test_loss": None if reason else curve["test_loss"][-1],
        "reason": reason,
        "curve": curve,
        "seconds": round(sum(epoch["seconds"] for epoch in epochs), 2),
        "precision": str(training.precision).removeprefix("torch."),
        "device": f"{processor_name()} on {platform.node()}" if on_cpu else torch.cuda.get_device_name(device),
        "weights": safetensors.torch.save(trained_weights(training.model)),
    }


def _run_epoch(training: Training) -> dict[str, Any]:
    """Run an epoch and return its `EpochResult` with the test scores after it; `seconds` is the time of both."""
    start = time.perf_counter()
    epoch = training.run_epoch()
    precision = torch.float32 if training.finished else training.precision
    test = evaluate_split(training.model, training.data, training.data.test, precision)
    scores = {"test_loss": test.loss, "test_accuracy": test.accuracy}
    return dataclasses.asdict(epoch) | scores | {"seconds": time.perf_counter() - start}
