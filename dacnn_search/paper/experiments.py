"""The paper's experiments: which networks each table and figure needs, and how the paper trained them (section 4)."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dacnn_search.common.errors import InputError
from dacnn_search.common.units import format_duration
from dacnn_search.data.published import KNOWN_SETS
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import training_seconds
from dacnn_search.network.zoo import get
from dacnn_search.paper.published import PUBLISHED, Published
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.speed import speed_for

PROTOCOL = "The paper's protocol: the test set is looked at every epoch, nothing is selected by it."
FLIPS = {"cifar100": True, "cifar10": False, "svhn": False}  # for every recipe
SVHN_SCHEDULE = {"epochs": 60, "milestones": (1 / 3, 2 / 3)}  # other than the preset `paper` has it
LEAST_WIDTH = 4


class Member(NamedTuple):
    """A network of the zoo, trained on a data set."""

    dataset: str
    network: str


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper."""

    name: str  # such as `table-1`; also the name of its folder
    title: str
    kind: Literal["table", "curves", "efficiency", "filters", "pruning"]  # what its page shows
    rows: tuple[Published, ...]  # what the paper prints of its networks
    others: tuple[Member, ...] = ()  # trained beside the networks of the rows

    @property
    def heading(self) -> str:
        """Number and title, such as `Table 1: Importance of batch norm`."""
        return f"{self.name.replace('-', ' ').capitalize()}: {self.title}"

    @property
    def members(self) -> list[Member]:
        """The networks that are trained for it."""
        printed = [Member(row.dataset, row.zoo_name) for row in self.rows if row.zoo_name]
        return list(dict.fromkeys([*self.others, *printed]))

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(member.dataset for member in self.members))


@dataclass(frozen=True)
class Conditions:
    """The paper's protocol, or a smaller version of it, by which all networks of an experiment are trained.

    Raises InputError for a scale outside (0, 4].
    """

    scale: float = 1.0  # a factor for all widths
    recipe: Literal["paper", "fast"] = "paper"
    epochs: int | None = None  # by default the recipe's
    subset: int | None = None  # the number of training images, by default all
    seeds: int = 1  # the number of trainings of each network

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 4:
            raise InputError(f"scale must lie in (0, 4], but is {self.scale:g}")

    @property
    def changes(self) -> dict[str, str]:
        """The differences from the paper in words, by their part of folder names."""
        changes = {}
        if self.scale != 1:
            changes[f"-scale{self.scale:g}"] = f"all widths times {self.scale:g} (rounded, at least {LEAST_WIDTH})"
        if self.recipe != "paper":
            changes[f"-{self.recipe}"] = f"the recipe {self.recipe} instead of the paper's"
        if self.epochs is not None:
            changes[f"-epochs{self.epochs}"] = f"{self.epochs} epoch{'s' * (self.epochs > 1)} instead of the recipe's"
        if self.subset is not None:
            changes[f"-subset{self.subset}"] = f"only {self.subset:,} training images"
        return changes

    @property
    def suffix(self) -> str:
        """The ending of folder names, the recipe last; empty for the paper's own conditions."""
        return "".join(sorted(self.changes, key=f"-{self.recipe}".__eq__))

    @property
    def note(self) -> str:
        """A sentence on what differs from the paper."""
        if not self.changes:
            return "Full size, with the paper's recipe (batches of 128, in bfloat16 where that is faster)."
        return (
            f"A smaller version of the paper's experiment: {', '.join(self.changes.values())}. Every network was "
            "treated alike; published figures are those of the full version."
        )

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
        schedule = SVHN_SCHEDULE if self.recipe == "paper" and dataset == "svhn" else {}
        epochs = {} if self.epochs is None else {"epochs": self.epochs}
        return Recipe.model_validate({"name": self.recipe, "flip": FLIPS[dataset], **schedule, **epochs})


def describe_experiments(conditions: Conditions) -> str:
    """Say what each table and figure trains under these conditions, and about how long that takes."""
    lines = [conditions.note, ""]
    for experiment in EXPERIMENTS.values():
        lines.append(f"{experiment.name}  {experiment.title}")
        for dataset in experiment.datasets:
            names = [member.network for member in experiment.members if member.dataset == dataset]
            lines.append(f"    {dataset}, {conditions.recipe_for(dataset).epochs} epochs: {', '.join(names)}")
        seconds = conditions.seeds * sum(_core_seconds(member, conditions) for member in experiment.members)
        count = len(experiment.members) * conditions.seeds
        lines.append(f"    {count} training{'s' * (count > 1)}, about {format_duration(seconds)} on one CPU core")
    shared = "A network that occurs in several of them is trained once. Several can be given at once: --table 1 3 6"
    return "\n".join([*lines, "", shared])


def _core_seconds(member: Member, conditions: Conditions) -> float:
    """Estimate the time of a training on one CPU core."""
    recipe, known = conditions.recipe_for(member.dataset), KNOWN_SETS[member.dataset]
    network, whole = conditions.architecture(member.network), sum(known.train_counts)
    size = (known.input_shape, len(known.train_counts))
    rate = speed_for([network], *size, recipe.batch_size, remembered=True).rate(recipe.precision)
    images = min(conditions.subset or whole, whole) * recipe.epochs
    return training_seconds(network, *size, images, recipe.batch_size, rate)


def _rows(table: int, *networks: str) -> tuple[Published, ...]:
    """Return the rows of a table: all, or those of some networks."""
    return tuple(row for row in PUBLISHED if row.table == table and (not networks or row.zoo_name in networks))


REFERENCE = Member("cifar10", "resnet18")  # what the networks of Table 8 are compared with
DEEP = ("dacnn34", "dacnn34-reg", "dacnn34-mix", "dacnn34-mix-reg", "resnet34")
EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment("table-1", "Importance of batch norm", "table", _rows(1)),
        Experiment("table-2", "Depth of plain networks, and the same with free weights", "table", _rows(2)),
        Experiment("table-3", "Mixed networks and their templates", "table", _rows(3)),
        Experiment("table-4", "Regulators in one section or all", "table", _rows(4)),
        Experiment("table-5", "Regulators in networks of several depths", "table", _rows(5)),
        Experiment("table-6", "All networks on CIFAR-100", "table", _rows(6)),
        Experiment("table-7", "CIFAR-10 and SVHN", "table", _rows(7)),
        Experiment("table-8", "Compression against ResNet-18 on CIFAR-10", "pruning", _rows(8), (REFERENCE,)),
        Experiment("figure-4", "Test curves and sizes of the networks of 34 layers", "curves", _rows(6, *DEEP)),
        Experiment("figure-5", "Error against parameters", "efficiency", _rows(6)),
        Experiment("figure-6", "Test curves on CIFAR-10 and SVHN", "curves", _rows(7)),
        Experiment("figure-7", "Filters of a plain network", "filters", (), (Member("cifar10", "dacnn5"),)),
    )
}
