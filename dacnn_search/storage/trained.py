"""The networks of a run that were trained in full, and the front judged again by their test accuracies."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import estimate_cost

__all__ = ["Judgement", "TrainedNetwork", "deviation_of", "group_retrained", "judge", "trained_networks"]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class TrainedNetwork:
    """One network and its full trainings by one recipe.

    Args:
        folder: Where its files are, or will be once it is written to `best/`.
        rank: Its place among the retrained networks by parameters, from 1.
        records: Its records of `retrained.jsonl`, one per seed.
        file_bytes: Size of its float32 weights as a safetensors file.
    """

    folder: Path
    rank: int
    records: tuple[Record, ...]
    file_bytes: int

    @property
    def architecture(self) -> Architecture:
        return Architecture.from_dict(self.records[0]["architecture"])

    @property
    def trial(self) -> int:
        return int(self.records[0]["trial"])

    @property
    def parameters(self) -> int:
        return int(self.records[0]["parameters"])

    @property
    def macs(self) -> int:
        return int(self.records[0]["macs"])

    @property
    def accuracy(self) -> float:
        """The accuracy on the test images, averaged over the seeds; without test images that of the search."""
        return statistics.fmean(self.tested) if self.tested else float(self.records[0]["accuracy"])

    @property
    def tested(self) -> list[float]:
        """The accuracies on the test images, one per seed; empty without test images."""
        return [record["test_accuracy"] for record in self.records if record["test_accuracy"] is not None]


def trained_networks(run: Path, data: Mapping[str, Any], retrained: Iterable[Record]) -> list[TrainedNetwork]:
    """Return the retrained networks of a run directory, from few parameters to many.

    Args:
        run: The run directory.
        data: The `input_shape` (C, H, W) and `num_classes` of its images.
        retrained: The records of the trainings.
    """
    networks = []
    for rank, records in enumerate(group_retrained(retrained), start=1):
        architecture = Architecture.from_dict(records[0]["architecture"])
        cost = estimate_cost(architecture, tuple(data["input_shape"]), data["num_classes"])
        networks.append(TrainedNetwork(run / "best" / f"{rank:02d}-{cost.parameters}", rank, records, cost.file_bytes))
    return networks


def group_retrained(records: Iterable[Record]) -> list[tuple[Record, ...]]:
    """Group records by network, sorted by parameters, and within a network by seed.

    Of a network that was trained by several recipes only the last recipe counts, and of each seed only the last record:
    weights are kept by network and seed, so the earlier ones are gone.
    """
    latest: dict[str, dict[int, Record]] = {}
    for record in records:
        of_network = latest.setdefault(record["fingerprint"], {})
        if any(other["recipe"] != record["recipe"] for other in of_network.values()):
            of_network.clear()
        of_network[record["seed"]] = record
    groups = [tuple(by_seed[seed] for seed in sorted(by_seed)) for by_seed in latest.values()]
    return sorted(groups, key=lambda group: (group[0]["parameters"], group[0]["fingerprint"]))


def deviation_of(values: Sequence[float]) -> float | None:
    """Return the standard deviation of the accuracies of several seeds; None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Judgement:
    """The front of a search, which was chosen by noisy validation accuracies, judged again by test accuracies.

    Args:
        correlation: Spearman's rank correlation of validation and test accuracy. None for fewer than three networks,
            and if all accuracies are equal.
        front: The networks that no other one beats on the test images, from few parameters to many.
        beaten: The other networks.
    """

    correlation: float | None
    front: list[TrainedNetwork]
    beaten: list[TrainedNetwork]

    def __str__(self) -> str:
        count = len(self.front) + len(self.beaten)
        parts = [f"on the test images {len(self.front)} of {count} retrained networks stay on the front"]
        if self.beaten:
            parts.append(f"beaten: trial{'s'[: len(self.beaten) > 1]} {', '.join(str(n.trial) for n in self.beaten)}")
        if self.correlation is not None:
            parts.append(f"rank correlation of validation and test accuracy {self.correlation:.2f}")
        return "; ".join(parts)


def judge(networks: Iterable[TrainedNetwork]) -> Judgement | None:
    """Judge retrained networks by their test accuracies; return None if fewer than two have one."""
    scored = sorted((n for n in networks if n.tested), key=lambda n: (n.parameters, -n.accuracy))
    if len(scored) < 2:
        return None
    front: list[TrainedNetwork] = []
    for network in scored:
        if not front or network.accuracy > front[-1].accuracy:
            front.append(network)
    return Judgement(_rank_correlation(scored), front, [network for network in scored if network not in front])


def _rank_correlation(networks: Sequence[TrainedNetwork]) -> float | None:
    from scipy.stats import rankdata  # not at the top: it takes a while

    pairs = np.array([(network.records[0]["accuracy"], network.accuracy) for network in networks])
    if len(pairs) < 3 or (pairs == pairs[0]).all(axis=0).any():
        return None
    return float(np.corrcoef(rankdata(pairs, axis=0), rowvar=False)[0, 1])
