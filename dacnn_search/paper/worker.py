"""Train one network on a worker, with its test curve and its checkpoints."""

import dataclasses
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dacnn_search.common.errors import TrainingError
from dacnn_search.data.dataset import ImageData
from dacnn_search.network.architecture import Architecture
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from dacnn_search.training.trainer import Training

__all__ = ["train_watched"]

KINDS = ("train_loss", "test_loss", "test_accuracy")


def train_watched(
    data: ImageData,
    architecture: Mapping[str, Any],
    recipe: Recipe,
    seed: int,
    slots: Slots,
    state: bytes | None,
    checkpoint_seconds: float,
) -> Iterator[dict[str, Any]]:
    """Train one network as the paper did: on all training images, with a look at the test images after every epoch.

    Nothing is selected by that look: the result is the last epoch's, in float32; the epochs before it are scored in
    the training's precision. Yields each epoch as `run_epochs` does, from the checkpoint `state` on if there is one,
    with its test scores; at the end the result. A training whose loss is not finite is a result too, with a `reason`
    and no accuracy.
    """
    from dacnn_search.search.cluster.worker import WorkerProcess, run_epochs

    process = WorkerProcess(data, slots)
    training, epochs = process.start_training(Architecture.from_dict(architecture), recipe, seed, state)
    reason = None
    try:
        yield from run_epochs(training, epochs, checkpoint_seconds, _run_epoch)
    except TrainingError as error:
        if all(parameter.isfinite().all() for parameter in training.model.parameters()):
            raise  # for another cause, such as a lack of memory
        reason = str(error)
    yield _result(training, epochs, reason)


def _run_epoch(training: "Training") -> dict[str, Any]:
    """Run an epoch and return its `EpochResult` with the test scores after it; `seconds` is the time of both."""
    import torch

    from dacnn_search.training.evaluation import evaluate_split

    start = time.perf_counter()
    epoch = training.run_epoch()
    precision = torch.float32 if training.finished else training.precision
    test = evaluate_split(training.model, training.data, training.data.test, precision)
    scores = {"test_loss": test.loss, "test_accuracy": test.accuracy}
    return dataclasses.asdict(epoch) | scores | {"seconds": time.perf_counter() - start}


def _result(training: "Training", epochs: Sequence[Mapping[str, Any]], reason: str | None) -> dict[str, Any]:
    """Return what the ledger's record tells, and the weights as a safetensors file."""
    import safetensors.torch

    from dacnn_search.training.weights import trained_weights

    curve = {kind: [_rounded(epoch[kind]) for epoch in epochs] for kind in KINDS}
    return {
        "test_accuracy": curve["test_accuracy"][-1] if reason is None else None,
        "test_loss": curve["test_loss"][-1] if reason is None else None,
        "reason": reason,
        "curve": curve,
        "seconds": round(sum(epoch["seconds"] for epoch in epochs), 2),
        "precision": str(training.precision).removeprefix("torch."),
        "device": _device_name(training.data.device),
        "weights": safetensors.torch.save(trained_weights(training.model)),
    }


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _device_name(device: "torch.device") -> str:
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    from dacnn_search.common.machine import processor_name

    return f"{processor_name()} on {platform.node()}"
