"""The recipe of a training: optimizer, schedule, epochs, augmentation and precision."""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

# The values of each preset that differ from the defaults of `Recipe`, which are those of `fast`.
PRESETS: dict[str, dict[str, Any]] = {
    # 12 epochs of digits, 10 networks of 4 to 32 layers with and without shortcuts and batch norm, mean and worst
    # accuracy in %: this 97 and 91; at rate 0.01 95 and 79; in batches of 64 94 and 60; without label smoothing too
    # 94 and 70; sgd at 0.2 88 and 10 (97 and 83 where there is batch norm); adagrad at 0.03 in batches of 64 76 and 18.
    "fast": {},
    # Huang, Dwivedi and Roig: on CIFAR 90 epochs, at 0.1 and after 45 of them at 0.01, mirrored on
    # CIFAR-100. Their SVHN: 60 epochs, milestones 1/3 and 2/3. They do not give the batch size.
    "paper": {
        "epochs": 90,
        "batch_size": 128,
        "optimizer": "adagrad",
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "schedule": "step",
        "label_smoothing": 0.0,
    },
    # For tens of thousands of images and networks of 1,000 to 50,000 parameters. A network of 16,000, 25 epochs of
    # 20,000 images of CIFAR-100, one seed, accuracy on 5,000 others in %: paper 26.4; fast in batches of 128 36.7;
    # without label smoothing 37.1; with crops by 2 pixels too 37.5; taught at a temperature of 4 38.8 (at 2: 38.5). No
    # gain: a moving average of the weights (35.5 beside 36.1), a rise of 0.1 (36.2 beside 37.1), a rate of 0.01 (34.5),
    # less weight decay (37.1). Fashion-MNIST, 8 epochs: 91.8 with label smoothing, 92.4 without, 91.2 with crops.
    # Batches of 32 beside 128, at equal epochs and 1.1 to 1.4 times the CPU time: CIFAR-100, 20 epochs with crops, one
    # seed: one kernel with a history 30.6 and 27.6 with 18,000 images, 35.0 and 33.9 with 45,000, a kernel for each
    # section 36.0 and 35.1 with 18,000; Fashion-MNIST, 8 epochs, two seeds: 88.3 and 87.9, 92.3 and 92.1.
    "best": {
        "epochs": 60,
        "label_smoothing": 0.0,
        "distillation": 0.7,
    },
}

# One cycle: a linear rise from a share of the rate, over a share of the steps, then half a cosine to 0.
FIRST_SHARE, RISE = 0.04, 0.3
STEP_FACTOR = 0.1


class Recipe(BaseModel):
    """The settings of a training. `name` chooses the values of all fields that are not given."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    name: Literal["fast", "paper", "best"] = Field(
        default="fast",
        description="Gives the values of all fields left out: fast, for short trials, best, for full trainings, or "
        "paper.",
    )
    epochs: int = Field(
        default=12, ge=1, le=10_000, description="Passes over the training images (paper: 90, best: 60)."
    )
    batch_size: int = Field(default=32, ge=2, le=65_536, description="Images per step, at most (paper: 128).")
    optimizer: Literal["sgd", "adamw", "adagrad"] = Field(
        default="adamw",
        description="sgd has Nesterov's momentum (paper: adagrad). One that is not the preset's needs a learning_rate.",
    )
    learning_rate: float = Field(
        default=0.02, gt=0, le=100, description="The highest rate of the schedule (paper: 0.1)."
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of sgd; the others do not use it.")
    weight_decay: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Decoupled from the gradient in adamw. Norms, biases and the scalars of mixes and histories do not "
        "decay (paper: 0).",
    )
    schedule: Literal["one_cycle", "step", "constant"] = Field(
        default="one_cycle",
        description="one_cycle rises for 30% of the steps, then falls to 0; step divides by 10 at each "
        "milestone (paper: step).",
    )
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.5,),
        max_length=10,
        strict=False,  # a list too
        description="For step: the shares of the training after which the rate is divided by 10.",
    )
    label_smoothing: float = Field(
        default=0.1, ge=0, lt=1, description="Share of a label that is spread over all classes (paper and best: 0)."
    )
    distillation: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the loss that follows a teacher. In the full trainings of a front the most accurate "
        "network teaches the others; trials have no teacher (best: 0.7).",
    )
    flip: Literal["auto", True, False] = Field(
        default="auto",
        description="Mirror half of the images; auto: for CIFAR and Fashion-MNIST, folders and .npz files. Say false "
        "where a mirror image is something else: letters, signs, left and right.",
    )
    crop: int = Field(default=0, ge=0, le=64, description="Shift images by up to this many pixels; 0 for none.")
    cutout: int = Field(default=0, ge=0, le=256, description="Blank a square of this side in pixels; 0 for none.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Of the convolutions; weights stay float32. auto: bfloat16 where it is faster."
    )
    compiled: Literal["auto", True, False] = Field(
        default="auto",
        description="By torch.compile, with CUDA graphs. auto: on a GPU, for trainings long enough to repay it.",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Add the preset's values for fields that are not given."""
        name = given.get("name", "fast") if isinstance(given, dict) else None
        if not isinstance(name, str) or name not in PRESETS:
            return given  # the validation of the fields raises the error
        preset = PRESETS[name]
        usual = preset.get("optimizer", cls.model_fields["optimizer"].default)
        optimizer = given.get("optimizer", usual)
        if optimizer != usual and "learning_rate" not in given:
            raise ValueError(
                f"an optimizer other than the preset's {usual} needs a learning_rate beside it, "
                f"but {optimizer} has none"
            )
        return {**preset, **given}

    @model_validator(mode="after")
    def _check_milestones(self) -> "Recipe":
        if any(a >= b for a, b in pairwise(self.milestones)):
            raise ValueError(f"milestones must rise, but are {list(self.milestones)}")
        return self

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a distillation of 0 where the preset has none: records of the time before it lack it too."""
        values: dict[str, Any] = dump(self)
        if not self.distillation and "distillation" not in PRESETS[self.name]:
            values.pop("distillation", None)
        return values


def learning_rate_at(recipe: Recipe, step: int, steps: int, first_cycle: int = 0) -> float:
    """Return the learning rate of a step, counted from 0, in a training of `steps` steps.

    The first `first_cycle` steps have a complete schedule of their own, and the others another.
    """
    progress = step / first_cycle if step < first_cycle else (step - first_cycle) / (steps - first_cycle)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "step":
        return recipe.learning_rate * STEP_FACTOR ** sum(progress >= share for share in recipe.milestones)
    if progress < RISE:
        return recipe.learning_rate * (FIRST_SHARE + (1 - FIRST_SHARE) * progress / RISE)
    return recipe.learning_rate * (1 + math.cos(math.pi * (progress - RISE) / (1 - RISE))) / 2
