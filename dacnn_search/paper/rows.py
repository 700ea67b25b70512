"""The rows of an experiment's table: the size and the errors of each network beside what the paper prints."""

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dacnn_search.network.cost import Cost, estimate_cost
from dacnn_search.paper.compression import Measured
from dacnn_search.paper.data import PaperData
from dacnn_search.paper.experiments import REFERENCE, Conditions, Experiment, Member
from dacnn_search.paper.published import EXTRA_TO, Published

__all__ = ["Results", "Row", "rows_of"]

Record = Mapping[str, Any]
Row = dict[str, Any]  # column -> value; None where there is none

# A network is compared with the first of these that is in the same table: they differ in one thing.
COUNTERPARTS = (
    (r"(.+)-no-bn", (r"\1",)),
    (r"dacnn(\d+)", (r"free\1",)),
    (r"(.+-reg)-(?!none).+", (r"\1-none",)),
    (r"(.+)-reg", (r"\1",)),
    (r"dacnn(\d+)-mix(-reg)?", (r"resnet\1", "vgg")),
)


@dataclass(frozen=True)
class Results:
    """The trainings that were done under some conditions.

    Args:
        records: The ledger's records of each network, one per seed.
        data: The images by data set.
    """

    conditions: Conditions
    records: Mapping[Member, Sequence[Record]]
    data: Mapping[str, PaperData]

    def cost(self, member: Member) -> Cost:
        """Return the size of a network under these conditions."""
        images = self.data[member.dataset].images
        return estimate_cost(self.conditions.architecture(member.network), images.input_shape, images.num_classes)

    def errors(self, member: Member) -> list[float]:
        """Return the test errors in percent of the trainings that reached their last epoch."""
        scores = [record["test_accuracy"] for record in self.records[member]]
        return [100 * (1 - score) for score in scores if score is not None]

    def measured(self, member: Member) -> Measured:
        """Return size and mean accuracy of a network."""
        cost, errors = self.cost(member), self.errors(member)
        accuracy = 1 - statistics.fmean(errors) / 100 if errors else None
        return Measured(member.network, cost.parameters, cost.macs, cost.file_bytes, accuracy)


def rows_of(experiment: Experiment, results: Results) -> list[Row]:
    """Return a row per network that the paper prints, for figure 7 one per network that is trained.

    `error` is the mean over the trainings of the test error in percent after the last epoch, `lowest of any epoch`
    that of any epoch of any training: the paper does not say which of the two it prints. `change` is the error less
    that of the network named under `against`, in points. `difference` is our error less the published one, only under
    the paper's own conditions. Table 8 has other columns: drops in points, ratios in percent.
    """
    if experiment.kind == "pruning":
        return [_pruning_row(row, results) for row in experiment.rows]
    if not experiment.rows:
        return [_row(member, None, results) for member in experiment.members]
    rows = [_row(Member(row.dataset, row.zoo_name), row, results) for row in experiment.rows]
    by_network = {(row["data"], row["network"]): row for row in rows}
    for row in rows:
        counterparts = (by_network.get((row["data"], name)) for name in _counterparts(row["network"]))
        if (other := next(filter(None, counterparts), None)) is not None:
            row["against"] = other["network"]
            row["change"] = _less(row["error"], other["error"])
            row["published change"] = _less(row["published error"], other["published error"])
    return rows


def _row(member: Member, published: Published | None, results: Results) -> Row:
    """Return a row that is not compared with another one yet."""
    records, errors = results.records[member], results.errors(member)
    parameters, extra = results.cost(member).parameters, None
    if published and published.extra_parameters is not None:
        extra = parameters - results.cost(Member(member.dataset, EXTRA_TO[published.table])).parameters
    scores = [score for record in records for score in record["curve"]["test_accuracy"] if score is not None]
    error = statistics.fmean(errors) if errors else None
    published_error = published.top1_error if published else None
    as_published = results.conditions.are_published and results.data[member.dataset].is_whole
    notes = [published.note if published else ""]
    notes += [f"seed {record['seed']}: {record['reason']}" for record in records if record["reason"]]
    notes += [] if records else ["not trained yet"]
    return {
        "data": member.dataset,
        "model": published.model if published else member.network,
        "network": member.network,
        "parameters": parameters,
        "published parameters": published.parameters if published else None,
        "extra parameters": extra,
        "published extra parameters": published.extra_parameters if published else None,
        "error": error,
        "standard deviation": statistics.stdev(errors) if len(errors) > 1 else None,
        "trainings": len(errors),
        "lowest of any epoch": 100 * (1 - max(scores)) if scores else None,
        "published error": published_error,
        "difference": _less(error, published_error) if as_published else None,
        "against": None,
        "change": None,
        "published change": None,
        "note": "; ".join(filter(None, notes)),
    }


def _counterparts(network: str) -> Iterator[str]:
    for pattern, candidates in COUNTERPARTS:
        if found := re.fullmatch(pattern, network):
            yield from map(found.expand, candidates)


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _pruning_row(published: Published, results: Results) -> Row:
    """Return a row of Table 8, with size and accuracy of our network if it is one."""
    reference = results.measured(REFERENCE)
    ours = results.measured(Member(published.dataset, published.zoo_name)) if published.zoo_name else None
    return {
        "method": published.model,
        "network": ours and ours.name,
        "parameters": ours and ours.parameters,
        "accuracy drop": ours and ours.accuracy_drop(reference),
        "published drop": published.accuracy_drop,
        "prune ratio": ours and ours.prune_ratio(reference),
        "published ratio": published.prune_ratio,
        "weights in bytes": ours and ours.file_bytes,
        "MACs ratio": ours and ours.macs / reference.macs,
    }
