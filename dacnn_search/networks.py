"""The networks of a run that were trained in full, and choosing among them."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dacnn_search.architecture import Architecture

__all__ = ["TrainedNetwork", "best_networks", "group_retrained"]

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
        tested = [record["test_accuracy"] for record in self.records if record["test_accuracy"] is not None]
        return statistics.fmean(tested) if tested else float(self.records[0]["accuracy"])


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
