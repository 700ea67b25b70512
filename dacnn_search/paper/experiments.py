"""The paper's experiments: which networks each table and figure needs, and how the paper trained them (section 4)."""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from dacnn_search.common.errors import InputError
from dacnn_search.common.units import format_duration
from dacnn_search.data.published import KNOWN_SETS
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import training_seconds
from dacnn_search.network.zoo import get
from dacnn_search.paper.published import PUBLISHED, Published
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.speed import remembered_speed_for

__all__ = ["EXPERIMENTS", "PROTOCOL", "REFERENCE", "Conditions", "Experiment", "Member", "describe_experiments"]

PROTOCOL = "The paper's protocol: the test set is looked at every epoch, nothing is selected by it."
FLIPS = {"cifar100": True, "cifar10": False, "svhn": False}  # for every recipe
SVHN_SCHEDULE = {"epochs": 60, "milestones": (1 / 3, 2 / 3)}  # other than the preset `paper` has it
LEAST_WIDTH = 4

Kind = Literal["table", "curves", "efficiency", "filters", "pruning"]


@dataclass(frozen=True)
class Member:
    """A network of the zoo, trained on a data set."""

    dataset: str
    network: str


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper.

    Args:
        name: For example `table-1`; also the name of its folder.
        kind: What its page shows.
        members: The networks that are trained for it.
        rows: What the paper prints of these networks.
    """

    name: str
    title: str
    kind: Kind
    members: tuple[Member, ...]
    rows: tuple[Published, ...]

    @property
    def heading(self) -> str:
        """Number and title, such as `Table 1: Importance of batch norm`."""
        return f"{self.name.replace('-', ' ').capitalize()}: {self.title}"


REFERENCE = Member("cifar10", "resnet18")  # what the networks of Table 8 are compared with
TABLES = {
    1: "Importance of batch norm",
    2: "Depth of plain networks, and the same with free weights",
    3: "Mixed networks and their templates",
    4: "Regulators in one section or all",
    5: "Regulators in networks of several depths",
    6: "All networks on CIFAR-100",
    7: "CIFAR-10 and SVHN",
    8: "Compression against ResNet-18 on CIFAR-10",
}
FIGURE_4 = ("dacnn34", "dacnn34-reg", "dacnn34-mix", "dacnn34-mix-reg", "resnet34")


@dataclass(frozen=True)
class Conditions:
    """The paper's protocol, or a smaller version of it, by which all networks of an experiment are trained.

    Raises InputError for a scale outside (0, 4].

    Args:
        scale: A factor for all widths.
        epochs: The number of epochs, by default the recipe's.
        subset: The number of training images, by default all.
        seeds: The number of trainings of each network.
    """

    scale: float = 1.0
    recipe: Literal["paper", "fast"] = "paper"
    epochs: int | None = None
    subset: int | None = None
    seeds: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 4:
            raise InputError(f"scale must lie in (0, 4], but is {self.scale:g}")

    @property
    def suffix(self) -> str:
        """The ending of folder names; empty for the paper's own conditions."""
        parts = [f"-scale{self.scale:g}"] if self.scale != 1 else []
        parts += [f"-epochs{self.epochs}"] if self.epochs is not None else []
        parts += [f"-subset{self.subset}"] if self.subset is not None else []
        return "".join(parts) + ("-fast" if self.recipe == "fast" else "")

    @property
    def are_published(self) -> bool:
        """True for the paper's own conditions."""
        return not self.suffix

    def architecture(self, network: str) -> Architecture:
        """Return a network of the zoo with all widths scaled, rounded, at least 4.

        Raises InputError if widths that differ in the paper would become equal.
        """
        full = get(network)
        widths = {section.width: max(LEAST_WIDTH, round(section.width * self.scale)) for section in full.sections}
        if len(set(widths.values())) < len(widths):
            raise InputError(
                f"scale must keep the widths of {network} different, but {self.scale:g} makes "
                f"{', '.join(map(str, widths))} into {', '.join(map(str, widths.values()))}"
            )
        sections = tuple(dataclasses.replace(s, width=widths[s.width]) for s in full.sections)
        return dataclasses.replace(full, sections=sections).canonical()

    def recipe_for(self, dataset: str) -> Recipe:
        """Return the recipe of section 4 for a data set, or the fast one."""
        values: dict[str, object] = {"name": self.recipe, "flip": FLIPS[dataset]}
        if self.recipe == "paper" and dataset == "svhn":
            values |= SVHN_SCHEDULE
        if self.epochs is not None:
            values["epochs"] = self.epochs
        return Recipe.model_validate(values)

    @property
    def note(self) -> str:
        """A sentence on what differs from the paper."""
        changes = []
        if self.scale != 1:
            changes.append(f"all widths times {self.scale:g} (rounded, at least {LEAST_WIDTH})")
        if self.recipe != "paper":
            changes.append(f"the recipe {self.recipe} instead of the paper's")
        if self.epochs is not None:
            changes.append(f"{self.epochs} epoch{'s' * (self.epochs > 1)} instead of the recipe's")
        if self.subset is not None:
            changes.append(f"only {self.subset:,} training images")
        if not changes:
            return "Full size, with the paper's recipe (batches of 128, in bfloat16 where that is faster)."
        return (
            f"A smaller version of the paper's experiment: {', '.join(changes)}. Every network was treated alike; "
            "published figures are those of the full version."
        )


def describe_experiments(conditions: Conditions) -> str:
    """Say what each table and figure trains under these conditions, and about how long that takes."""
    lines = []
    for experiment in EXPERIMENTS.values():
        lines.append(f"{experiment.name}  {experiment.title}")
        for dataset in dict.fromkeys(member.dataset for member in experiment.members):
            names = [member.network for member in experiment.members if member.dataset == dataset]
            epochs = conditions.recipe_for(dataset).epochs
            lines.append(f"    {dataset}, {epochs} epochs: {', '.join(names)}")
        seconds = conditions.seeds * sum(_core_seconds(member, conditions) for member in experiment.members)
        count = len(experiment.members) * conditions.seeds
        lines.append(f"    {count} training{'s' * (count > 1)}, about {format_duration(seconds)} on one CPU core")
    shared = "A network that occurs in several of them is trained once. Several can be given at once: --table 1 3 6"
    return "\n".join([conditions.note, "", *lines, "", shared])


def _core_seconds(member: Member, conditions: Conditions) -> float:
    """Estimate the time of a training on one CPU core."""
    recipe, known = conditions.recipe_for(member.dataset), KNOWN_SETS[member.dataset]
    network, whole = conditions.architecture(member.network), sum(known.train_counts)
    size = (known.input_shape, len(known.train_counts))
    rate = remembered_speed_for([network], *size, recipe.batch_size).rate(recipe.precision)
    images = min(conditions.subset or whole, whole) * recipe.epochs
    return training_seconds(network, *size, images, recipe.batch_size, rate)


def _experiment(name: str, title: str, kind: Kind, rows: Iterable[Published], *others: Member) -> Experiment:
    """Return the experiment that trains the networks of some rows, after some others."""
    rows = tuple(rows)
    trained = [Member(row.dataset, row.zoo_name) for row in rows if row.zoo_name]
    return Experiment(name, title, kind, tuple(dict.fromkeys([*others, *trained])), rows)


def _experiments() -> Iterator[Experiment]:
    rows = {number: [row for row in PUBLISHED if row.table == number] for number in TABLES}
    for number in range(1, 8):
        yield _experiment(f"table-{number}", TABLES[number], "table", rows[number])
    yield _experiment("table-8", TABLES[8], "pruning", rows[8], REFERENCE)
    deep = [row for row in rows[6] if row.zoo_name in FIGURE_4]
    yield _experiment("figure-4", "Test curves and sizes of the networks of 34 layers", "curves", deep)
    yield _experiment("figure-5", "Error against parameters", "efficiency", rows[6])
    yield _experiment("figure-6", "Test curves on CIFAR-10 and SVHN", "curves", rows[7])
    yield _experiment("figure-7", "Filters of a plain network", "filters", [], Member("cifar10", "dacnn5"))


EXPERIMENTS = {experiment.name: experiment for experiment in _experiments()}
