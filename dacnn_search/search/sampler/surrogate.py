"""`SurrogateSampler`: an Optuna sampler for a search space of ours, whose trainings are expensive and noisy."""

import functools
import math
import random
from collections.abc import Sequence
from typing import Any

import moocore
import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr
from sklearn.gaussian_process.kernels import Kernel
from threadpoolctl import ThreadpoolController

from dacnn_search.network.architecture import Architecture
from dacnn_search.search.sampler.domain import Domain, Point
from dacnn_search.search.sampler.gaussian_process import GaussianProcess, fit_kernel
from dacnn_search.space.search_space import SearchSpace

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)  # accuracy, size
ESTIMATE = "estimate"  # user attribute of a PRUNED trial: the accuracy it would have reached
PARTS = (0, 4, 2, 1, 3)  # fifths of the range of costs, in the order in which the first points take them
FEWEST_OBSERVED = 3  # that a model needs; with more workers than that there are more first points
RESERVE, RENEWED = 512, 64  # random points at hand, and how many of them are drawn anew for each proposal
MUTANTS = 256  # mutations of the front for each proposal
BEYOND = 0.05  # the reference point lies by that share of the range beyond the worst
MOST_TO_FIT = 128  # observations that the kernel is fitted to
MOST_OBSERVED = 256  # observations that predictions are made from: the front's, and random ones of all others
GROWTH = 1.1  # the kernel is fitted anew once there are so many times more observations
LOG_10 = math.log(10)
LIBRARIES = ThreadpoolController()  # numpy and scipy get one thread: the other cores train meanwhile


class SurrogateSampler(BaseSampler):
    """Sampler of studies that maximise accuracy and minimise size over the networks of `space`.

    It models the error of networks by a Gaussian process; their size it knows exactly. Of random networks and
    mutations of the front it proposes the one with the largest expected improvement of the hypervolume, and none twice.
    A trial that still runs counts with the error expected of it, a PRUNED one by its user attribute `estimate`, without
    which it is only not proposed again. Raises ValueError in a study of other directions.
    """

    def __init__(self, seed: int, space: SearchSpace, objective: str = "parameters") -> None:
        self._generator = random.Random(seed)
        self._independent = RandomSampler(self._generator.getrandbits(32))
        self._space = space
        self._objective = objective
        self._reserve: list[Point] = []
        self._kernel: Kernel | None = None
        self._fitted_to = 0  # observations that there were when the kernel was fitted

    @functools.cached_property
    def _domain(self) -> Domain:
        return Domain(self._space, self._objective)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all choices of the space; those that do not apply do no harm."""
        if tuple(study.directions) != DIRECTIONS:
            names = ", ".join(direction.name for direction in study.directions)
            raise ValueError(f"SurrogateSampler needs the directions MAXIMIZE, MINIMIZE, but the study has {names}")
        return self._domain.distributions

    @LIBRARIES.wrap(limits=1)
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        history = History(self._domain, study, trial)
        missing = RENEWED if self._reserve else RESERVE
        drawn = [self._domain.draw(self._generator) for _ in range(missing)]
        self._reserve = [point for point in drawn if point] + self._reserve[: RESERVE - missing]
        is_first = len(history.trained) < len(PARTS) or len(history.points) < FEWEST_OBSERVED
        point = self._spread_out(history) if is_first else self._most_promising(history)
        return point.choices if point else {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a random value, as no point is left to propose."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _spread_out(self, history: "History") -> Point | None:
        """Return one of the first points: from each part of the range of costs in turn, at first its most typical
        point, as extreme ones tend to be bad, then the one farthest from all before."""
        free = history.unknown(self._reserve)
        if not free:
            return None
        count, costs = len(history.trained), _costs(free)
        part, edges = PARTS[count % len(PARTS)], np.linspace(costs.min(), costs.max(), len(PARTS) + 1)
        outside = np.maximum.reduce([edges[part] - costs, costs - edges[part + 1], np.zeros(len(costs))])
        free = [free[i] for i in np.flatnonzero(outside <= outside.min())]  # in the part, or as near to it as any is
        features = _features(free)
        if count < len(PARTS):
            return free[int(((features - features.mean(axis=0)) ** 2).sum(axis=1).argmin())]
        distances = ((features[:, None] - _features(history.trained)) ** 2).sum(axis=2).min(axis=1)
        return free[int(distances.argmax())]

    def _most_promising(self, history: "History") -> Point | None:
        """Return the candidate that is expected to improve the front of expected values most. (A front of observed
        values would be one of lucky ones.)"""
        model = self._model(history)
        expected = np.stack([model.predict(_features(history.trained))[0], _costs(history.trained)], axis=1)
        front = _front(expected)
        parents = [history.trained[i] for i in front]
        mutants = [self._domain.mutate(self._generator.choice(parents), self._generator) for _ in range(MUTANTS)]
        candidates = history.unknown(self._reserve + [mutant for mutant in mutants if mutant])
        if not candidates:
            return None
        means, deviations = model.predict(_features(candidates))
        expected[:, 0] = 10 ** expected[:, 0]
        least, most = expected.min(axis=0), expected.max(axis=0)
        reference = most + BEYOND * (most - least)
        gains = expected_improvement(expected[front], reference, means, deviations, _costs(candidates))
        return candidates[int(gains.argmax())]

    def _model(self, history: "History") -> GaussianProcess:
        """Return the process of log10 errors; its kernel is fitted anew if observations have grown enough."""
        used = self._observations_to_use(history)
        features = _features([*(history.points[i] for i in used), *history.pending])
        errors = history.errors[used]
        if self._kernel is None or len(history.points) >= GROWTH * self._fitted_to:
            chosen = self._generator.sample(range(len(errors)), min(len(errors), MOST_TO_FIT))
            scaled = (errors[chosen] - errors[chosen].mean()) / max(errors[chosen].std(), 1e-9)
            self._kernel = fit_kernel(features[chosen], scaled, self._kernel)
            self._fitted_to = len(history.points)
        return GaussianProcess(self._kernel, features, errors)

    def _observations_to_use(self, history: "History") -> list[int]:
        """Return which observations the model is made from: so many that proposals stay fast."""
        every = list(range(len(history.points)))
        if len(every) <= MOST_OBSERVED:
            return every
        losses = np.stack([history.errors, _costs(history.points)], axis=1)
        front = _front(losses).tolist()[:MOST_OBSERVED]
        others = sorted(set(every) - set(front))
        return front + self._generator.sample(others, MOST_OBSERVED - len(front))


class History:
    """The trials of a study before one of them."""

    def __init__(self, domain: Domain, study: Study, trial: FrozenTrial) -> None:
        self.points: list[Point] = []  # observed
        self.pending: list[Point] = []  # running
        self.known: set[Architecture] = set()  # networks of these and of all that failed or were stopped
        accuracies = []
        for other in study.get_trials(deepcopy=False):
            point = domain.read(other.params) if other.number != trial.number else None
            if point is None:
                continue
            self.known.add(point.architecture)
            accuracy = other.values[0] if other.state is TrialState.COMPLETE else other.user_attrs.get(ESTIMATE)
            if accuracy is not None:
                self.points.append(point)
                accuracies.append(accuracy)
            elif other.state is TrialState.RUNNING:
                self.pending.append(point)
        self.trained = self.points + self.pending
        self.errors = np.log10(np.maximum(1 - np.array(accuracies, dtype=float), domain.least_error))

    def unknown(self, points: Sequence[Point]) -> list[Point]:
        """Return the points whose networks are not among the trials, each network once."""
        return [p for network, p in {p.architecture: p for p in points}.items() if network not in self.known]


def expected_improvement(
    front: np.ndarray, reference: np.ndarray, means: np.ndarray, deviations: np.ndarray, costs: np.ndarray
) -> np.ndarray:
    """Return the expected improvement of the hypervolume by one more point, for each of m candidates: (m,).

    Let the front be (b_1, h_1), ..., (b_n, h_n), b falling and h rising; b_0 and h_(n+1) those of the reference point
    and h_0 = -infinity. Of the points with h_i <= y < h_(i+1), those with an error of b_i or more are dominated
    already, so that a candidate of error E and cost y adds the area

        sum over i = 0, ..., n of  (b_i - E)+ * ((h_(i+1) - y)+ - (h_i - y)+)

    If the natural logarithm of E has mean mu and deviation s, the expectation of (b - E)+ is the price of a put option
    by Black and Scholes,

        b Phi(z) - exp(mu + s^2 / 2) Phi(z - s),  z = (log b - mu) / s

    The strips are those of Emmerich, Yang, Deutz, Wang and Fonseca, "A multicriteria generalization of Bayesian global
    optimization" (2016).

    Args:
        front: Nondominated errors and costs, (n, 2).
        reference: The reference point of the hypervolume, (2,).
        means: Means of the log10 of the errors, which is Gaussian, (m,).
        deviations: Its standard deviations, (m,).
        costs: Costs, which are certain, (m,).
    """
    front = front[np.argsort(front[:, 1])]
    bounds = np.concatenate([reference[:1], front[:, 0]])
    heights = np.concatenate([front[:, 1], reference[1:]])
    strips = np.diff(np.maximum(heights - costs[:, None], 0.0), axis=1, prepend=0.0)
    mean = LOG_10 * means[:, None]
    deviation = LOG_10 * np.maximum(deviations[:, None], 1e-12)  # so that a certain error gives (b - E)+
    z = (np.log(np.maximum(bounds, 1e-300)) - mean) / deviation
    return ((bounds * ndtr(z) - np.exp(mean + deviation**2 / 2) * ndtr(z - deviation)) * strips).sum(axis=1)


def _front(losses: np.ndarray) -> np.ndarray:
    """Return the indices of the rows (n, 2) that no other row beats, from the least first loss on."""
    front = np.flatnonzero(moocore.is_nondominated(losses))
    return front[np.argsort(losses[front, 0])]


def _features(points: Sequence[Point]) -> np.ndarray:
    return np.array([point.features for point in points])


def _costs(points: Sequence[Point]) -> np.ndarray:
    return np.array([point.cost for point in points])
