"""Training of one network, epoch by epoch, so that it can be watched, stopped and continued; its evaluation."""

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dacnn_search.common.errors import DataError, TrainingError
from dacnn_search.data.dataset import ImageData, Split
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.model import Network, build
from dacnn_search.training import augmentation, light_optimizers
from dacnn_search.training.device_data import ResidentData
from dacnn_search.training.memory import describe_need, step_bytes
from dacnn_search.training.recipe import Recipe, learning_rate_at
from dacnn_search.training.speed import Precision, choose_precision, should_compile

EVALUATED = 512  # images at once
TEMPERATURE = 4.0  # at which a student follows its teacher


def build_seeded(architecture: Architecture, num_classes: int, in_channels: int, seed: int) -> Network:
    """Return a network with weights drawn by the seed. Global random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(architecture, num_classes, in_channels)


@dataclass(frozen=True)
class EpochResult:
    """The figures of one epoch. Those of the validation are None if there are no validation images."""

    epoch: int  # from 1
    # Mean cross-entropy over the images as trained on: augmented, labels smoothed, before each step. What follows a
    # teacher is not counted, so that it can be compared with that of a training without one.
    train_loss: float
    validation_loss: float | None  # mean cross-entropy in nats
    validation_accuracy: float | None
    learning_rate: float  # of the last step
    images_per_second: float  # of the training alone
    seconds: float  # with validation


class Training:
    """Train a model by a recipe. A training can be stopped after any epoch and continued.

    The model is moved to the data's device and trained in place. The same seed gives the same numbers on the same
    machine. The seed covers order and augmentation, not the weights that the model has (see `build_seeded`).

    A teacher, moved to the device too and put into eval mode, classifies the same augmented batches (Beyer et al.,
    https://arxiv.org/abs/2106.05237). With the recipe's share d of distillation and T = `TEMPERATURE`, the loss is
    (1 - d) * cross-entropy + d * T^2 * KL(teacher || student), the divergence of softmax(logits / T) (Hinton et al.,
    https://arxiv.org/abs/1503.02531). Without a teacher, d is taken as 0.

    With `first_cycle`, the schedule of the learning rate runs once over so many epochs, then again over the others
    ("warm restart", Loshchilov and Hutter, https://arxiv.org/abs/1608.03983). After the first cycle the model is as
    good as after a short training of its own.

    Raises DataError for fewer than 2 training images or data that do not suit the model or the teacher,
    ArchitectureError for images that are too small for one, TrainingError if it does not fit into memory.
    """

    def __init__(
        self,
        model: Network,
        data: ResidentData,
        recipe: Recipe,
        *,
        seed: int = 0,
        teacher: Network | None = None,
        first_cycle: int = 0,
    ) -> None:
        check_suits(model, data)
        if teacher is not None:
            check_suits(teacher, data, "teacher")
        if len(data.train) < 2:
            raise DataError(f"a training needs at least 2 images, but got {len(data.train)}")
        self.model = model
        self.data = data
        self.recipe = recipe
        self.seed = seed
        self.epoch = 0  # epochs done
        self._first_cycle = first_cycle
        self._teacher = teacher if recipe.distillation else None
        shape, classes = data.input_shape, data.num_classes
        taught_by = None if self._teacher is None else self._teacher.architecture
        self._step_bytes = step_bytes(model.architecture, shape, classes, recipe, model.recomputes, taught_by)
        with self._out_of_memory_explained():
            model.to(data.device).to(memory_format=torch.channels_last)
            if self._teacher is not None:
                self._teacher.to(data.device).to(memory_format=torch.channels_last).eval()
        gpu = data.device.type == "cuda"
        if gpu:
            torch.backends.cudnn.deterministic = True  # the default sums gradients in varying order
        self.precision = choose_precision(recipe, [model.architecture], shape, classes, data.device)
        self._optimizer = _build_optimizer(model, recipe)
        spread = recipe.label_smoothing / classes
        self._targets = torch.eye(classes, device=data.device) * (1 - recipe.label_smoothing) + spread
        # No batch has a single image, since batch norm could not take its variance.
        self._batches = min(math.ceil(len(data.train) / recipe.batch_size), len(data.train) // 2)
        self._forward: Callable[[Tensor], Tensor] = model
        if should_compile(recipe, model.architecture, shape, classes, len(data.train), gpu) and not model.recomputes:
            torch.compiler.reset()  # torch would give up compiling after a few networks in one process
            # With CUDA graphs, one for each of the two batch sizes of a training.
            self._forward = torch.compile(model, mode="reduce-overhead", dynamic=False)

    @property
    def finished(self) -> bool:
        return self.epoch >= self.recipe.epochs

    def run_epoch(self) -> EpochResult:
        """Train on every training image once, then evaluate on the validation images.

        Raises TrainingError if a loss is not finite or memory runs out. The training can't be continued then.
        """
        if self.finished:
            raise RuntimeError(f"a training of {self.recipe.epochs} epochs has no epoch {self.epoch + 1}")
        start = time.perf_counter()
        with self._out_of_memory_explained():
            train_loss = self._train_epoch()
            trained = time.perf_counter()
            has_validation = len(self.data.validation) > 0
            validation = evaluate(self.model, self.data, precision=self.precision) if has_validation else None
        self.epoch += 1
        for name, loss in (("training", train_loss), ("validation", validation.loss if validation else 0.0)):
            if not math.isfinite(loss):
                raise TrainingError(f"{name} loss is {loss} in epoch {self.epoch}")
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
        """Return contiguous CPU copies of everything that an epoch changes, flat, as safetensors stores it.

        `model.<name>` are weights and buffers, `optimizer.<parameter>.<name>` are the optimizer's states, `epoch`
        counts the epochs done. Random numbers have no state, since each epoch seeds its own.
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
        """Continue where `state_dict` was taken.

        With the same architecture, data, recipe and seed, the rest of the training is the same to the last bit on the
        same machine. Raises TrainingError for a state of another network.
        """
        try:
            self.model.load_state_dict(_with_prefix("model.", state))
        except RuntimeError as error:
            raise TrainingError(f"the state must be of the same network, but: {error}") from error
        counts_home = self.data.device if self._optimizer.defaults["fused"] else "cpu"
        for name, parameter in self.model.named_parameters():
            for key, value in _with_prefix(f"optimizer.{name}.", state).items():
                # A tensor of the parameter's shape gets its memory format. The others count steps.
                same_shape = value.shape == parameter.shape
                copy = torch.empty_like(parameter).copy_(value) if same_shape else value.to(counts_home, copy=True)
                self._optimizer.state[parameter][key] = copy
        self.epoch = int(state["epoch"])

    def _train_epoch(self) -> float:
        """Pass over the training images once and return the mean loss. Wait for the device only at the end."""
        device, train = self.data.device, self.data.train
        epoch_seed = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0]
        random = torch.Generator(device).manual_seed(int(epoch_seed))
        order = torch.randperm(len(train), generator=random, device=device).to(train.images.device)
        losses, sizes = [], []
        self.model.train()
        for number, (images, labels) in enumerate(self.data.batches(train, order, self._batches)):
            images = self._augment(images, random)
            self._optimizer.zero_grad()
            taught = self._teach(images)
            with self._autocast():
                logits = self._forward(images).float()
            labels_loss = self._loss(logits, labels)
            loss = labels_loss if taught is None else self._taught_loss(labels_loss, logits, taught)
            loss.backward()
            step, steps = self.epoch * self._batches + number, self.recipe.epochs * self._batches
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate_at(self.recipe, step, steps, self._first_cycle * self._batches)
            self._optimizer.step()
            losses.append(labels_loss.detach())
            sizes.append(len(labels))
        return torch.stack(losses).double().cpu().dot(torch.tensor(sizes, dtype=torch.float64)).item() / len(train)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy with smoothed labels, in fewer operations than `F.cross_entropy`."""
        targets = self._targets[labels] / -len(labels)
        return torch.dot(F.log_softmax(logits, 1).flatten(), targets.flatten())

    def _teach(self, images: Tensor) -> Tensor | None:
        """Return the logarithms of the teacher's softmax at `TEMPERATURE`, (n, classes); None without a teacher.

        They are no part of the CUDA graphs of a compiled model, which the teacher is not.
        """
        if self._teacher is None:
            return None
        with torch.no_grad():
            with self._autocast():
                logits = self._teacher(images)
            return F.log_softmax(logits.float() / TEMPERATURE, 1)

    def _taught_loss(self, labels_loss: Tensor, logits: Tensor, taught: Tensor) -> Tensor:
        """The labels' loss and the divergence from the teacher by the recipe's shares; `taught` is from `_teach`."""
        student = F.log_softmax(logits / TEMPERATURE, 1)
        divergence = F.kl_div(student, taught, reduction="batchmean", log_target=True)
        return torch.lerp(labels_loss, TEMPERATURE**2 * divergence, self.recipe.distillation)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.data.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _augment(self, images: Tensor, random: torch.Generator) -> Tensor:
        recipe = self.recipe
        if recipe.crop:
            images = augmentation.crop(images, recipe.crop, random)
        if self.data.flip if recipe.flip == "auto" else recipe.flip:
            images = augmentation.flip(images, random)
        if recipe.cutout:
            images = augmentation.cutout(images, recipe.cutout, random)
        return images

    @contextlib.contextmanager
    def _out_of_memory_explained(self) -> Iterator[None]:
        """Raise running out of memory as TrainingError, with an estimate of what a step needs."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not re.search("out of memory|can't allocate memory", str(error)):
                raise
            raise TrainingError(describe_need(self._step_bytes, self.recipe)) from error


def _build_optimizer(model: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the recipe's optimizer. Kernels and the classifier's weights decay, norms, biases and scalars do not."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    rate, momentum = recipe.learning_rate, recipe.momentum
    if recipe.optimizer == "sgd":
        return light_optimizers.SGD(groups, rate, momentum, nesterov=momentum > 0, fused=True)
    if recipe.optimizer == "adamw":
        return light_optimizers.AdamW(groups, rate, fused=True)
    fused = model.classifier.weight.device.type == "cpu"  # on GPUs not in every version of torch
    return light_optimizers.Adagrad(groups, rate, fused=fused, foreach=not fused)


def _with_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Evaluation:
    loss: float  # mean cross-entropy in nats
    accuracy: float  # share of images classified correctly


def evaluate(
    model: Network,
    data: ResidentData,
    part: Literal["train", "validation", "test"] = "validation",
    *,
    precision: Precision = "float32",
) -> Evaluation:
    """Evaluate a model, in eval mode, on one part of the data, to whose device it is moved unless it is there.

    Raises DataError for a part without images and for data that do not suit the model.
    """
    check_suits(model, data)
    split: Split[Tensor] = getattr(data, part)
    if not len(split):
        raise DataError(f"an evaluation needs at least 1 image, but the {part} part has none")
    if model.classifier.weight.device != data.device:
        model.to(data.device).to(memory_format=torch.channels_last)
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=data.device)
    correct = torch.zeros((), dtype=torch.int64, device=data.device)
    with torch.inference_mode():
        for start in range(0, len(split), EVALUATED):
            images, labels = data.batch(split, slice(start, start + EVALUATED))
            with torch.autocast(data.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                logits = model(images)
            loss += F.cross_entropy(logits.float(), labels, reduction="sum")
            correct += (logits.argmax(1) == labels).sum()
    model.train(was_training)
    return Evaluation(loss.item() / len(split), correct.item() / len(split))


def check_suits(model: Network, data: ImageData | ResidentData, role: str = "network") -> None:
    """Raise DataError if channels or classes differ from the model's, ArchitectureError if images are too small."""
    channels, height, width = data.input_shape
    if (model.in_channels, model.num_classes) != (channels, data.num_classes):
        raise DataError(
            f"the {role} is for {model.in_channels} channels and {model.num_classes} classes, "
            f"but the data have {channels} and {data.num_classes}"
        )
    model.architecture.check_image_size(height, width)
