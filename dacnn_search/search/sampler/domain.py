"""What a sampler that models a whole search space knows of it: how to draw points, change them and encode them.

A point is one complete set of parameters, of which some may be asked only where others have certain values. There are
two domains: `SpaceDomain` of one of our search spaces, where parameter counts, duplicates and constraints are known
beforehand, and `LearntDomain` of any other Optuna study, which is learnt from its trials.
"""

import functools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.tree import DecisionTreeClassifier

from dacnn_search.common.errors import SpaceError
from dacnn_search.network.architecture import Architecture
from dacnn_search.space.choices import Options, regulator_rank
from dacnn_search.space.search_space import SearchSpace

__all__ = ["Domain", "LearntDomain", "Point", "SpaceDomain", "distribution_of"]

Choose = Callable[[str, BaseDistribution], Any]

CHANGES = (1, 1, 1, 2, 2, 3)  # how many parameters a mutation changes
NEAR = 0.5  # how often a changed number moves to a near value instead of any
SCALING_DRAWS = 256  # networks that tell how far features spread
READINGS = 10_000  # points that are kept at hand
UNIT_SPREAD = 3.0  # numbers drawn evenly from [0, 1] spread by about one third
INACTIVE = -1.0  # stands for a parameter that is not asked, in the trees that tell which are


@dataclass(frozen=True)
class Point:
    """One complete set of parameters.

    key: its identity; points of one key are duplicates. features: (d,) float64, of about unit spread.
    cost: the exact value of the domain's exact objective, to be minimised; None where there is none.
    """

    params: dict[str, Any]
    key: Hashable
    features: np.ndarray
    cost: float | None = None


class Domain(ABC):
    """The points of a search space. exact: number of the objective that is known beforehand, if there is one;
    logarithmic: of the one that is modelled as its log10, while what counts is the value itself."""

    exact: int | None = None
    logarithmic: int | None = None

    @property
    @abstractmethod
    def distributions(self) -> dict[str, BaseDistribution]:
        """The parameters that the points read so far have; more are added as they are read."""

    @abstractmethod
    def read(self, params: Mapping[str, Any]) -> Point | None:
        """The point of these parameters; None if they are incomplete or break a constraint."""

    @abstractmethod
    def draw(self, generator: random.Random) -> Point | None:
        """A random point."""

    @abstractmethod
    def build(self, choose: Choose) -> dict[str, Any]:
        """The parameters that the answers of `choose` lead to, each asked where it applies."""

    def scale(self, objective: int, losses: np.ndarray) -> np.ndarray:
        """Values (n,) of an objective, to be minimised, in the scale to model them in: bad outliers are drawn in."""
        low, high = np.quantile(losses, (0.25, 0.75))
        return np.minimum(losses, high + 3 * (high - low)) if high > low else losses

    def mutate(self, point: Point, generator: random.Random) -> Point | None:
        """A point that differs in one to three parameters, and in those that these bring or take away."""
        names = list(point.params)
        changed = generator.sample(names, min(generator.choice(CHANGES), len(names)))

        def choose(name: str, distribution: BaseDistribution) -> Any:
            value = point.params.get(name)
            if name not in point.params or not _contains(distribution, value):
                return _draw_value(distribution, generator)
            return _move_value(distribution, value, generator) if name in changed else value

        return self.read(self.build(choose))


class SpaceDomain(Domain):
    """The networks of one of our search spaces; the objectives are accuracy (maximised) and parameters (minimised).

    A network is encoded as itself, not as the choices that lead to it, so that all descriptions of it are one point.
    The cost is log10 of its parameters; accuracy is modelled as log10 of the error.
    """

    exact, logarithmic = 1, 0

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._most_sections = max(len(frame.widths) for frame, _ in space.tree.frames)
        self._least_error = 0.5 / max(space.summary.validation_size, 1)
        self._distributions: dict[str, BaseDistribution] = {}
        self._read = functools.lru_cache(READINGS)(self._read_items)
        generator = random.Random(0)
        networks = [space.draw(generator)[0] for _ in range(SCALING_DRAWS)]
        sample = np.array([self._encode(network) for network in networks])
        spread = sample.std(axis=0)
        self._varying = spread > 1e-9
        self._centre, self._spread = sample.mean(axis=0)[self._varying], spread[self._varying]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        return self._distributions

    def read(self, params: Mapping[str, Any]) -> Point | None:
        return self._read(tuple(params.items()))

    def draw(self, generator: random.Random) -> Point | None:
        return self.read(self._space.draw(generator)[1])

    def build(self, choose: Choose) -> dict[str, Any]:
        params: dict[str, Any] = {}

        def answer(name: str, options: Options) -> Any:
            params[name] = choose(name, distribution_of(options))
            return params[name]

        self._space.tree.build(answer)
        return params

    def scale(self, objective: int, losses: np.ndarray) -> np.ndarray:
        """Accuracies, negated, become log10 errors; parameters log10 parameters."""
        return np.log10(np.maximum(1 + losses, self._least_error)) if objective == 0 else np.log10(losses)

    def _read_items(self, items: tuple[tuple[str, Any], ...]) -> Point | None:
        params = dict(items)
        try:
            architecture, asked = self._space.replay(params)
        except SpaceError:
            return None
        if not self._space.meets_constraints(architecture):
            return None
        for name in asked.keys() - self._distributions.keys():
            self._distributions[name] = distribution_of(asked[name])
        features = (self._encode(architecture)[self._varying] - self._centre) / self._spread
        cost = math.log10(self._space.cost(architecture).parameters)
        return Point({name: params[name] for name in asked}, architecture, features, cost)

    def _encode(self, architecture: Architecture) -> np.ndarray:
        """Section count, widths, sharing, anchors, depths and regulators (0 for sections that are not there),
        parameters and MACs, on scales on which equal steps matter about equally."""
        sections, missing = architecture.sections, self._most_sections - len(architecture.sections)
        cost = self._space.cost(architecture)
        first, last = math.log2(sections[0].width), math.log2(sections[-1].width)
        scopes = [float(architecture.sharing == scope) for scope in ("network", "section", "none")]
        depths = [math.sqrt(s.depth) for s in sections] + [0.0] * missing
        regulators = [float(regulator_rank(s.regulators)) for s in sections] + [0.0] * missing
        rest = [math.log2(architecture.anchors), math.sqrt(architecture.depth), float(architecture.is_residual)]
        costs = [math.log10(cost.parameters), math.log10(cost.macs), float(architecture.batch_norm)]
        return np.array([len(sections), first, last, *scopes, *depths, *regulators, *rest, *costs])


class LearntDomain(Domain):
    """The points of any study, learnt from the parameters of its trials.

    A parameter that not all trials have is conditional: a decision tree on the parameters asked before it tells
    whether it applies. The joint encoding has a number in [0, 1] for each number, one column per choice for
    categories (one for all if they are numbers), and for conditional parameters one that tells whether they apply.
    """

    def __init__(self, trials: Sequence[tuple[Mapping[str, Any], Mapping[str, BaseDistribution]]]) -> None:
        places: dict[str, list[int]] = {}
        self._distributions: dict[str, BaseDistribution] = {}
        for params, distributions in trials:
            for place, name in enumerate(params):
                places.setdefault(name, []).append(place)
            self._distributions |= distributions
        self._names = sorted(places, key=lambda name: float(np.mean(places[name])))
        rows = np.array([self._row(params) for params, _ in trials]).reshape(len(trials), len(self._names))
        self._applies = {
            name: _Tree(rows[:, :column], rows[:, column] != INACTIVE)
            for column, name in enumerate(self._names)
            if len(places[name]) < len(trials)
        }

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        return self._distributions

    def read(self, params: Mapping[str, Any]) -> Point | None:
        given = {name: params[name] for name in self._names if name in params}
        if not all(_contains(self._distributions[name], value) for name, value in given.items()):
            return None
        if any(name not in given for name in self._names if name not in self._applies):
            return None
        features: list[float] = []
        for name in self._names:
            features += _encode_value(self._distributions[name], given.get(name), name in given)
            features += [float(name in given)] if name in self._applies else []
        return Point(given, tuple(given.items()), UNIT_SPREAD * np.array(features))

    def draw(self, generator: random.Random) -> Point | None:
        return self.read(self.build(lambda _, distribution: _draw_value(distribution, generator)))

    def build(self, choose: Choose) -> dict[str, Any]:
        params: dict[str, Any] = {}
        row: list[float] = []
        for name in self._names:
            if name not in self._applies or self._applies[name].tell(row):
                params[name] = choose(name, self._distributions[name])
                row.append(self._distributions[name].to_internal_repr(params[name]) + 0.0)
            else:
                row.append(INACTIVE)
        return params

    def _row(self, params: Mapping[str, Any]) -> list[float]:
        return [
            self._distributions[name].to_internal_repr(params[name]) if name in params else INACTIVE
            for name in self._names
        ]


class _Tree:
    """A decision tree for one row at a time; scikit-learn's own `predict` takes 50 times as long for a single row."""

    def __init__(self, rows: np.ndarray, labels: np.ndarray) -> None:
        if not rows.shape[1]:
            rows = np.zeros((len(rows), 1))
        tree = DecisionTreeClassifier(random_state=0).fit(rows, labels).tree_
        self._nodes = list(zip(tree.feature, tree.threshold, tree.children_left, tree.children_right, strict=True))
        self._answers = [bool(value[0].argmax()) for value in tree.value]

    def tell(self, row: Sequence[float]) -> bool:
        node = 0
        while True:
            feature, threshold, left, right = self._nodes[node]
            if left < 0:
                return self._answers[node]
            node = left if row[feature] <= threshold else right


def distribution_of(options: Options) -> BaseDistribution:
    """The Optuna distribution that `SearchSpace.suggest` uses for a choice."""
    if not options.ordered:
        return CategoricalDistribution(options.values)
    low, second, *_ = options.values
    return IntDistribution(low, options.values[-1], step=second - low)


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):  # no choice of the distribution
        return False


def _from_unit(distribution: BaseDistribution, unit: float) -> Any:
    """The number that lies at `unit` in [0, 1] of a distribution's range."""
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        value = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    else:
        value = low + unit * (high - low)
    if step is not None:
        value = low + step * round((value - low) / step)
    value = min(max(value, low), high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def _to_unit(distribution: BaseDistribution, value: float) -> float:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = distribution.low, distribution.high
    if low == high:
        return 0.5
    if distribution.log:
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (value - low) / (high - low)


def _draw_value(distribution: BaseDistribution, generator: random.Random) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return generator.choice(distribution.choices)
    return _from_unit(distribution, generator.random())


def _move_value(distribution: BaseDistribution, value: Any, generator: random.Random) -> Any:
    """Another value where there is one: of a number, half of the time, one nearby."""
    if isinstance(distribution, CategoricalDistribution):
        others = [choice for choice in distribution.choices if choice != value]
        return generator.choice(others) if others else value
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if generator.random() >= NEAR:
        return _draw_value(distribution, generator)
    if distribution.step is not None and not distribution.log:
        moved = value + generator.choice((-1, 1)) * distribution.step
        return moved if distribution.low <= moved <= distribution.high else 2 * value - moved
    return _from_unit(distribution, min(max(generator.gauss(_to_unit(distribution, value), 0.1), 0.0), 1.0))


def _encode_value(distribution: BaseDistribution, value: Any, active: bool) -> list[float]:
    if not isinstance(distribution, CategoricalDistribution):
        return [_to_unit(distribution, value) if active else 0.5]
    choices = distribution.choices
    if all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in choices):
        ranks = sorted(choices)  # type: ignore[type-var]
        return [ranks.index(value) / max(len(ranks) - 1, 1) if active else 0.5]
    return [float(active and choice == value) for choice in choices]
