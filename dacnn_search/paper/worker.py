"""Train one network of the paper on a worker, with a look at the test images after every epoch."""

import dataclasses
import math
import platform
import time
from collections.abc import Iterator
from typing import Any

import safetensors.torch
import torch

from dacnn_search.common.errors import TrainingError
from dacnn_search.common.machine import processor_name
from dacnn_search.data.dataset import ImageData
from dacnn_search.network.architecture import Architecture
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.search.cluster.worker import WorkerProcess, run_epochs
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.speed import Precision
from dacnn_search.training.trainer import Training, evaluate
from dacnn_search.training.weights import trained_weights

CURVES = ("train_loss", "test_loss", "test_accuracy")


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
    curve = {name: [round(e[name], 6) if math.isfinite(e[name]) else None for e in epochs] for name in CURVES}
    device = process.data.device
    on_cpu = device.type == "cpu"
    yield {
        "test_accuracy": None if reason else curve["test_accuracy"][-1],
        "test_loss": None if reason else curve["test_loss"][-1],
        "reason": reason,
        "curve": curve,
        "seconds": round(sum(epoch["seconds"] for epoch in epochs), 2),
        "precision": training.precision,
        "device": f"{processor_name()} on {platform.node()}" if on_cpu else torch.cuda.get_device_name(device),
        "weights": safetensors.torch.save(trained_weights(training.model)),
    }


def _run_epoch(training: Training) -> dict[str, Any]:
    """Run an epoch and return its `EpochResult` with the test scores after it; `seconds` is the time of both."""
    start = time.perf_counter()
    epoch = training.run_epoch()
    precision: Precision = "float32" if training.finished else training.precision
    test = evaluate(training.model, training.data, "test", precision=precision)
    scores = {"test_loss": test.loss, "test_accuracy": test.accuracy}
    return dataclasses.asdict(epoch) | scores | {"seconds": time.perf_counter() - start}
