"""Set up a worker process (device, threads, memory limit) and start trainings in it."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import safetensors.torch
import torch

from dacnn_search.data.dataset import ImageData
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.model import Network
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.training.device_data import ResidentData, pick_device
from dacnn_search.training.memory import GPU_PROCESS_BYTES, GPU_WORKSPACE_BYTES, must_recompute, peak_ratio, step_bytes
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.trainer import EpochResult, Training, build_seeded

EPOCH_FIELDS = {field.name for field in dataclasses.fields(EpochResult)}


class WorkerProcess:
    """A process set up for one training after the other, with the data on its device.

    On a shared GPU the process can't get more memory than its share: it runs out of memory itself, instead of those
    that share the GPU with it.
    """

    def __init__(self, images: ImageData, slots: Slots) -> None:
        torch.set_num_threads(slots.threads)
        device = pick_device() if slots.gpus_per_trial else torch.device("cpu")
        on_gpu = device.type == "cuda"
        self._limit = _claim_gpu_share(device, min(1.0, slots.gpus_per_trial)) if on_gpu else slots.memory
        self.data = ResidentData(images, device, self._limit)
        if on_gpu:
            self._limit -= torch.cuda.memory_allocated(device) + GPU_WORKSPACE_BYTES
        self._bytes_before = 0  # of the GPU, taken before the current training
        self._excess = 1.0  # largest ratio of a training's GPU memory to its estimate

    def start_training(
        self,
        architecture: Architecture,
        recipe: Recipe,
        seed: int,
        checkpoint: bytes | None,
        teacher: Network | None = None,
        first_cycle: int = 0,
    ) -> tuple[Training, list[dict[str, Any]]]:
        """Start a training, or resume one, perhaps with a teacher or a first cycle; return it and its epochs so far.

        A checkpoint (made by `pack_checkpoint`) that is not of this training is not used. Raises TrainingError if a
        step does not fit into memory, even if it computes sections again in the backward pass.
        """
        model = self._build(architecture, recipe, seed, teacher)
        training = Training(model, self.data, recipe, seed=seed, teacher=teacher, first_cycle=first_cycle)
        if checkpoint is None:
            return training, []
        with contextlib.suppress(Exception):  # undamaged, as the hash in its name shows, but of something else
            header = json.loads(checkpoint[8 : 8 + int.from_bytes(checkpoint[:8], "little")])
            epochs = json.loads(header["__metadata__"]["epochs"])
            training.load_state_dict(safetensors.torch.load(checkpoint))
            whole = all(epoch.keys() >= EPOCH_FIELDS for epoch in epochs)
            if whole and [epoch["epoch"] for epoch in epochs] == list(range(1, training.epoch + 1)):
                return training, epochs
        return self.start_training(architecture, recipe, seed, None, teacher, first_cycle)

    def peak_bytes(self, model: Network, recipe: Recipe) -> int | None:
        """Return the GPU memory that the current training took at most, None on a CPU. If that exceeds the estimate,
        the estimates of later networks are raised in proportion."""
        if self.data.device.type != "cuda":
            return None
        peak = torch.cuda.max_memory_allocated(self.data.device) - self._bytes_before
        images = self.data.input_shape, self.data.num_classes
        estimate = step_bytes(model.architecture, *images, recipe, model.recomputes)
        self._excess = max(self._excess, peak_ratio(peak, estimate))
        return peak

    def device_works(self) -> bool:
        """Return whether the device can still be used: after some CUDA errors a process can't."""
        with contextlib.suppress(RuntimeError):
            if self.data.device.type == "cuda":
                torch.cuda.synchronize(self.data.device)
            return True
        return False

    def _build(self, architecture: Architecture, recipe: Recipe, seed: int, teacher: Network | None) -> Network:
        """Build a network that computes sections again in the backward pass if a step does not fit otherwise."""
        shape, classes = self.data.input_shape, self.data.num_classes
        limit, taught_by = self._limit / self._excess, None if teacher is None else teacher.architecture
        recomputes = must_recompute(architecture, shape, classes, recipe, limit, taught_by)
        model = build_seeded(architecture, classes, shape[0], seed)
        model.recomputes = recomputes
        if self.data.device.type == "cuda":
            if "torch._dynamo" in sys.modules:
                torch.compiler.reset()  # frees the memory of the last training's CUDA graphs
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.data.device)
            self._bytes_before = torch.cuda.memory_allocated(self.data.device)
        return model


def run_epochs(
    training: Training,
    epochs: list[dict[str, Any]],
    checkpoint_seconds: float,
    run_epoch: Callable[[Training], dict[str, Any]] = lambda training: dataclasses.asdict(training.run_epoch()),
) -> Iterator[dict[str, Any]]:
    """Run the epochs that a training lacks; append each to `epochs`, and yield it with `checkpoint`, which is bytes
    every `checkpoint_seconds`, else None."""
    saved = time.monotonic()
    while not training.finished:
        epochs.append(run_epoch(training))
        due = not training.finished and time.monotonic() >= saved + checkpoint_seconds
        yield {**epochs[-1], "checkpoint": pack_checkpoint(training, epochs) if due else None}
        saved = time.monotonic() if due else saved


def pack_checkpoint(training: Training, epochs: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a training as a safetensors file with its epochs (an `EpochResult` and more of each) in the header."""
    return safetensors.torch.save(training.state_dict(), {"epochs": json.dumps(epochs)})


def _claim_gpu_share(device: torch.device, share: float) -> float:
    """Limit this process to a share of a GPU's memory; return its bytes less what the process takes for itself."""
    total = torch.cuda.get_device_properties(device).total_memory
    limit = max(share * total - GPU_PROCESS_BYTES, share * total / 2)
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(limit / total, device)
    return limit
