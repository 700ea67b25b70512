"""What runs on Ray's workers for a reproduction: one training, its test curve, its checkpoints."""

import json
import math
import platform
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dacnn_search.architecture import Architecture
from dacnn_search.data import ImageData
from dacnn_search.errors import TrainingError
from dacnn_search.packing import Slots
from dacnn_search.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from dacnn_search.training import Training

__all__ = ["train_watched"]

Curve = dict[str, list[float | None]]
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
    the training's precision. state: a checkpoint to carry on from. Yields `epoch`, `test_accuracy` and `checkpoint`
    (bytes now and then, else None) after each epoch, and at the end the result. A training whose loss is not finite is
    a result too, with a `reason` and no accuracy.
    """
    import torch

    training, curve, seconds = _begin(data, slots, Architecture.from_dict(architecture), recipe, seed, state)
    kept, reason = time.monotonic(), None
    while reason is None and not training.finished:
        start = time.monotonic()
        try:
            _run_epoch(training, curve)
        except TrainingError as error:
            if all(torch.isfinite(parameter).all() for parameter in training.model.parameters()):
                raise  # no memory, say
            reason = str(error)
        seconds += time.monotonic() - start
        if reason is None:
            checkpoint = None
            if not training.finished and time.monotonic() >= kept + checkpoint_seconds:
                checkpoint, kept = _pack(training, curve, seconds), time.monotonic()
            accuracy = curve["test_accuracy"][-1]
            yield {"epoch": training.epoch, "test_accuracy": accuracy, "checkpoint": checkpoint}
    yield _result(training, curve, seconds, reason)


def _begin(
    data: ImageData, slots: Slots, architecture: Architecture, recipe: Recipe, seed: int, state: bytes | None
) -> tuple["Training", Curve, float]:
    """A training, its curve and the seconds it took so far: from the beginning, or as `_pack` kept it."""
    import safetensors.torch

    from dacnn_search.place import Place
    from dacnn_search.training import Training

    place = Place(data, slots)
    training = Training(place.network(architecture, recipe, seed), place.data, recipe, seed=seed)
    if state is None:
        return training, {kind: [] for kind in KINDS}, 0.0
    training.load_state_dict(safetensors.torch.load(state))
    header = json.loads(state[8 : 8 + int.from_bytes(state[:8], "little")])["__metadata__"]
    return training, json.loads(header["curve"]), json.loads(header["seconds"])


def _run_epoch(training: "Training", curve: Curve) -> None:
    import torch

    from dacnn_search.trainings.evaluation import evaluate_split

    epoch = training.run_epoch()
    precision = torch.float32 if training.finished else training.precision
    test = evaluate_split(training.model, training.data, training.data.test, precision)
    for kind, value in zip(KINDS, (epoch.train_loss, test.loss, test.accuracy), strict=True):
        curve[kind].append(round(value, 6) if math.isfinite(value) else None)


def _result(training: "Training", curve: Curve, seconds: float, reason: str | None) -> dict[str, Any]:
    """The keys of a line in the ledger, and the weights as a safetensors file."""
    import safetensors.torch

    from dacnn_search.trainings.weights import trained_weights

    return {
        "test_accuracy": curve["test_accuracy"][-1] if reason is None else None,
        "test_loss": curve["test_loss"][-1] if reason is None else None,
        "reason": reason,
        "curve": curve,
        "seconds": round(seconds, 2),
        "precision": str(training.precision).removeprefix("torch."),
        "device": _device_name(training.data.device),
        "weights": safetensors.torch.save(trained_weights(training.model)),
    }


def _pack(training: "Training", curve: Curve, seconds: float) -> bytes:
    """A training as a safetensors file, its curve in the header."""
    import safetensors.torch

    return safetensors.torch.save(training.state_dict(), {"curve": json.dumps(curve), "seconds": json.dumps(seconds)})


def _device_name(device: "torch.device") -> str:
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    from dacnn_search.run_directory import processor_name

    return f"{processor_name()} on {platform.node()}"
