"""The Pareto front of accuracy against parameters, its hypervolume, and choosing from it."""

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np

Record = Mapping[str, Any]  # one line of the ledger, with at least sequence, state, parameters and accuracy


def front_of(records: Iterable[Record]) -> list[Record]:
    """Return the COMPLETE records that no other COMPLETE record beats, from few parameters to many.

    One record beats another if it is no worse in both objectives and better in one; of equals the first in the
    ledger stays. Accuracy rises strictly along the front. Records without a finite accuracy are left out.
    """
    finished = sorted(filter(_is_finished, records), key=lambda r: (r["parameters"], -r["accuracy"], r["sequence"]))
    front: list[Record] = []
    for record in finished:
        if not front or record["accuracy"] > front[-1]["accuracy"]:
            front.append(record)
    return front


def spread(front: Sequence[Record], count: int) -> list[Record]:
    """Choose at most `count` records of a front, evenly spread over its range of log parameters, both ends included
    (of one record alone, the most accurate). The order of the front is kept."""
    if count <= 1 or count >= len(front):
        return list(front[max(len(front) - count, 0) :])
    logs = np.log([r["parameters"] for r in front])
    chosen: list[int] = []
    for target in np.linspace(logs[0], logs[-1], count):
        free = [i for i in range(len(front)) if i not in chosen]
        chosen.append(min(free, key=lambda i: abs(logs[i] - target)))
    return [front[i] for i in sorted(chosen)]


def best_under(front: Sequence[Record], max_parameters: float) -> Record | None:
    """Return the most accurate record of a front with at most that many parameters; None if all are larger."""
    fitting = bisect.bisect_right(front, max_parameters, key=lambda r: r["parameters"])
    return front[fitting - 1] if fitting else None


@dataclass(frozen=True)
class Scale:
    """The box that hypervolume is measured in: accuracy from chance to 1, log10 parameters from `least` to `most`."""

    least: int  # parameters of the smallest network of the space
    most: int  # parameters of its largest network
    chance: float  # accuracy of guessing, in [0, 1]

    def hypervolume(self, front: Iterable[Record]) -> float:
        """Return the share of the box that a front dominates, in [0, 1]; 1 is accuracy 1 with `least` parameters."""
        width = max(math.log10(self.most) - math.log10(self.least), 1e-9)
        points = [((math.log10(r["parameters"]) - math.log10(self.least)) / width, 1.0 - r["accuracy"]) for r in front]
        reference = (1.05, 1.0 - self.chance)  # a little beyond 1, so that the largest network counts as well
        return float(moocore.hypervolume(np.array(points).reshape(-1, 2), ref=reference)) / math.prod(reference)


def hypervolumes(records: Iterable[Record], scale: Scale) -> list[float]:
    """Return the hypervolume of the front after each record, in the order of the ledger."""
    front: list[Record] = []
    value, curve = 0.0, []
    for record in records:
        rival = best_under(front, record["parameters"])
        if _is_finished(record) and (rival is None or rival["accuracy"] < record["accuracy"]):
            front = front_of([*front, record])
            value = round(scale.hypervolume(front), 5)
        curve.append(value)
    return curve


def _is_finished(record: Record) -> bool:
    return record["state"] == "COMPLETE" and math.isfinite(record["accuracy"])
