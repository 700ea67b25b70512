"""The Pareto front of accuracy against size, its hypervolume, and choosing from it.

The `objective` of a search says what size is: the key in a record of its parameters or of its bytes of flash.
"""

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np

Record = Mapping[str, Any]  # one line of the ledger, with at least sequence, state, accuracy and the objective


def front_of(records: Iterable[Record], objective: str = "parameters") -> list[Record]:
    """Return the COMPLETE records that no other COMPLETE record beats, from the smallest to the largest.

    One record beats another if it is no worse in both objectives and better in one; of equals the first in the
    ledger stays. Accuracy rises strictly along the front. Records without a finite accuracy are left out.
    """
    finished = sorted(filter(_is_finished, records), key=lambda r: (r[objective], -r["accuracy"], r["sequence"]))
    front: list[Record] = []
    for record in finished:
        if not front or record["accuracy"] > front[-1]["accuracy"]:
            front.append(record)
    return front


def spread(front: Sequence[Record], count: int, objective: str = "parameters") -> list[Record]:
    """Choose at most `count` records of a front, evenly spread over its range of logarithmic size, both ends included
    (of one record alone, the most accurate). The order of the front is kept."""
    if count <= 1 or count >= len(front):
        return list(front[max(len(front) - count, 0) :])
    logs = np.log([r[objective] for r in front])
    chosen: list[int] = []
    for target in np.linspace(logs[0], logs[-1], count):
        free = [i for i in range(len(front)) if i not in chosen]
        chosen.append(min(free, key=lambda i: abs(logs[i] - target)))
    return [front[i] for i in sorted(chosen)]


def best_under(front: Sequence[Record], most: float, objective: str = "parameters") -> Record | None:
    """Return the most accurate record of a front with at most that size; None if all are larger."""
    fitting = bisect.bisect_right(front, most, key=lambda r: r[objective])
    return front[fitting - 1] if fitting else None


@dataclass(frozen=True)
class Scale:
    """The box that hypervolume is measured in: accuracy from chance to 1, log10 size from `least` to `most`."""

    least: int  # size of the smallest network of the space
    most: int  # size of its largest network
    chance: float  # accuracy of guessing, in [0, 1]
    objective: str = "parameters"  # what size is

    def hypervolume(self, front: Iterable[Record]) -> float:
        """Return the share of the box that a front dominates, in [0, 1]; 1 is accuracy 1 at size `least`."""
        least, most = math.log10(self.least), math.log10(self.most)
        width = max(most - least, 1e-9)
        points = [((math.log10(r[self.objective]) - least) / width, 1.0 - r["accuracy"]) for r in front]
        reference = (1.05, 1.0 - self.chance)  # a little beyond 1, so that the largest network counts as well
        return float(moocore.hypervolume(np.array(points).reshape(-1, 2), ref=reference)) / math.prod(reference)


def hypervolumes(records: Iterable[Record], scale: Scale) -> list[float]:
    """Return the hypervolume of the front after each record, in the order of the ledger."""
    front: list[Record] = []
    value, curve = 0.0, []
    for record in records:
        rival = best_under(front, record[scale.objective], scale.objective)
        if _is_finished(record) and (rival is None or rival["accuracy"] < record["accuracy"]):
            front = front_of([*front, record], scale.objective)
            value = round(scale.hypervolume(front), 5)
        curve.append(value)
    return curve


def _is_finished(record: Record) -> bool:
    return record["state"] == "COMPLETE" and math.isfinite(record["accuracy"])
