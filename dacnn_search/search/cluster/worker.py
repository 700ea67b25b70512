"""Where a worker process trains: its device with the data on it, its threads, its share of the memory."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors.torch
import torch

from dacnn_search.data.dataset import ImageData
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.model import Network
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.training.device_data import ResidentData, pick_device
from dacnn_search.training.memory import PROCESS_BYTES, WORKSPACE_BYTES, excess, step_bytes
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.trainer import EpochResult, Training, build_seeded, must_recompute, prepare_process

__all__ = ["Place", "packed"]

EPOCH_FIELDS = {field.name for field in dataclasses.fields(EpochResult)}


class Place:
    """A process set up as `packing.Slots` say, for one training after the other, with the data at hand.

    On a GPU that is shared the process can't get more memory than its share: it runs out of memory itself, instead of
    those that share the GPU with it.
    """

    def __init__(self, images: ImageData, slots: Slots) -> None:
        prepare_process(slots.threads)
        device = pick_device() if slots.gpus_per_trial else torch.device("cpu")
        self._limit = _claim(device, min(1.0, slots.gpus_per_trial)) if device.type == "cuda" else slots.memory
        self.data = ResidentData(images, device, self._limit)
        if device.type == "cuda":
            self._limit -= torch.cuda.memory_allocated(device) + WORKSPACE_BYTES
        self._before = 0  # bytes of the GPU that were taken before the training of the last network
        self._excess = 1.0  # what the largest training took of a GPU, over its estimate

    def network(self, architecture: Architecture, recipe: Recipe, seed: int) -> Network:
        """A network to be trained here, with weights drawn by that seed; it computes sections again in the backward
        pass if a step does not fit otherwise. Raises TrainingError if it does not even then."""
        recomputes = must_recompute(architecture, self.data, recipe, self._limit / self._excess)
        model = build_seeded(architecture, self.data.num_classes, self.data.input_shape[0], seed)
        model.recomputes = recomputes
        if self.data.device.type == "cuda":
            if "torch._dynamo" in sys.modules:
                torch.compiler.reset()  # the CUDA graphs of the training before, which hold memory
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.data.device)
            self._before = torch.cuda.memory_allocated(self.data.device)
        return model

    def training(
        self, architecture: Architecture, recipe: Recipe, seed: int, checkpoint: bytes | None
    ) -> tuple[Training, list[dict[str, Any]]]:
        """A training of such a network and its epochs so far: at its beginning or, if there is one of this training, at
        a checkpoint made by `packed`. Raises TrainingError as `network` does."""
        training = Training(self.network(architecture, recipe, seed), self.data, recipe, seed=seed)
        if checkpoint is None:
            return training, []
        try:
            state, epochs = _unpacked(checkpoint)
            training.load_state_dict(state)
            whole = all(epoch.keys() >= EPOCH_FIELDS for epoch in epochs)
            if whole and [epoch["epoch"] for epoch in epochs] == list(range(1, training.epoch + 1)):
                return training, epochs
        except Exception:  # whole, as its name tells, and yet of something else
            pass
        return self.training(architecture, recipe, seed, None)

    def peak_bytes(self, model: Network, recipe: Recipe) -> int | None:
        """The GPU memory that the training of the last network took at most, None on a CPU. If that is more than
        estimated, the estimates of later networks are raised in proportion."""
        if self.data.device.type != "cuda":
            return None
        peak = torch.cuda.max_memory_allocated(self.data.device) - self._before
        shape, classes = self.data.input_shape, self.data.num_classes
        estimate = step_bytes(model.architecture, shape, classes, recipe, model.recomputes)
        self._excess = max(self._excess, excess(peak, estimate))
        return peak

    def answers(self) -> bool:
        """Whether the device can still be used: after some errors of CUDA a process can't."""
        try:
            if self.data.device.type == "cuda":
                torch.cuda.synchronize(self.data.device)
        except RuntimeError:
            return False
        return True


def packed(training: Training, epochs: Sequence[Mapping[str, Any]]) -> bytes:
    """A training as a safetensors file, with its epochs, an `EpochResult` and more of each, in the header."""
    return safetensors.torch.save(training.state_dict(), {"epochs": json.dumps(epochs)})


def _unpacked(data: bytes) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return safetensors.torch.load(data), json.loads(header["__metadata__"]["epochs"])


def _claim(device: torch.device, share: float) -> float:
    """The bytes of a share of a GPU's memory, less what a process takes for itself."""
    total = torch.cuda.get_device_properties(device).total_memory
    limit = max(share * total - PROCESS_BYTES, share * total / 2)
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(limit / total, device)
    return limit
