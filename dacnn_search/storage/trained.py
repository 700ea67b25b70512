"""The networks of a run that were trained in full, and the front judged again by their test accuracies."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dacnn_search.network.architecture import Architecture
from dacnn_search.storage.front import Record


@dataclass(frozen=True)
class TrainedNetwork:
    """One network and its full trainings by one recipe."""

    folder: Path  # where its files are, or will be once it is written to `best/`
    records: tuple[Record, ...]  # its records of `retrained.jsonl`, one per seed
    architecture: Architecture
    trial: int
    parameters: int
    macs: int
    file_bytes: int  # of its float32 weights as a safetensors file
    flash: int  # bytes of its C code with 8-bit integers
    ram: int  # bytes of RAM of this code, without image and stack
    objective: str = "parameters"  # of the search: what size is

    @property
    def fingerprint(self) -> str:
        return str(self.records[0]["fingerprint"])

    @property
    def size(self) -> int:
        """The parameters, or the bytes of flash if the search kept these small."""
        return int(getattr(self, self.objective))

    @property
    def accuracy(self) -> float:
        """The accuracy on the test images, averaged over the seeds; without test images that of the search."""
        return statistics.fmean(self.tested) if self.tested else float(self.records[0]["accuracy"])

    @property
    def tested(self) -> list[float]:
        """The accuracies on the test images, one per seed; empty without test images."""
        return [record["test_accuracy"] for record in self.records if record["test_accuracy"] is not None]


def group_retrained(records: Iterable[Record], objective: str = "parameters") -> list[tuple[Record, ...]]:
    """Group records by network, sorted by size, and within a network by seed.

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
    return sorted(groups, key=lambda group: (group[0][objective], group[0]["fingerprint"]))


def deviation_of(values: Sequence[float]) -> float | None:
    """Return the standard deviation of the accuracies of several seeds; None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def beaten_on_test(networks: Iterable[TrainedNetwork]) -> list[TrainedNetwork]:
    """Return the networks that another one, no larger, equals or beats in the accuracy on the test images."""
    best, beaten = -1.0, []
    for network in sorted((n for n in networks if n.tested), key=lambda n: (n.size, -n.accuracy)):
        if network.accuracy <= best:
            beaten.append(network)
        best = max(best, network.accuracy)
    return beaten


def judge(networks: Iterable[TrainedNetwork]) -> str | None:
    """Judge a front, chosen by validation accuracies, by test accuracies, in words; None if fewer than two have any.

    Spearman's rank correlation of both accuracies is given for three networks or more, unless all accuracies are equal.
    """
    tested = [network for network in networks if network.tested]
    if len(tested) < 2:
        return None
    beaten = beaten_on_test(tested)
    parts = [f"on the test images {len(tested) - len(beaten)} of {len(tested)} retrained networks stay on the front"]
    if beaten:
        parts.append(f"beaten: trial{'s'[: len(beaten) > 1]} {', '.join(str(n.trial) for n in beaten)}")
    searched, scores = [n.records[0]["accuracy"] for n in tested], [n.accuracy for n in tested]
    if len(tested) > 2 and len(set(searched)) > 1 and len(set(scores)) > 1:
        from scipy.stats import spearmanr  # not at the top: it takes a while

        correlation = spearmanr(searched, scores).statistic
        parts.append(f"rank correlation of validation and test accuracy {correlation:.2f}")
    return "; ".join(parts)
