"""`Domain`: the networks of a search space as points that a model can work with: drawn, mutated and encoded."""

import functools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from dacnn_search.common.errors import SpaceError
from dacnn_search.network.architecture import Architecture, Sharing
from dacnn_search.search.sampler.prior import structure_of
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import Free, regulator_rank

CHANGES = (1, 1, 1, 2, 2, 3)  # a mutation changes as many choices as one of these says
NEAR = 0.5  # probability that a changed number moves to a neighbouring value instead of any
SCALING_DRAWS = 256  # random networks that the centre and spread of the features are taken from
CACHED_POINTS = 10_000


@dataclass(frozen=True)
class Point:
    """One network of the space, with the choices that lead to it. Two points of one architecture are duplicates."""

    choices: dict[str, Any]
    architecture: Architecture
    features: np.ndarray  # (d,) float64, of about zero mean and unit spread
    structure: np.ndarray  # (f,) float64, what a prior knows something of, less what is usual at this size in the space
    cost: float  # log10 of the size, by the objective of the search


class Domain:
    """The networks of a search space that meet its constraints.

    A network is encoded as itself, not as the choices that lead to it: all descriptions of it have the same features.
    """

    def __init__(self, space: SearchSpace, objective: str = "parameters") -> None:
        choices = space.tree.options.items()
        self.distributions = {name: distribution_of(options) for name, options in choices if len(options.values) > 1}
        self.chance = 1 - 1 / space.num_classes  # the error of guessing
        self.least_error = 0.5 / max(space.summary.validation_size, 1)  # validation can't tell smaller errors apart
        self.costs = tuple(map(math.log10, space.extremes(objective)))  # log10 of the least and the largest size
        self._space = space
        self._objective = objective
        self._most_sections = max(space.tree.options["sections"].values)
        self._cached_point = functools.lru_cache(CACHED_POINTS)(self._make_point)
        generator = random.Random(0)
        networks = [space.draw(generator)[0] for _ in range(SCALING_DRAWS)]
        sizes = np.array([self._size(network) for network in networks])
        structures = np.array([structure_of(network, space.cost(network)) for network in networks])
        self._usual = np.polynomial.polynomial.polyfit(sizes, structures, 1 if np.ptp(sizes) else 0)  # (2, f) or (1, f)
        sample = np.array([self._encode(network) for network in networks])
        spread = sample.std(axis=0)
        self._varying = spread > 1e-9
        self._centre, self._spread = sample.mean(axis=0)[self._varying], spread[self._varying]
        self.dimensions = int(self._varying.sum())  # d

    def read(self, choices: Mapping[str, Any]) -> Point | None:
        """Return the point of these choices, or None if they are incomplete or break a constraint."""
        return self._cached_point(tuple(choices.items()))

    def draw(self, generator: random.Random) -> Point | None:
        """Return a random point."""
        return self.read(self._space.draw(generator)[1])

    def mutate(self, point: Point, generator: random.Random) -> Point | None:
        """Return a point with one to three choices changed, or None if it breaks a constraint. Choices that apply only
        after the change are drawn at random."""
        names = list(point.choices)
        changed = generator.sample(names, min(generator.choice(CHANGES), len(names)))
        choices: dict[str, Any] = {}

        def choose(name: str, options: Free[Any]) -> Any:
            if name not in point.choices:
                choices[name] = _draw_value(options, generator)
            elif name in changed:
                choices[name] = _change_value(options, point.choices[name], generator)
            else:
                choices[name] = point.choices[name]
            return choices[name]

        self._space.tree.build(choose)
        return self.read(choices)

    def _make_point(self, items: tuple[tuple[str, Any], ...]) -> Point | None:
        choices = dict(items)
        try:
            architecture, asked = self._space.replay(choices)
        except SpaceError:
            return None
        if not self._space.meets_constraints(architecture):
            return None
        features = (self._encode(architecture)[self._varying] - self._centre) / self._spread
        size = self._size(architecture)
        usual = np.polynomial.polynomial.polyval(size, self._usual)
        structure = structure_of(architecture, self._space.cost(architecture)) - usual
        return Point({name: choices[name] for name in asked}, architecture, features, structure, size)

    def _size(self, architecture: Architecture) -> float:
        return math.log10(getattr(self._space.cost(architecture), self._objective))

    def _encode(self, architecture: Architecture) -> np.ndarray:
        """Return section count, widths, sharing, depths and regulators (0 for sections that are not there), anchors and
        their mixing, shortcuts and history (0 without), parameters, MACs, batch norm and convolutions, on scales on
        which equal steps matter about equally."""
        sections, missing = architecture.sections, self._most_sections - len(architecture.sections)
        cost = self._space.cost(architecture)
        first, last = math.log2(sections[0].width), math.log2(sections[-1].width)
        scopes = [float(architecture.sharing == scope) for scope in get_args(Sharing)]
        depths = [math.sqrt(s.depth) for s in sections] + [0.0] * missing
        regulators = [float(regulator_rank(s.regulators)) for s in sections] + [0.0] * missing
        around = [float(architecture.decided_shortcuts == shortcuts) for shortcuts in ("block", "history")]
        history = around[1] * math.log2(architecture.history)
        mixed = float(architecture.mixing == "learned")
        rest = [math.log2(architecture.anchors), mixed, math.sqrt(architecture.depth), *around, history]
        costs = [math.log10(cost.parameters), math.log10(cost.macs)]
        layers = [float(architecture.batch_norm), float(architecture.separable)]
        return np.array([len(sections), first, last, *scopes, *depths, *regulators, *rest, *costs, *layers])


def distribution_of(options: Free[Any]) -> BaseDistribution:
    """Return the Optuna distribution that `SearchSpace.suggest` uses for a choice."""
    if not options.ordered:
        return CategoricalDistribution(options.values)
    low, second, *_ = options.values
    return IntDistribution(low, options.values[-1], step=second - low)


def _draw_value(options: Free[Any], generator: random.Random) -> Any:
    if not options.ordered:
        return generator.choice(options.values)
    return options.values[round(generator.random() * (len(options.values) - 1))]


def _change_value(options: Free[Any], value: Any, generator: random.Random) -> Any:
    """Return another value of a list; of a range a neighbour or any value."""
    if not options.ordered:
        return generator.choice([other for other in options.values if other != value])
    if generator.random() >= NEAR:
        return _draw_value(options, generator)
    place, step = options.values.index(value), generator.choice((-1, 1))
    moved = place + step
    return options.values[moved if 0 <= moved < len(options.values) else place - step]
