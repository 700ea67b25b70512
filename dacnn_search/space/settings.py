"""The models behind the YAML files: search spaces and training configs.

Each free part of an architecture is a fixed value, `{choice: [...]}` or `{range: {low:, high:, step:}}`.
"""

import functools
import json
from typing import Annotated, Any, Generic, Literal, TypeVar, cast, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag
from pydantic.functional_validators import AfterValidator, BeforeValidator, model_validator

from dacnn_search.common.errors import InputError
from dacnn_search.common.units import parse_bytes, parse_count, parse_duration
from dacnn_search.data.dataset import DataConfig
from dacnn_search.network.architecture import (
    MOST_DEPTH,
    MOST_HISTORY,
    MOST_SECTIONS,
    MOST_WIDTH,
    SHORTCUTS_OF_RESIDUAL,
    Architecture,
    Convolutions,
    Mixing,
    Regulators,
    Sharing,
    Shortcuts,
)
from dacnn_search.network.zoo import get
from dacnn_search.training.recipe import Recipe

T = TypeVar("T")
MOST_OPTIONS = 1000
CYCLES = 4  # the first cycle takes one of so many parts of the epochs, by default


class Settings(BaseModel):
    """Base of all parts: no unknown keys, no silent conversions, no changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Choice(Settings, Generic[T]):
    """One of the listed values."""

    choice: list[T] = Field(min_length=1, max_length=MOST_OPTIONS, description="The values to choose from.")

    @model_validator(mode="after")
    def _distinct(self) -> "Choice[T]":
        if len({json.dumps(value) for value in self.choice}) < len(self.choice):
            raise ValueError(f"the values of a choice must differ, but are {self.choice}")
        return self


class Bounds(Settings, Generic[T]):
    """low, low + step, ... up to high."""

    low: T = Field(description="The smallest value.")
    high: T = Field(description="The largest value, if a whole number of steps leads there.")
    step: T = Field(default=1, gt=0, description="From one value to the next.")  # type: ignore[assignment]

    @model_validator(mode="after")
    def _ordered(self) -> "Bounds[T]":
        low, high, step = self.low, self.high, self.step
        if not low <= high:  # type: ignore[operator]
            raise ValueError(f"low <= high must hold, but got (low={low}, high={high})")
        if (high - low) / step > MOST_OPTIONS:  # type: ignore[operator]
            raise ValueError(f"a range may have {MOST_OPTIONS} steps, but {low} to {high} by {step} has more")
        return self


class Range(Settings, Generic[T]):
    """Evenly spaced numbers."""

    range: Bounds[T] = Field(description="The bounds, both included, and the step.")

    @property
    def values(self) -> tuple[T, ...]:
        low, high, step = cast(Any, (self.range.low, self.range.high, self.range.step))
        count = int((high - low) / step + 1e-9) + 1
        return tuple(low + i * step if isinstance(low, int) else round(low + i * step, 10) for i in range(count))


def _kind(value: Any) -> str | None:
    if not isinstance(value, list | dict | Settings):
        return "value"
    keys = type(value).model_fields if isinstance(value, Settings) else value
    return next((key for key in ("choice", "range") if key in keys), None)


ONE_OR_MANY = Discriminator(
    _kind,
    custom_error_type="one_or_many",
    custom_error_message="must be a value, {choice: [...]} or {range: {low:, high:, step:}}",
)


class Free(RootModel[Any], Generic[T]):
    """A value that a space fixes or leaves open."""

    model_config = ConfigDict(strict=True, frozen=True)
    root: Annotated[Annotated[T, Tag("value")] | Annotated[Choice[T], Tag("choice")], ONE_OR_MANY]

    @functools.cached_property
    def values(self) -> tuple[T, ...]:
        """The values that it may have, in their order."""
        if isinstance(self.root, Choice):
            return tuple(self.root.choice)
        return self.root.values if isinstance(self.root, Range) else (self.root,)

    @functools.cached_property
    def rising(self) -> list[Any]:
        """The values of a history, a depth or regulators, sorted by the parameters they lead to."""
        values: tuple[Any, ...] = self.values
        return sorted(values, key=regulator_rank if isinstance(values[0], str) else None)

    @property
    def ordered(self) -> bool:
        """True for evenly spaced whole numbers (other steps are not exact: samplers that add them leave the list)."""
        return isinstance(self.root, Range) and isinstance(self.root.range.low, int)


def regulator_rank(regulators: str) -> int:
    """Return the place of a regulator placement in the order of parameters."""
    return get_args(Regulators).index(regulators)


class FreeNumber(Free[T], Generic[T]):
    """A number that a space fixes or leaves open."""

    root: Annotated[  # type: ignore[assignment]
        Annotated[T, Tag("value")] | Annotated[Choice[T], Tag("choice")] | Annotated[Range[T], Tag("range")],
        ONE_OR_MANY,
    ]


PerSection = Annotated[
    Annotated[T, Tag("all")] | Annotated[list[T], Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "all"),
]

Count = Annotated[int, BeforeValidator(parse_count, json_schema_input_type=int | str), Field(ge=1)]
Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str), Field(ge=1)]
Objective = Literal["parameters", "flash"]  # names of costs
Budget = Annotated[str, BeforeValidator(str, json_schema_input_type=int | str)]  # read once the objective is known
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seconds = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=float | str), Field(gt=0)]
SectionCount = Annotated[int, Field(ge=1, le=MOST_SECTIONS)]
Depth = Annotated[int, Field(ge=1, le=MOST_DEPTH)]
Width = Annotated[int, Field(ge=1, le=MOST_WIDTH)]
Growth = Annotated[float, Field(gt=0, le=16)]
History = Annotated[int, Field(ge=1, le=MOST_HISTORY)]


def _shortcuts_of_residual(given: Any) -> Any:
    """Return what is given for `shortcuts`, which older files call `residual`, in today's words."""
    if isinstance(given, dict):
        return {key: [*map(_shortcuts_of_residual, v)] if isinstance(v, list) else v for key, v in given.items()}
    return SHORTCUTS_OF_RESIDUAL[given] if isinstance(given, bool) else given


class ArchitectureSettings(Settings, use_attribute_docstrings=True):
    """The space of networks. `depth` and `regulators` are drawn anew for each section, or listed one per section."""

    sections: FreeNumber[SectionCount]
    """How many sections; 2x2 max pooling stands between them."""
    depth: PerSection[FreeNumber[Depth]]
    """Layers of a section, not counting the stem and the transition to another width."""
    width: FreeNumber[Width]
    """Channels of the first section."""
    growth: FreeNumber[Growth] = FreeNumber[Growth](1.0)
    """Width of a section over that of the one before, rounded to whole channels.
    Not used under `sharing: network`, where all sections have one width."""
    sharing: Free[Sharing] = Free[Sharing]("section")
    """Which layers share an anchor: all of the network (plain), those of a section (mixed), the second ones of a
    section's blocks, or none (free weights)."""
    anchors: FreeNumber[Depth] = FreeNumber[Depth](1)
    """How many anchors those layers have. Not used without sharing."""
    mixing: Free[Mixing] = Free[Mixing]("turn")
    """Layers use their anchors in turn, or each a learned mix of all of them. Not used with one anchor."""
    shortcuts: Annotated[Free[Literal["auto", Shortcuts]], BeforeValidator(_shortcuts_of_residual)] = Field(
        default=Free[Literal["auto", Shortcuts]]("auto"), validation_alias=AliasChoices("shortcuts", "residual")
    )
    """Shortcuts around blocks of two layers, from a layer's last inputs (history), or none; auto: around blocks in
    networks deeper than 17 layers."""
    history: FreeNumber[History] = FreeNumber[History](Architecture.history)
    """How many of its last inputs a layer adds. Used with `shortcuts: history` alone."""
    regulators: PerSection[Free[Regulators]] = Free[Regulators]("none")
    """1x1 convolutions with weights of their own: none, one per block or one per layer."""
    convolutions: Free[Convolutions] = Free[Convolutions]("full")
    """Full 3x3 kernels, or separable ones: a 3x3 kernel per channel, then a 1x1 convolution. The stem stays full."""
    batch_norm: Free[bool] = Free[bool](True)
    """Batch norm after each convolution, or none anywhere."""


class Maximum(Settings):
    """An upper limit."""

    max: Count = Field(description="The largest value allowed, such as 50000, 50k or 1.5M.")


class MaximumBytes(Maximum):
    """An upper limit of a size in bytes."""

    max: Bytes = Field(description="The largest size allowed, such as 32768, 32kB or 8KiB.")


class Constraints(Settings):
    """Hard limits: no network beyond them is ever trained."""

    parameters: Maximum | None = Field(default=None, description="Trainable scalars, a shared kernel counted once.")
    macs: Maximum | None = Field(default=None, description="Multiply-accumulates of one image's forward pass.")
    flash: MaximumBytes | None = Field(
        default=None, description="Bytes of its C code with 8-bit integers: weights, tables and instructions."
    )
    ram: MaximumBytes | None = Field(
        default=None, description="Bytes of RAM of this code, without image and stack: activations and partial sums."
    )


class SearchSettings(Settings, use_attribute_docstrings=True):
    """Settings of the search; the command line overrides each."""

    objective: Objective = "parameters"
    """What it keeps small, beside the error: parameters, or the flash that C code with 8-bit integers takes."""
    trials: int = Field(default=64, ge=1)
    """Trials after which it ends, those stopped early or failed counted."""
    time_budget: Seconds | None = None
    """Start no trial after this time: 90s, 30m, 2h."""
    sampler: Literal["auto", "tpe", "nsga2", "nsga3", "gp", "random", "qmc", "surrogate"] = "auto"
    """Which sampler proposes networks: our surrogate (auto), or one of Optuna's."""
    prior: Literal["auto", "none"] = "auto"
    """What the sampler surrogate knows before the first trial; auto: what trainings on other data taught; none: of that
    only how the error falls with size."""
    fidelity: Annotated[int, Field(ge=1)] | Literal["auto", "none"] = "none"
    """Epochs of a first, complete cycle of each trial, after which the sampler decides whether it is trained in full;
    auto: a quarter of them; none: one cycle for all. Only the sampler surrogate has it."""
    stopping: Literal["auto", "none", "front", "halving"] = "auto"
    """Which rule stops trials early that won't reach the front; auto: front or, where trials have a first cycle, the
    sampler after it."""
    confirm: int = Field(default=0, ge=0, le=100)
    """Trainings by further seeds of a trial that would be on the front; their mean is what counts."""
    seed: Seed = 0
    """Of proposals, weights and shuffling."""
    concurrency: int | None = Field(default=None, ge=1)
    """Trials at once; by default one per CPU core, or as many as memory or the GPUs hold."""
    gpus_per_trial: Annotated[float, Field(ge=0)] | Literal["auto"] | None = "auto"
    """Share of a GPU that one trial takes; auto: as many trials on each as fit."""

    def first_cycle(self, epochs: int) -> int:
        """Return the epochs of the first cycle of trials of so many epochs; 0 for none.

        Raises ValueError if `fidelity` leaves no epoch for a second one, or the sampler has none.
        """
        has_cycles = self.sampler in ("auto", "surrogate")
        if isinstance(self.fidelity, int):
            if not has_cycles:
                raise ValueError(f"needs the sampler surrogate, but got {self.fidelity} and {self.sampler}")
            if self.fidelity >= epochs:
                raise ValueError(f"must be below the {epochs} epochs of a trial, but is {self.fidelity}")
            return self.fidelity
        return epochs // CYCLES if has_cycles and self.fidelity == "auto" else 0


class RetrainSettings(Settings):
    """The full training of chosen networks of the front, on the training and validation images together."""

    top: int = Field(default=3, ge=0, description="How many, spread over the front by size.")
    budgets: tuple[Budget, ...] = Field(
        default=(),
        strict=False,  # a list too
        description="Instead of `top`: the most accurate network within each of these sizes, such as [10k, 20k] "
        "parameters or, with the objective flash, [16kB, 32kB].",
    )
    epochs: int | None = Field(
        default=None, ge=1, description="By default twice the trials', or those of a recipe given here."
    )
    seeds: int = Field(default=1, ge=1, le=100, description="Trainings of each, averaged.")
    recipe: Recipe | None = Field(default=None, description="By default the search's recipe.")

    def sizes(self, objective: str) -> list[int]:
        """Return the budgets as numbers that rise. Raises ValueError for one that is no size of that objective."""
        return sorted(map(parse_bytes if objective == "flash" else parse_count, self.budgets))

    def full_recipe(self, searched: Recipe) -> Recipe:
        """Return the recipe of a full training, after a search by `searched`.

        A recipe given here that does not say whether to mirror images, which the data decide, does as the search did.
        """
        epochs = self.epochs or (self.recipe.epochs if self.recipe else 2 * searched.epochs)
        recipe = self.recipe or searched
        flip = recipe.flip if "flip" in recipe.model_fields_set else searched.flip
        return recipe.model_copy(update={"epochs": epochs, "flip": flip})


class Reference(Settings):
    """A known network to compare the front with in the dashboard."""

    name: str = Field(min_length=1, max_length=100)
    parameters: Count
    accuracy: float = Field(ge=0, le=1)


def plain_name(name: str) -> str:
    """Return `name`. Raises ValueError unless it can be the name of a folder below another."""
    if name != name.strip() or name.startswith(".") or any(c in "/\\" or not c.isprintable() for c in name):
        raise ValueError(f"a name is one printable folder name that does not start with a dot, but is {name!r}")
    return name


class SpaceSettings(Settings):
    """A search space: which data, which networks, how they are trained and searched."""

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(plain_name)] | None = Field(
        default=None, description="Name of the run directory; by default the file's name."
    )
    description: str = Field(default="", description="A sentence for the dashboard.")
    data: DataConfig = Field(description="The data set and its split.")
    architecture: ArchitectureSettings = Field(description="The space of networks.")
    constraints: Constraints = Field(default=Constraints(), description="Hard limits.")
    recipe: Recipe = Field(default_factory=Recipe, description="How a trial is trained.")
    search: SearchSettings = Field(default=SearchSettings(), description="How the search is run.")
    retrain: RetrainSettings = Field(default=RetrainSettings(), description="What happens to the front afterwards.")
    references: list[Reference] = Field(default=[], description="Known networks, shown in the dashboard.")


def _read_network(given: Any) -> Architecture:
    try:
        return get(given) if isinstance(given, str) else Architecture.from_dict(given)
    except InputError as error:
        raise ValueError(str(error)) from None  # what pydantic collects


class TrainSettings(Settings):
    """One network with its data and recipe: the `config.yaml` of an exported network.

    It has no data if the network was not trained by this package, or is to be trained on other data.
    """

    architecture: Annotated[Any, AfterValidator(_read_network)] = Field(
        description="The network: its sections and how they share, or a name of dacnn_search.network.zoo."
    )
    data: DataConfig | None = Field(default=None, description="The data set and its split.")
    recipe: Recipe = Field(default_factory=Recipe, description="How it is trained.")
    seed: Seed = Field(default=0, description="Of weights and shuffling.")
    name: str | None = Field(default=None, description="Shown in reports.")
