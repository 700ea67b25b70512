"""Rules that decide which running trials stop early, from their learning curves; `RULES` has them by name."""

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace

import moocore
import numpy as np

FEWEST_CURVES = 8  # full curves that a forecast needs
LEAST_ERROR = 1e-3  # smaller errors count as equal: few validation images can tell them apart
OPTIMISM = 2.0  # standard deviations by which a forecast may be exceeded before we rule it out
RIDGE = 0.1  # in units of one observation
ETA = 3  # of halving: 1 / ETA of the trials go on at each rung; the rungs are 1 / ETA apart


@dataclass(frozen=True)
class Progress:
    """The learning curve of a trial: validation accuracy and loss after each epoch."""

    trial: Hashable
    size: int  # parameters or flash, whichever the search keeps small
    macs: int
    depth: int  # layers of the network
    accuracy: tuple[float, ...]
    loss: tuple[float, ...]


@dataclass(frozen=True)
class Verdict:
    """The decision whether a trial goes on, and the final accuracy expected of it, where there is a forecast."""

    go_on: bool
    estimate: float | None = None


class StoppingRule:
    """Judges each trial after each of the `epochs` of a full training. This one lets every trial run to its end."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def judge(self, progress: Progress) -> Verdict:
        """Return whether a trial goes on. It is asked after the last epoch as well, to learn from full curves."""
        return Verdict(True)

    def learn(self, progress: Progress) -> None:
        """Take note of a trial that ended in an earlier session."""
        for done in range(1, len(progress.accuracy) + 1):
            self.judge(replace(progress, accuracy=progress.accuracy[:done], loss=progress.loss[:done]))


class FrontStopping(StoppingRule):
    """Stops a trial once an optimistic forecast of its final accuracy lies below the front at its size.

    The forecast is a linear regression, over the full curves of this search, of the logarithm of the final error on
    the logarithms of error and loss after as many epochs and on depth and the logarithms of size and MACs: while
    the learning rate is high, costs tell more than the curve. It is optimistic by two standard deviations of its
    residuals. The front is that of the full trials. A network smaller than all of them never stops.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        self._full: dict[Hashable, tuple[np.ndarray, Progress]] = {}  # features after each epoch, and curve, by trial
        self._forecasts: dict[int, Forecast] = {}  # by epochs done

    def judge(self, progress: Progress) -> Verdict:
        done = len(progress.accuracy)
        self.learn(progress)
        if done >= self.epochs or len(self._full) < FEWEST_CURVES:
            return Verdict(True)
        if done not in self._forecasts:
            features = np.array([features[done - 1] for features, _ in self._full.values()])
            log_errors = np.array([_log_error(full.accuracy[-1]) for _, full in self._full.values()])
            self._forecasts[done] = Forecast(features, log_errors)
        expected, spread = self._forecasts[done].predict(_features(progress, done))
        best = 1 - 10 ** (expected - OPTIMISM * spread)
        smaller = (full for _, full in self._full.values() if full.size <= progress.size)
        front = max((full.accuracy[-1] for full in smaller), default=0.0)
        return Verdict(bool(best >= front), 1 - 10**expected)

    def learn(self, progress: Progress) -> None:
        """Take note of a full curve; it replaces an earlier one of the same trial."""
        if len(progress.accuracy) >= self.epochs:
            features = np.array([_features(progress, done) for done in range(1, self.epochs + 1)])
            self._full[progress.trial] = (features, progress)
            self._forecasts.clear()


class Forecast:
    """Predicts the log10 of the final error from features after some epochs, by ridge regression.

    features: (n, d) of n full curves; log_errors: (n,).
    """

    def __init__(self, features: np.ndarray, log_errors: np.ndarray) -> None:
        self._count, dimensions = features.shape
        self._centre, self._mean = features.mean(axis=0), log_errors.mean()
        self._spread = np.maximum(features.std(axis=0), 1e-6)
        scaled = (features - self._centre) / self._spread
        self._inverse = np.linalg.inv(scaled.T @ scaled + RIDGE * np.eye(dimensions))
        self._weights = self._inverse @ scaled.T @ (log_errors - self._mean) / self._spread
        residuals = log_errors - self._mean - (features - self._centre) @ self._weights
        self._variance = float(residuals @ residuals) / max(self._count - dimensions - 1, 1)

    def predict(self, features: np.ndarray) -> tuple[float, float]:
        """Return mean and standard deviation for one curve's features (d,)."""
        offsets = features - self._centre
        scaled = offsets / self._spread
        leverage = 1 + 1 / self._count + scaled @ self._inverse @ scaled
        return float(self._mean + offsets @ self._weights), math.sqrt(self._variance * leverage)


def _features(progress: Progress, done: int) -> np.ndarray:
    error, loss = _log_error(progress.accuracy[done - 1]), math.log10(max(progress.loss[done - 1], LEAST_ERROR))
    return np.array([error, loss, math.log10(progress.size), math.log10(progress.macs), float(progress.depth)])


def _log_error(accuracy: float) -> float:
    return math.log10(max(1 - accuracy, LEAST_ERROR))


class ParetoHalving(StoppingRule):
    """Multi-objective successive halving, asynchronous.

    At a third, a ninth, ... of the epochs a trial goes on if it is among the best third of those that came so far, by
    non-dominated sorting of accuracy and size. Within a layer of equal rank those come first that lie farthest
    from others in log10 size.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        rungs = (epochs // ETA**i for i in range(1, epochs))
        self._rungs: dict[int, list[tuple[float, float]]] = {rung: [] for rung in rungs if rung}

    def judge(self, progress: Progress) -> Verdict:
        rung = self._rungs.get(len(progress.accuracy))
        if rung is None:
            return Verdict(True)
        rung.append((1 - progress.accuracy[-1], math.log10(progress.size)))
        return Verdict(_place_of_last(np.array(rung)) < max(len(rung) // ETA, 1))


def _place_of_last(losses: np.ndarray) -> int:
    """Return the place of the last row (of n, 2) by non-dominated sorting, counted from 0; within a layer by the
    distance of its neighbours along the second column, the ends first."""
    ranks = moocore.pareto_rank(losses)
    layer = np.flatnonzero(ranks == ranks[-1])
    layer = layer[np.lexsort((losses[layer, 0], losses[layer, 1]))]
    costs = losses[layer, 1]
    gaps = np.concatenate([[np.inf], costs[2:] - costs[:-2], [np.inf]])[: len(layer)]
    order = layer[np.argsort(-gaps, kind="stable")]
    return int((ranks < ranks[-1]).sum() + np.flatnonzero(order == len(losses) - 1)[0])


RULES: dict[str, type[StoppingRule]] = {
    "auto": FrontStopping,
    "none": StoppingRule,
    "front": FrontStopping,
    "halving": ParetoHalving,
}
