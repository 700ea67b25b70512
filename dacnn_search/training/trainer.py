"""Training of one network, epoch by epoch, so that it can be watched, stopped and carried on."""

import contextlib
import ctypes
import math
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dacnn_search.common.errors import DataError, TrainingError
from dacnn_search.common.units import format_bytes
from dacnn_search.data.dataset import ImageData
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import count_macs, gpu_step_seconds
from dacnn_search.network.model import Network, build
from dacnn_search.training import augmentation, optimizers
from dacnn_search.training.device_data import ResidentData
from dacnn_search.training.evaluation import (
    autocast,
    check_suits,
    evaluate,
    evaluate_split,
)
from dacnn_search.training.memory import step_bytes
from dacnn_search.training.recipe import Recipe, learning_rate_at
from dacnn_search.training.speed import fix_precision

__all__ = [
    "EpochResult",
    "ResidentData",
    "Training",
    "build_seeded",
    "evaluate",
    "is_compiled",
    "must_recompute",
    "prepare_process",
    "train",
]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
MOST_KEPT = 2**30

# What torch.compile takes, and what share of a step it saves: assumed for GPUs, not measured. On CPUs it saves nothing
# (a step takes 0.9 to 1.25 times as long as without, and compiling 6 to 40 s).
COMPILE_SECONDS, COMPILED_SHARE = 60.0, 0.25


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave; the validation figures are None where there are no validation images.

    train_loss: mean over the images as they were trained on: augmented, labels smoothed, before each step.
    validation_loss: mean cross-entropy in nats. learning_rate: of the last step.
    images_per_second: of the training alone. seconds: with validation.
    """

    epoch: int  # from 1
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    images_per_second: float
    seconds: float


class Training:
    """One training of a model by a recipe, that can be stopped after any epoch and carried on.

    The model is moved to the device of the data and trained in place. One seed gives the same numbers on the
    same machine; it covers order and augmentation, not the weights the model has (for those: `build_seeded`).

    data: a `ResidentData` can serve any number of trainings; `device` is where an `ImageData` is moved.
    Raises DataError for fewer than 2 training images and for data that do not suit the model,
    ArchitectureError for images too small for it, TrainingError if there is no memory for it.
    """

    def __init__(
        self,
        model: Network,
        data: ImageData | ResidentData,
        recipe: Recipe,
        *,
        seed: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        check_suits(model, data)
        if len(data.train) < 2:
            raise DataError(f"a training needs at least 2 images, but got {len(data.train)}")
        self.model = model
        self.recipe = recipe
        self.seed = seed
        self.epoch = 0  # epochs done
        with self._telling_memory(data):
            self.data = data if isinstance(data, ResidentData) else ResidentData(data, device)
            model.to(self.data.device).to(memory_format=torch.channels_last)
        if self.data.device.type == "cuda":
            torch.backends.cudnn.deterministic = True  # the default sums gradients in varying order
        fixed = fix_precision(recipe, [model.architecture], data.input_shape, data.num_classes, self.data.device)
        self.precision: torch.dtype = getattr(torch, fixed.precision)
        self._optimizer = _build_optimizer(model, recipe)
        spread = recipe.label_smoothing / data.num_classes
        self._targets = torch.eye(data.num_classes, device=self.data.device) * (1 - recipe.label_smoothing) + spread
        # Of batch_size images at most, but never of a single one, whose variance batch norm could not take.
        self._batches = min(math.ceil(len(data.train) / recipe.batch_size), len(data.train) // 2)
        compiled = is_compiled(recipe, model.architecture, data, self.data.device) and not model.recomputes
        self._forward = _compile(model) if compiled else model

    @property
    def finished(self) -> bool:
        return self.epoch >= self.recipe.epochs

    def run_epoch(self) -> EpochResult:
        """Train on every training image once, then evaluate on the validation images.

        Raises TrainingError if a loss is not finite or memory runs out; the training is of no use then.
        """
        if self.finished:
            raise RuntimeError(f"a training of {self.recipe.epochs} epochs has no epoch {self.epoch + 1}")
        start = time.perf_counter()
        with self._telling_memory(self.data):
            train_loss = self._train_epoch()
            trained = time.perf_counter()
            validation = None
            if len(self.data.validation):
                validation = evaluate_split(self.model, self.data, self.data.validation, self.precision)
        self.epoch += 1
        _check_finite("training", train_loss, self.epoch)
        if validation:
            _check_finite("validation", validation.loss, self.epoch)
        return EpochResult(
            epoch=self.epoch,
            train_loss=train_loss,
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            learning_rate=self._optimizer.param_groups[0]["lr"],
            images_per_second=len(self.data.train) / (trained - start),
            seconds=time.perf_counter() - start,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Copies, on the CPU and contiguous, of all that an epoch changes; flat, as safetensors stores it.

        `model.<name>` are weights and buffers, `optimizer.<parameter>.<name>` is what the optimiser keeps,
        `epoch` counts the epochs done. Random numbers have no state, as each epoch seeds its own.
        """
        state = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, tensor in self._optimizer.state[parameter].items():
                state[f"optimizer.{name}.{key}"] = tensor
        state["epoch"] = torch.tensor(self.epoch)
        return {
            name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, tensor in state.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Carry on where `state_dict` was taken.

        With the same architecture, data, recipe and seed the rest of the training is the same to the last
        bit on the same machine. Raises TrainingError for a state of another network.
        """
        try:
            self.model.load_state_dict(_below("model.", state))
        except RuntimeError as error:
            raise TrainingError(f"the state must be of the same network, but: {error}") from error
        fused = self._optimizer.defaults["fused"]
        for name, parameter in self.model.named_parameters():
            stored = _below(f"optimizer.{name}.", state)
            self._optimizer.state[parameter] = {k: _like(parameter, value, fused) for k, value in stored.items()}
        self.epoch = int(state["epoch"])

    def _train_epoch(self) -> float:
        """One pass over the training images; the mean loss. The host waits for the device only at the end."""
        device, train = self.data.device, self.data.train
        random = torch.Generator(device).manual_seed(_epoch_seed(self.seed, self.epoch))
        order = torch.randperm(len(train), generator=random, device=device).to(train.images.device)
        losses, sizes = [], []
        self.model.train()
        for number, (images, labels) in enumerate(self.data.batches(train, order, self._batches)):
            images = self._augment(images, random)
            self._optimizer.zero_grad()
            with autocast(device, self.precision):
                logits = self._forward(images)
            loss = self._loss(logits.float(), labels)
            loss.backward()
            self._set_learning_rate(self.epoch * self._batches + number)
            self._optimizer.step()
            losses.append(loss.detach())
            sizes.append(len(labels))
        return torch.stack(losses).double().cpu().dot(torch.tensor(sizes, dtype=torch.float64)).item() / len(train)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy with smoothed labels: that of `F.cross_entropy`, which takes more operations."""
        targets = self._targets[labels] / -len(labels)
        return torch.dot(F.log_softmax(logits, 1).flatten(), targets.flatten())

    def _augment(self, images: Tensor, random: torch.Generator) -> Tensor:
        recipe = self.recipe
        if recipe.crop:
            images = augmentation.crop(images, recipe.crop, random)
        if self.data.flip if recipe.flip == "auto" else recipe.flip:
            images = augmentation.flip(images, random)
        if recipe.cutout:
            images = augmentation.cutout(images, recipe.cutout, random)
        return images

    def _set_learning_rate(self, step: int) -> None:
        rate = learning_rate_at(self.recipe, step, self.recipe.epochs * self._batches)
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    @contextlib.contextmanager
    def _telling_memory(self, data: ImageData | ResidentData) -> Iterator[None]:
        """Raise running out of memory as TrainingError."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            model, recipe = self.model, self.recipe
            needed = step_bytes(model.architecture, data.input_shape, data.num_classes, recipe, model.recomputes)
            raise TrainingError(
                f"out of memory: a step with {recipe.batch_size} images needs about {format_bytes(needed)}"
            ) from error


def prepare_process(threads: int = 1) -> None:
    """Set a process up for training, before it does anything else with torch.

    With glibc, memory that was freed is kept for the next step (mallopt; up to 1 GiB apiece). By default it goes back
    to the system and comes again page by page, 7,000 to 11,000 faults in a float32 step at 32x32 pixels.
    """
    torch.set_num_threads(threads)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(parameter, MOST_KEPT)


def train(
    model: Network,
    data: ImageData | ResidentData,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> Iterator[EpochResult]:
    """One result per epoch of a `Training`, from its beginning or from `state`, its `state_dict`, on."""
    training = Training(model, data, recipe, seed=seed, device=device)
    if state is not None:
        training.load_state_dict(state)
    while not training.finished:
        yield training.run_epoch()


def must_recompute(architecture: Architecture, data: ImageData | ResidentData, recipe: Recipe, limit: float) -> bool:
    """Whether a training step fits into `limit` bytes of memory only if sections are computed again in the backward
    pass, by the closed form. Raises TrainingError if it does not even then."""
    if step_bytes(architecture, data.input_shape, data.num_classes, recipe) <= limit:
        return False
    needed = step_bytes(architecture, data.input_shape, data.num_classes, recipe, recomputes=True)
    if needed > limit:
        raise TrainingError(
            f"out of memory: a step with {recipe.batch_size} images needs about {format_bytes(needed)}, but a trial "
            f"may use {format_bytes(int(limit))}"
        )
    return True


def is_compiled(
    recipe: Recipe, architecture: Architecture, data: ImageData | ResidentData, device: torch.device
) -> bool:
    """Whether a training is compiled: as the recipe says or, by `auto`, on a GPU if that saves more than it takes and
    there is what torch needs for it."""
    if recipe.compiled != "auto":
        return recipe.compiled
    if device.type != "cuda" or not _can_compile():
        return False
    macs = count_macs(architecture, data.input_shape, data.num_classes)
    steps = recipe.epochs * math.ceil(len(data.train) / recipe.batch_size)
    seconds = steps * max(gpu_step_seconds(3.0 * macs * recipe.batch_size, architecture.layers))
    return seconds * COMPILED_SHARE > COMPILE_SECONDS


def build_seeded(architecture: Architecture, num_classes: int, in_channels: int, seed: int) -> Network:
    """A network with weights drawn by that seed; the global random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(architecture, num_classes, in_channels)


def _compile(model: Network) -> Callable[[Tensor], Tensor]:
    """By torch.compile, with CUDA graphs: one for each of the two sizes of batches."""
    torch.compiler.reset()  # of earlier networks of this process: after a few of them torch would give up compiling
    return torch.compile(model, mode="reduce-overhead", dynamic=False)


def _can_compile() -> bool:
    """Whether there are the C compiler and the headers that Triton needs, where it looks for them."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return bool(compiler) and Path(sysconfig.get_path("include"), "Python.h").is_file()


def _build_optimizer(model: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser; kernels and classifier decay, norms and biases do not."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    rate, momentum = recipe.learning_rate, recipe.momentum
    if recipe.optimizer == "sgd":
        return optimizers.SGD(groups, rate, momentum, nesterov=momentum > 0, fused=True)
    if recipe.optimizer == "adamw":
        return optimizers.AdamW(groups, rate, fused=True)
    fused = model.classifier.weight.device.type == "cpu"  # on GPUs not in every version of torch
    return optimizers.Adagrad(groups, rate, fused=fused, foreach=not fused)


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def _check_finite(name: str, loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(f"{name} loss is {loss} in epoch {epoch}")


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _like(parameter: Tensor, value: Tensor, fused: bool) -> Tensor:
    """A copy of what an optimiser keeps of a parameter: tensors of its shape lie in memory as it does; a
    count of steps is on its device if the optimiser is fused, else on the CPU."""
    if value.shape == parameter.shape:
        return torch.empty_like(parameter).copy_(value)
    return value.to(parameter.device if fused else "cpu", copy=True)


def _is_out_of_memory(error: Exception) -> bool:
    """Of a GPU or, where torch raises a plain RuntimeError, of the CPU."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in ("out of memory", "can't allocate memory"))
