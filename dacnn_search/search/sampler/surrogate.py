"""`SurrogateSampler`: an Optuna sampler for one or two objectives that are expensive to evaluate and noisy.

It models each objective over a joint encoding of all parameters, conditional ones included, by a Gaussian process,
and proposes, of random points and mutations of the front, the one with the largest expected hypervolume improvement.
Told a `SearchSpace`, it knows parameters exactly, which makes one of the two objectives certain, and proposes no
network twice. Trials that still run count with the value expected of them.
"""

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr
from sklearn.gaussian_process.kernels import Kernel
from threadpoolctl import ThreadpoolController

from dacnn_search.search.sampler.domain import Domain, LearntDomain, Point, SpaceDomain
from dacnn_search.search.sampler.gaussian_process import GaussianProcess, fit_kernel
from dacnn_search.space.search_space import SearchSpace

__all__ = ["ESTIMATE", "SurrogateSampler", "expected_improvement"]

ESTIMATE = "estimate"  # user attribute of a PRUNED trial: the value of its first objective, had it gone on
PARTS = (0, 4, 2, 1, 3)  # of the range of costs, in the order in which the first points take them
FEWEST_OBSERVED = 3  # that a model needs; with more workers than that there are more first points
RESERVE, RENEWED = 512, 64  # random points at hand, and how many of them are drawn anew for each proposal
MUTANTS = 256  # mutations of the front for each proposal
BEYOND = 0.05  # the reference point lies by that share of the range beyond the worst
MOST_TO_FIT = 128  # observations that choose the kernel's parameters
MOST_OBSERVED = 256  # observations that predictions are made from: the front's, and random ones of all others
SQRT_2_PI, LOG_10 = math.sqrt(2 * math.pi), math.log(10)
LIBRARIES = ThreadpoolController()  # of numpy and scipy: on one thread, as others train meanwhile
GROWTH = 1.1  # the kernel's parameters are chosen anew once there are so many times more observations


class SurrogateSampler(BaseSampler):
    """See the module. seed: of all random draws. space: one of our search spaces, whose objectives must be accuracy
    (maximised) and parameters (minimised); without it any study of one or two objectives is served.

    A PRUNED trial counts by its user attribute `estimate` if it has one, else not at all. Raises ValueError in a study
    of more than two objectives.
    """

    def __init__(self, seed: int | None = None, space: SearchSpace | None = None) -> None:
        self._generator = random.Random(seed)
        self._independent = RandomSampler(self._generator.getrandbits(32))
        self._space = SpaceDomain(space) if space is not None else None
        self._learnt: tuple[int, Domain] | None = None  # for which trial, and what was learnt
        self._reserve: list[Point] = []
        self._kernels: dict[int, tuple[int, Kernel]] = {}  # objective -> number of observations, kernel

    def reseed_rng(self) -> None:
        self._generator.seed()
        self._independent.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters that trials had so far. Those that turn out not to be asked do no harm."""
        if len(study.directions) > 2:
            raise ValueError(f"SurrogateSampler serves 1 or 2 objectives, but the study has {len(study.directions)}")
        return self._domain(study, trial).distributions

    @LIBRARIES.wrap(limits=1)
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        domain = self._domain(study, trial)
        history = _read_history(domain, study, trial)
        self._refill(domain)
        begun = history.count >= len(PARTS) and len(history.losses) >= FEWEST_OBSERVED
        propose = self._most_promising if begun else self._spread_out
        chosen = propose(domain, history)
        return chosen.params if chosen else {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value: in the first trial of a study, and for parameters that no trial had so far."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _domain(self, study: Study, trial: FrozenTrial) -> Domain:
        if self._space is not None:
            return self._space
        if self._learnt is None or self._learnt[0] != trial.number:
            others = [t for t in study.get_trials(deepcopy=False) if t.params and t.number != trial.number]
            self._learnt = (trial.number, LearntDomain([(t.params, t.distributions) for t in others]))
            self._reserve = []  # the encoding may have changed
        return self._learnt[1]

    def _refill(self, domain: Domain) -> None:
        """Draw some of the random points at hand anew, all of them the first time."""
        missing = RENEWED if self._reserve else RESERVE
        drawn = [domain.draw(self._generator) for _ in range(missing)]
        self._reserve = [point for point in drawn if point] + self._reserve[: RESERVE - missing]

    def _spread_out(self, domain: Domain, history: "History") -> Point | None:
        """One of the first points. Where costs are known beforehand, they come from one part of the range of costs
        after the other: the first of each part is its most typical point, as extreme ones tend to be bad. All others
        are the farthest from those before."""
        free = history.unknown(self._reserve)
        if not free:
            return None
        if domain.exact is not None:
            free = _in_part(free, PARTS[history.count % len(PARTS)])
        features = _features(free)
        if domain.exact is not None and history.count < len(PARTS):
            return free[int(((features - features.mean(axis=0)) ** 2).sum(axis=1).argmin())]
        if not history.count:
            return self._generator.choice(free)
        others = _features(history.points + history.pending)
        apart = ((features[:, None] - others) ** 2).sum(axis=2).min(axis=1)
        return free[int(apart.argmax())]

    def _most_promising(self, domain: Domain, history: "History") -> Point | None:
        """The candidate with the largest expected improvement of the front of expected values. (A front of observed
        values would be one of lucky ones.)"""
        known = history.points + history.pending
        objectives = range(history.losses.shape[1])
        models = [Exact() if j == domain.exact else self._model(j, history) for j in objectives]
        expected = np.stack([model.predict(known)[0] for model in models], axis=1)
        front = _front(expected)
        candidates = history.unknown(self._reserve + self._mutants(domain, [known[i] for i in front]))
        if not candidates:
            return None
        means, deviations = (np.stack(part, 1) for part in zip(*(m.predict(candidates) for m in models), strict=True))
        logarithmic = [j == domain.logarithmic for j in objectives]
        expected[:, logarithmic] = 10 ** expected[:, logarithmic]
        least, most = expected.min(axis=0), expected.max(axis=0)
        reference = most + BEYOND * (most - least)
        gains = expected_improvement(expected[front], reference, means, deviations, logarithmic)
        return candidates[int(gains.argmax())]

    def _mutants(self, domain: Domain, parents: Sequence[Point]) -> list[Point]:
        mutants = [domain.mutate(self._generator.choice(parents), self._generator) for _ in range(MUTANTS)]
        return [mutant for mutant in mutants if mutant]

    def _model(self, objective: int, history: "History") -> "Model":
        used = self._observed(history)
        features = _features([*(history.points[i] for i in used), *history.pending])
        losses = history.losses[used, objective]
        count, kernel = self._kernels.get(objective, (0, None))
        if kernel is None or len(history.points) >= GROWTH * count or kernel.n_dims != features.shape[1] + 2:
            chosen = self._generator.sample(range(len(losses)), min(len(losses), MOST_TO_FIT))
            scaled = (losses[chosen] - losses[chosen].mean()) / max(losses[chosen].std(), 1e-9)
            kernel = fit_kernel(features[chosen], scaled, kernel)
            self._kernels[objective] = (len(history.points), kernel)
        return Modelled(GaussianProcess(kernel, features, losses))

    def _observed(self, history: "History") -> list[int]:
        """Which observations a model is made from: not too many, so that proposals do not take longer and longer."""
        every = range(len(history.points))
        if len(every) <= MOST_OBSERVED:
            return list(every)
        front = [int(i) for i in _front(history.losses)][:MOST_OBSERVED]
        others = sorted(set(every) - set(front))
        return front + self._generator.sample(others, MOST_OBSERVED - len(front))


class Model(Protocol):
    """What is known of one objective."""

    def predict(self, points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, each (n,)."""


class Exact:
    """An objective that is known beforehand."""

    def predict(self, points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
        return _costs(points), np.zeros(len(points))


@dataclass(frozen=True)
class Modelled:
    """An objective known from observations."""

    process: GaussianProcess

    def predict(self, points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
        return self.process.predict(_features(points))


@dataclass(frozen=True)
class History:
    """The trials of a study. points: observed, with losses (n, objectives), in the scales they are modelled in.
    pending: running. keys: of these and of all that failed or were stopped."""

    points: list[Point]
    losses: np.ndarray
    pending: list[Point]
    keys: set[Hashable]

    @property
    def count(self) -> int:
        return len(self.points) + len(self.pending)

    def unknown(self, points: Sequence[Point]) -> list[Point]:
        """Those that are not among the trials, each once."""
        return [point for key, point in {point.key: point for point in points}.items() if key not in self.keys]


def expected_improvement(
    front: np.ndarray,
    reference: np.ndarray,
    means: np.ndarray,
    deviations: np.ndarray,
    logarithmic: Sequence[bool] = (False, False),
) -> np.ndarray:
    """Expected improvement of the hypervolume by one more point, for each of m candidates: (m,).

    front: (n, k) nondominated points, all objectives to be minimised, k = 1 or 2; reference: (k,);
    means, deviations: (m, k) of independent Gaussians, a deviation of 0 for what is certain; logarithmic: which
    objectives they are the log10 of.

    Let the front be (b_1, h_1), ..., (b_n, h_n), b falling and h rising; b_0 and h_(n+1) those of the reference point
    and h_0 = -infinity. Of the points with h_i <= y_2 < h_(i+1), those with y_1 >= b_i are dominated already, so that
    (Y_1, Y_2) adds the area

        sum over i = 0, ..., n of  (b_i - Y_1)+ * ((h_(i+1) - Y_2)+ - (h_i - Y_2)+)

    Its expectation has psi_1(b_i) and psi_2(h_(i+1)) - psi_2(h_i) in place of the factors, with

        psi(t) = E (t - Y)+ = (t - mu) Phi(z) + s phi(z),  z = (t - mu) / s

    and psi(t) = (t - mu)+ for an objective that is certain (s = 0). If the natural logarithm of Y has mean mu and
    deviation s, then psi is the price of a put option by Black and Scholes,

        psi(t) = t Phi(z) - exp(mu + s^2 / 2) Phi(z - s),  z = (log t - mu) / s

    For one objective it is the expected improvement
    psi(b). The strips are those of Emmerich, Yang, Deutz, Wang and Fonseca, "A multicriteria generalization of Bayesian
    global optimization" (2016).
    """
    if front.shape[1] == 1:
        return _psi(front.min(axis=0), means[:, 0], deviations[:, 0], logarithmic[0])[:, 0]
    front = front[np.argsort(front[:, 1])]
    bounds = np.concatenate([reference[:1], front[:, 0]])
    heights = np.concatenate([front[:, 1], reference[1:]])
    strips = np.diff(_psi(heights, means[:, 1], deviations[:, 1], logarithmic[1]), axis=1, prepend=0.0)
    return (_psi(bounds, means[:, 0], deviations[:, 0], logarithmic[0]) * strips).sum(axis=1)


def _psi(thresholds: np.ndarray, means: np.ndarray, deviations: np.ndarray, logarithmic: bool) -> np.ndarray:
    """E (t - Y)+ for each candidate and threshold: (m, n)."""
    deviation = np.maximum(deviations[:, None], 1e-12)  # so that a certain value gives (t - mu)+
    if logarithmic:
        mean, deviation = LOG_10 * means[:, None], LOG_10 * deviation
        z = (np.log(np.maximum(thresholds, 1e-300)) - mean) / deviation
        return thresholds * ndtr(z) - np.exp(mean + deviation**2 / 2) * ndtr(z - deviation)
    below = thresholds - means[:, None]
    z = below / deviation
    return below * ndtr(z) + deviation * np.exp(-(z**2) / 2) / SQRT_2_PI


def _read_history(domain: Domain, study: Study, trial: FrozenTrial) -> History:
    points, values, pending, keys = [], [], [], set()
    for other in study.get_trials(deepcopy=False):
        point = domain.read(other.params) if other.number != trial.number else None
        if point is None:
            continue
        keys.add(point.key)
        observed = _values(other, point)
        if observed is not None:
            points.append(point)
            values.append(observed)
        elif other.state is TrialState.RUNNING:
            pending.append(point)
    signs = np.array([-1 if d is StudyDirection.MAXIMIZE else 1 for d in study.directions])
    losses = signs * np.array(values, dtype=float).reshape(len(values), len(signs))
    scaled = [domain.scale(j, column) if len(column) else column for j, column in enumerate(losses.T)]
    return History(points, np.stack(scaled, axis=1), pending, keys)


def _in_part(points: Sequence[Point], part: int) -> list[Point]:
    """Those whose cost lies in one of the equal parts of the range, or as near to it as there are any."""
    costs = _costs(points)
    edges = np.linspace(costs.min(), costs.max(), len(PARTS) + 1)
    outside = np.maximum.reduce([edges[part] - costs, costs - edges[part + 1], np.zeros(len(costs))])
    return [points[int(i)] for i in np.flatnonzero(outside <= outside.min())]


def _values(trial: FrozenTrial, point: Point) -> list[float] | None:
    """The objectives of a trial as far as it counts."""
    if trial.state is TrialState.COMPLETE:
        return list(trial.values) if np.isfinite(trial.values).all() else None
    estimate = trial.user_attrs.get(ESTIMATE)
    if trial.state is TrialState.PRUNED and estimate is not None and point.cost is not None:
        return [estimate, 10**point.cost]
    return None


def _front(losses: np.ndarray) -> np.ndarray:
    """The indices of the rows (n, k) that no other row beats, k = 1 or 2, from the least first loss on."""
    order = np.lexsort(losses.T[::-1])
    if losses.shape[1] == 1:
        return order[:1]
    second = losses[order, 1]
    return order[second < np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])]


def _features(points: Sequence[Point]) -> np.ndarray:
    return np.array([point.features for point in points])


def _costs(points: Sequence[Point]) -> np.ndarray:
    return np.array([point.cost for point in points], dtype=float)
