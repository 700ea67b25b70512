"""The rows of an experiment: each network's size and errors, beside what the paper prints of it."""

import dataclasses
import re
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dacnn_search.export.folder import NetworkInput
from dacnn_search.network.cost import count_parameters, estimate_cost
from dacnn_search.paper.compression import Comparison, Measured
from dacnn_search.paper.experiments import PRUNING, Conditions, Experiment, Member
from dacnn_search.paper.published import EXTRA_TO, Published

__all__ = ["PruningRow", "Results", "Row", "pruning_rows", "rows_of"]

# How a network is named, and the one it is compared with: that which differs in one thing, the closest first.
COUNTERPARTS = (
    (r"(.+)-no-bn", (r"\1",)),
    (r"dacnn(\d+)", (r"free\1",)),
    (r"(.+-reg)-(?!none).+", (r"\1-none",)),
    (r"(.+)-reg", (r"\1",)),
    (r"dacnn(\d+)-mix(-reg)?", (r"resnet\1", "vgg")),
)

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Results:
    """What was trained under some conditions.

    found: the records of each member, one per seed that is done. inputs: images and classes by data set. notes: what a
    reader must know. data_notes: the same of each data set. whole: the data sets with as many images as the published
    ones. networks: the folder of the trained networks.
    """

    conditions: Conditions
    found: Mapping[Member, Records]
    inputs: Mapping[str, NetworkInput]
    notes: Sequence[str]
    data_notes: Mapping[str, str]
    whole: Collection[str]
    networks: Path

    def as_published(self, dataset: str) -> bool:
        """Whether our errors on a data set are meant to equal the published ones: no smaller version, all images."""
        return self.conditions.are_published and dataset in self.whole

    def parameters(self, member: Member) -> int:
        given = self.inputs[member.dataset]
        return count_parameters(self.conditions.architecture(member.network), given.shape[0], len(given.classes))

    def errors(self, member: Member) -> list[float]:
        """Test errors in percent of the trainings that came to their end."""
        scores = [record["test_accuracy"] for record in self.found[member]]
        return [100 * (1 - score) for score in scores if score is not None]


@dataclass(frozen=True)
class Row:
    """A network of an experiment: ours and, where the paper prints it, the published.

    errors: test error in percent after the last epoch, one per training. lowest: of any epoch of any training; the
    paper does not say which of the two it prints. against: the network that this one is compared with, empty for none;
    change: our error less the error of that one, in points; published_change: the same of the published errors.
    """

    member: Member
    model: str  # as printed
    parameters: int
    extra: int | None  # parameters beyond those of the table's network without regulators
    errors: tuple[float, ...]
    lowest: float | None
    published: Published | None
    note: str
    against: str = ""
    change: float | None = None
    published_change: float | None = None

    @property
    def error(self) -> float | None:
        """The mean over the trainings."""
        return statistics.fmean(self.errors) if self.errors else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation over several trainings."""
        return statistics.stdev(self.errors) if len(self.errors) > 1 else None

    @property
    def published_error(self) -> float | None:
        return self.published.top1_error if self.published else None


@dataclass(frozen=True)
class PruningRow:
    """A row of Table 8: ours, where it is one of our networks, and what the paper prints, drop in points and ratio in
    percent."""

    method: str
    ours: Comparison | None
    published_drop: float
    published_ratio: float


def rows_of(experiment: Experiment, results: Results) -> list[Row]:
    """A row per network that the paper prints; without any (figure 7), one per network."""
    if not experiment.rows:
        return [_row(member, None, results) for member in experiment.members]
    rows = [_row(Member(p.dataset, p.zoo_name), p, results) for p in experiment.rows]
    by_member = {row.member: row for row in rows}
    return [_compared(row, by_member) for row in rows]


def pruning_rows(results: Results) -> list[PruningRow]:
    """Table 8, with the sizes of our networks and, where they are trained, their accuracies."""
    reference = _measured(Member("cifar10", "resnet18"), results)
    return [
        PruningRow(
            row.method,
            None if row.network is None else Comparison(_measured(Member("cifar10", row.network), results), reference),
            row.accuracy_drop,
            row.prune_ratio,
        )
        for row in PRUNING
    ]


def _row(member: Member, published: Published | None, results: Results) -> Row:
    parameters, extra = results.parameters(member), None
    if published is not None and published.extra_parameters is not None:
        extra = parameters - results.parameters(Member(member.dataset, EXTRA_TO[published.table]))
    records = results.found[member]
    epochs = [score for record in records for score in record["curve"]["test_accuracy"] if score is not None]
    notes = [published.note] if published and published.note else []
    notes += [f"seed {record['seed']}: {record['reason']}" for record in records if record["reason"]]
    return Row(
        member,
        published.model if published else member.network,
        parameters,
        extra,
        tuple(results.errors(member)),
        100 * (1 - max(epochs)) if epochs else None,
        published,
        "; ".join(notes if records else [*notes, "not trained yet"]),
    )


def _compared(row: Row, others: Mapping[Member, Row]) -> Row:
    """The row with what sets it apart from its counterpart, if that is among the others."""
    for name in _counterparts(row.member.network):
        if (other := others.get(Member(row.member.dataset, name))) is not None:
            return dataclasses.replace(
                row,
                against=name,
                change=_difference(row.error, other.error),
                published_change=_difference(row.published_error, other.published_error),
            )
    return row


def _counterparts(network: str) -> Iterator[str]:
    for pattern, candidates in COUNTERPARTS:
        if found := re.fullmatch(pattern, network):
            yield from map(found.expand, candidates)


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _measured(member: Member, results: Results) -> Measured:
    given = results.inputs[member.dataset]
    cost = estimate_cost(results.conditions.architecture(member.network), given.shape, len(given.classes))
    errors = results.errors(member)
    accuracy = 1 - statistics.fmean(errors) / 100 if errors else None
    return Measured(member.network, cost.parameters, cost.macs, cost.file_bytes, accuracy)
