"""`SurrogateSampler`: an Optuna sampler for a search space of ours, whose trainings are expensive and noisy."""

import functools
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
from threadpoolctl import ThreadpoolController

from dacnn_search.network.architecture import Architecture
from dacnn_search.search.sampler.acquisition import expected_improvement, rate_of_gain
from dacnn_search.search.sampler.domain import Domain, Point
from dacnn_search.search.sampler.gaussian_process import GaussianProcess, Inputs, Kernel, fit_kernel
from dacnn_search.search.sampler.prior import Prior, trend_of
from dacnn_search.space.search_space import SearchSpace

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)  # accuracy, size
ESTIMATE = "estimate"  # user attribute of a PRUNED trial: the accuracy it would have reached
SHORT = "short"  # user attribute of a trial: its accuracy after the first cycle
RESERVE, RENEWED = 512, 24  # random points at hand, and how many of them are drawn anew for each proposal
MUTANTS = 192  # mutations of the front for each proposal
BEYOND = 0.05  # the reference point lies by that share of the range beyond the largest size
MOST_TO_FIT = 128  # observations that the kernel is fitted to
MOST_OBSERVED = 256  # observations that predictions are made from: the front's, and random ones of all others
GROWTH = 1.1  # the kernel is fitted anew once there are so many times more observations
LIBRARIES = ThreadpoolController()  # numpy and scipy get one thread: the other cores train meanwhile


class SurrogateSampler(BaseSampler):
    """Sampler of studies that maximise accuracy and minimise size over the networks of `space`.

    It models the error of networks by a Gaussian process, which starts from the belief of a `prior` that has most
    evidence; their size it knows exactly. Of random networks and mutations of the front it proposes, and none twice,
    the one that promises most hypervolume per epoch, if it is trained for a first cycle (a share `first_share` of the
    epochs, 0 for none) and then, if it still promises most, for the rest.

    A trial that still runs counts with the error expected of it, a PRUNED one by its user attribute `estimate`; the
    attribute `short` of any trial tells of its first cycle. Raises ValueError in a study of other directions.
    """

    def __init__(
        self,
        seed: int,
        space: SearchSpace,
        objective: str = "parameters",
        prior: str | Prior = "auto",
        first_share: float = 0.0,
    ) -> None:
        self._generator = random.Random(seed)
        self._independent = RandomSampler(self._generator.getrandbits(32))
        self._space = space
        self._objective = objective
        self._prior = prior if isinstance(prior, Prior) else Prior.load(prior)
        self._first_share = first_share
        self._reserve: list[Point] = []
        self._beliefs = self._prior.beliefs
        self._kernels: list[Kernel | None] = [None] * len(self._beliefs)
        self._fitted_to = 0  # observations that there were when the kernels were fitted

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
        point = self._most_promising(history)
        return point.choices if point else {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a random value, as no point is left to propose."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    @LIBRARIES.wrap(limits=1)
    def is_worth_finishing(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether a running trial, whose first cycle is over, promises as much per epoch as any new network.
        The sampler stays as it was."""
        history = History(self._domain, study, trial)
        point = self._domain.read(trial.params)
        if point is None:
            return True
        candidates = [other for other in history.unknown(self._reserve) if other.architecture != point.architecture]
        if not candidates:
            return True
        model = self._model(history, fit=False)
        front, reference = self._expected_front(model, history.committed)
        inputs = self._inputs([point], [False])
        gain = expected_improvement(front, reference, *model.predict(inputs), _costs([point]))[0]
        return bool(gain / (1 - self._first_share) >= self._rates(model, history, candidates).max())

    def _most_promising(self, history: "History") -> Point | None:
        """Return the candidate that is expected to improve the front of expected values most per epoch. (A front of
        observed values would be one of lucky ones.)"""
        model = self._model(history)
        free = history.unknown(self._reserve)
        parents = history.trained + free
        means = model.predict(self._inputs(parents, [False] * len(parents)))[0]
        best = [parents[i] for i in _front(np.stack([means, _costs(parents)], axis=1))]
        mutants = [
            self._domain.mutate(self._generator.choice(best), self._generator) for _ in range(MUTANTS if best else 0)
        ]
        candidates = history.unknown(free + [mutant for mutant in mutants if mutant])
        if not candidates:
            return None
        return candidates[int(self._rates(model, history, candidates).argmax())]

    def _rates(self, model: GaussianProcess, history: "History", candidates: Sequence[Point]) -> np.ndarray:
        """Return what each candidate promises per epoch, (m,)."""
        front, reference = self._expected_front(model, history.trained)
        full, short = (self._inputs(candidates, [is_short] * len(candidates)) for is_short in (False, True))
        means, deviations = model.predict(full)
        moves = model.foretell(full, short) if self._first_share else np.zeros(len(candidates))
        return rate_of_gain(front, reference, means, deviations, moves, _costs(candidates), self._first_share)

    def _expected_front(self, model: GaussianProcess, trained: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
        """Return the front of expected errors, as shares of that of guessing, and costs (n, 2), and the reference point
        of the hypervolume (2,)."""
        least, most = self._domain.costs
        reference = np.array([1.0, most + BEYOND * (most - least)])
        if not trained:
            return np.empty((0, 2)), reference
        means = model.predict(self._inputs(trained, [False] * len(trained)))[0]
        losses = np.stack([10**means, _costs(trained)], axis=1)
        return losses[_front(losses)], reference

    def _model(self, history: "History", fit: bool = True) -> GaussianProcess:
        """Return the process of log10 errors, by the belief of most evidence; the kernels are fitted anew if
        observations have grown enough."""
        used = self._observations_to_use(history, fit)
        pending = history.pending
        points = [*(history.points[i] for i in used), *pending]
        inputs = self._inputs(points, [*(history.short[i] for i in used), *([False] * len(pending))])
        errors = history.errors[np.array(used, dtype=int)]
        if fit and len(history.points) >= GROWTH * self._fitted_to:
            chosen = np.array(self._generator.sample(range(len(used)), min(len(used), MOST_TO_FIT)), dtype=int)
            for index, (weights, kernel) in enumerate(zip(self._beliefs, self._kernels, strict=True)):
                residuals = errors[chosen] - inputs[chosen].trend @ weights.mean
                self._kernels[index] = fit_kernel(inputs[chosen], residuals, weights, kernel)
            self._fitted_to = len(history.points)
        expected = Kernel.expected(inputs.features.shape[1])
        processes = [
            GaussianProcess(kernel or expected, weights, inputs, errors)
            for weights, kernel in zip(self._beliefs, self._kernels, strict=True)
        ]
        return max(processes, key=lambda process: process.evidence)

    def _inputs(self, points: Sequence[Point], short: Sequence[bool]) -> Inputs:
        """Return trainings of points as the process takes them."""
        domain = self._domain
        features = np.array([point.features for point in points]).reshape(len(points), domain.dimensions)
        sizes = _costs(points) - sum(domain.costs) / 2
        structures = np.array([point.structure @ self._prior.structure for point in points])
        return Inputs(features, trend_of(sizes, structures, short), np.array(short, dtype=bool))

    def _observations_to_use(self, history: "History", fit: bool) -> list[int]:
        """Return which observations the model is made from: so many that proposals stay fast. Without `fit` the
        sampler's random numbers stay as they are."""
        every = list(range(len(history.points)))
        if len(every) <= MOST_OBSERVED:
            return every
        losses = np.stack([history.errors, _costs(history.points)], axis=1)
        losses[history.short] += 1.0  # no part of the front
        front = _front(losses).tolist()[:MOST_OBSERVED]
        others = sorted(set(every) - set(front))
        generator = self._generator if fit else random.Random(len(every))
        return front + generator.sample(others, MOST_OBSERVED - len(front))


class History:
    """The trials of a study before one of them, whose own first cycle counts as well."""

    def __init__(self, domain: Domain, study: Study, trial: FrozenTrial) -> None:
        self.points: list[Point] = []  # observed; those of which there are a short and a full training twice
        self.pending: list[Point] = []  # running
        self.known: set[Architecture] = set()  # networks of all trials
        self.trained: list[Point] = []  # observed in full, or running
        self.committed: list[Point] = []  # of these, the ones that are not in their first cycle
        accuracies: list[float] = []
        short: list[bool] = []
        for other in study.get_trials(deepcopy=False):
            point = domain.read(other.params)
            if point is None:
                continue
            attributes, is_own = other.user_attrs, other.number == trial.number
            after_first = attributes.get(SHORT)
            if after_first is not None:
                self.points.append(point)
                accuracies.append(after_first)
                short.append(True)
            if is_own:
                continue
            self.known.add(point.architecture)
            accuracy = other.values[0] if other.state is TrialState.COMPLETE else attributes.get(ESTIMATE)
            if accuracy is not None:
                self.points.append(point)
                accuracies.append(accuracy)
                short.append(False)
            elif other.state is TrialState.RUNNING:
                self.pending.append(point)
            else:
                continue
            self.trained.append(point)
            if other.state is not TrialState.RUNNING or after_first is not None:
                self.committed.append(point)
        self.short = np.array(short, dtype=bool)
        errors = np.maximum(1 - np.array(accuracies, dtype=float), domain.least_error)
        self.errors = np.log10(errors / domain.chance)  # as shares of that of guessing

    def unknown(self, points: Sequence[Point]) -> list[Point]:
        """Return the points whose networks are not among the trials, each network once."""
        return [p for network, p in {p.architecture: p for p in points}.items() if network not in self.known]


def _front(losses: np.ndarray) -> np.ndarray:
    """Return the indices of the rows (n, 2) that no other row beats, from the least first loss on."""
    front = np.flatnonzero(moocore.is_nondominated(losses)) if len(losses) else np.empty(0, dtype=int)
    return front[np.argsort(losses[front, 0])]


def _costs(points: Sequence[Point]) -> np.ndarray:
    return np.array([point.cost for point in points])
