"""The networks of a run that were trained in full, and choosing among them."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import estimate_cost

__all__ = [
    "Judgement",
    "TrainedNetwork",
    "best_networks",
    "deviation_of",
    "group_retrained",
    "judge",
    "trained_networks",
]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class TrainedNetwork:
    """One network and its full trainings, one record of `retrained.jsonl` per seed, by one recipe.

    folder: where its files are, or will be after an export. file_bytes: of its float32 weights as safetensors.
    """

    folder: Path
    rank: int  # from 1, by parameters
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
        """On the test images, the mean over the seeds; without test images the search's validation accuracy."""
        return statistics.fmean(self.tested) if self.tested else float(self.records[0]["accuracy"])

    @property
    def tested(self) -> list[float]:
        """The accuracy on the test images, of each seed; empty without test images."""
        return [record["test_accuracy"] for record in self.records if record["test_accuracy"] is not None]


def trained_networks(run: Path, data: Mapping[str, Any], retrained: Iterable[Record]) -> list[TrainedNetwork]:
    """The networks of a run directory from the records of their trainings, from few parameters to many.

    data: with the `input_shape` (C, H, W) and `num_classes`.
    """
    networks = []
    for rank, records in enumerate(group_retrained(retrained), start=1):
        architecture = Architecture.from_dict(records[0]["architecture"])
        cost = estimate_cost(architecture, tuple(data["input_shape"]), data["num_classes"])
        networks.append(TrainedNetwork(run / "best" / f"{rank:02d}-{cost.parameters}", rank, records, cost.file_bytes))
    return networks


def group_retrained(records: Iterable[Record]) -> list[tuple[Record, ...]]:
    """The records of each network, by seed; the networks from few parameters to many.

    Of a network that was trained by several recipes those of the last one are taken, and of one seed the last record:
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


def best_networks(
    networks: Sequence[TrainedNetwork],
    *,
    max_parameters: int | None = None,
    max_macs: int | None = None,
    max_bytes: int | None = None,
    min_accuracy: float | None = None,
    trial: int | None = None,
    top: int | None = None,
) -> list[TrainedNetwork]:
    """Those that keep all the limits given, the most accurate first, of equals the smaller; at most `top` of them."""
    fitting = [
        network
        for network in networks
        if (max_parameters is None or network.parameters <= max_parameters)
        and (max_macs is None or network.macs <= max_macs)
        and (max_bytes is None or network.file_bytes <= max_bytes)
        and (min_accuracy is None or network.accuracy >= min_accuracy)
        and (trial is None or network.trial == trial)
    ]
    return sorted(fitting, key=lambda network: (-network.accuracy, network.parameters))[:top]


def deviation_of(values: Sequence[float]) -> float | None:
    """The standard deviation of the accuracies of several seeds; None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Judgement:
    """A front, chosen on noisy validation accuracies, judged again on test accuracies (means over the seeds).

    correlation: Spearman's, of validation and test accuracy; None for fewer than three networks and where all are
    equal. front: the networks that no other one beats, from few parameters to many. beaten: the others.
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
    """Judge retrained networks on the test images; None if fewer than two were scored on them."""
    scored = sorted((n for n in networks if n.tested), key=lambda n: (n.parameters, -n.accuracy))
    if len(scored) < 2:
        return None
    front: list[TrainedNetwork] = []
    for network in scored:
        if not front or network.accuracy > front[-1].accuracy:
            front.append(network)
    return Judgement(_rank_correlation(scored), front, [network for network in scored if network not in front])


def _rank_correlation(networks: Sequence[TrainedNetwork]) -> float | None:
    """Spearman's, of validation and test accuracy, if there are enough networks to speak of it."""
    from scipy.stats import rankdata

    pairs = np.array([(network.records[0]["accuracy"], network.accuracy) for network in networks])
    if len(pairs) < 3 or (pairs == pairs[0]).all(axis=0).any():
        return None
    return float(np.corrcoef(rankdata(pairs, axis=0), rowvar=False)[0, 1])
