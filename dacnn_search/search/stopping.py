"""Which running trials may stop early without hurting the front: pure logic, fed with learning curves.

Three rules, by name: `none`; `front`, which stops a trial once an optimistic forecast of its final accuracy lies below
the front at its own parameter count; and `halving`, multi-objective successive halving.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["FrontStopping", "NoStopping", "ParetoHalving", "Progress", "StoppingRule", "Verdict", "make_stopping"]

FEWEST_CURVES = 8  # full ones that a forecast needs
LEAST_ERROR = 1e-3  # below it errors count as equal: few validation images can tell them apart
OPTIMISM = 2.0  # standard deviations by which a forecast may be exceeded before we rule it out
RIDGE = 0.1  # in units of one observation
ETA = 3  # of halving: the share of trials that goes on, and of epochs, is 1 / ETA


@dataclass(frozen=True)
class Progress:
    """A trial after some epochs: validation accuracy and loss of each. depth: layers of the network."""

    trial: Hashable
    parameters: int
    macs: int
    depth: int
    accuracy: tuple[float, ...]
    loss: tuple[float, ...]


@dataclass(frozen=True)
class Verdict:
    """Whether to go on, and the final accuracy expected, where there is a forecast."""

    go_on: bool
    estimate: float | None = None


class StoppingRule(ABC):
    """Asked after each epoch of each trial; epochs: of a full training."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    @abstractmethod
    def judge(self, progress: Progress) -> Verdict:
        """Whether a trial goes on. After the last epoch it is asked as well, so as to learn from full curves."""

    def follow(self, progress: Progress, judged: int = 0) -> Verdict:
        """Judge a trial after each epoch beyond the first `judged`: the first verdict that stops it, else to go on."""
        verdicts = [
            self.judge(replace(progress, accuracy=progress.accuracy[:done], loss=progress.loss[:done]))
            for done in range(judged + 1, len(progress.accuracy) + 1)
        ]
        return next((verdict for verdict in verdicts if not verdict.go_on), Verdict(True))


class NoStopping(StoppingRule):
    """Every trial runs to its end."""

    def judge(self, progress: Progress) -> Verdict:
        return Verdict(True)


class FrontStopping(StoppingRule):
    """Stops a trial once an optimistic forecast of its final accuracy lies below the front at its parameter count.

    The forecast is a linear regression, over the full curves of this search, of the logarithm of the final error on
    the logarithms of error and loss after as many epochs and on depth and the logarithms of parameters and MACs: while
    the learning rate is high, costs tell more than the curve. It is optimistic by two standard deviations of its
    residuals. The front is that of the full trials. A network with fewer parameters than all of them never stops.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        self._full: dict[Hashable, Progress] = {}
        self._front: list[tuple[int, float]] = []  # parameters and accuracy, both rising
        self._forecasts: dict[int, Forecast] = {}

    def judge(self, progress: Progress) -> Verdict:
        done = len(progress.accuracy)
        if done >= self.epochs:
            self._learn(progress)
            return Verdict(True)
        if len(self._full) < FEWEST_CURVES:
            return Verdict(True)
        if done not in self._forecasts:
            self._forecasts[done] = Forecast(list(self._full.values()), done)
        expected, spread = self._forecasts[done].of(progress)
        best = 1 - 10 ** (expected - OPTIMISM * spread)
        return Verdict(best >= self._beaten_by(progress.parameters), 1 - 10**expected)

    def _learn(self, progress: Progress) -> None:
        self._full[progress.trial] = progress
        self._forecasts.clear()
        self._front = []
        for full in sorted(self._full.values(), key=lambda p: (p.parameters, -p.accuracy[-1])):
            if not self._front or full.accuracy[-1] > self._front[-1][1]:
                self._front.append((full.parameters, full.accuracy[-1]))

    def _beaten_by(self, parameters: int) -> float:
        """The best accuracy of a full trial with at most so many parameters; 0 if there is none."""
        place = bisect_right(self._front, (parameters, math.inf))
        return self._front[place - 1][1] if place else 0.0


class Forecast:
    """Final log10 error from a curve so far, learnt from full curves by ridge regression."""

    def __init__(self, full: list[Progress], epochs: int) -> None:
        rows = np.array([_features(progress, epochs) for progress in full])
        targets = np.array([_log_error(progress.accuracy[-1]) for progress in full])
        self._epochs = epochs
        self._centre, self._mean = rows.mean(axis=0), targets.mean()
        spread = np.maximum(rows.std(axis=0), 1e-6)
        scaled = (rows - self._centre) / spread
        inverse = np.linalg.inv(scaled.T @ scaled + RIDGE * np.eye(rows.shape[1]))
        self._weights = inverse @ scaled.T @ (targets - self._mean) / spread
        residuals = targets - self._mean - (rows - self._centre) @ self._weights
        freedom = max(len(full) - rows.shape[1] - 1, 1)
        self._variance = float(residuals @ residuals) / freedom
        self._inverse, self._spread, self._count = inverse, spread, len(full)

    def of(self, progress: Progress) -> tuple[float, float]:
        """Mean and standard deviation of the final log10 error."""
        row = _features(progress, self._epochs) - self._centre
        scaled = row / self._spread
        leverage = 1 + 1 / self._count + scaled @ self._inverse @ scaled
        return self._mean + float(row @ self._weights), math.sqrt(self._variance * leverage)


def _features(progress: Progress, epochs: int) -> np.ndarray:
    error, loss = _log_error(progress.accuracy[epochs - 1]), math.log10(max(progress.loss[epochs - 1], LEAST_ERROR))
    costs = (math.log10(progress.parameters), math.log10(progress.macs), float(progress.depth))
    return np.array([error, loss, *costs])


def _log_error(accuracy: float) -> float:
    return math.log10(max(1 - accuracy, LEAST_ERROR))


class ParetoHalving(StoppingRule):
    """Multi-objective successive halving, asynchronous: at a third, a ninth, ... of the epochs a trial goes on if it is
    among the best third of those that came so far, by non-dominated sorting of accuracy and parameters; within a layer
    those come first that lie farthest from others in log10 parameters."""

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        rungs = [epochs]
        while rungs[-1] // ETA:
            rungs.append(rungs[-1] // ETA)
        self._rungs: dict[int, list[tuple[float, float]]] = {rung: [] for rung in rungs[1:]}

    def judge(self, progress: Progress) -> Verdict:
        rung = self._rungs.get(len(progress.accuracy))
        if rung is None:
            return Verdict(True)
        rung.append((1 - progress.accuracy[-1], math.log10(progress.parameters)))
        kept = max(len(rung) // ETA, 1)
        return Verdict(len(rung) - 1 in sort_by_layers(np.array(rung))[:kept])


def sort_by_layers(losses: np.ndarray) -> list[int]:
    """The rows (n, 2) by non-dominated sorting, the front first; within a layer by how far they are from the
    neighbours in it along the second column, the ends first."""
    left, order = list(range(len(losses))), []
    while left:
        layer = [i for i in left if not any(_beats(losses[j], losses[i]) for j in left)]
        layer.sort(key=lambda i: (losses[i, 1], losses[i, 0]))
        places = losses[layer, 1]
        gaps = np.concatenate([[np.inf], places[2:] - places[:-2], [np.inf]])[: len(layer)]
        order += [layer[i] for i in np.argsort(-gaps, kind="stable")]
        left = [i for i in left if i not in set(layer)]
    return order


def _beats(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one <= other).all() and (one < other).any())


RULES: dict[str, type[StoppingRule]] = {
    "auto": FrontStopping,
    "none": NoStopping,
    "front": FrontStopping,
    "halving": ParetoHalving,
}


def make_stopping(name: str, epochs: int) -> StoppingRule:
    """A fresh rule for trainings of that many epochs."""
    return RULES[name](epochs)
