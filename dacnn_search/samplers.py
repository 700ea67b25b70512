"""Optuna samplers by name, for the objectives (maximise accuracy, minimise parameters)."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler

from dacnn_search.choices import Options

__all__ = ["SAMPLERS", "distribution_of", "make_sampler", "quiet_optuna"]


def _tpe(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "auto": _tpe,
    "tpe": _tpe,
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
    "nsga3": lambda seed: optuna.samplers.NSGAIIISampler(seed=seed),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True),
}


def make_sampler(name: str, seed: int) -> BaseSampler:
    """A fresh sampler. `auto` is TPE, multivariate and grouped: parts that are asked together are modelled together,
    and running trials count as bad ones, so that parallel workers do not flock."""
    with quiet_optuna():
        return SAMPLERS[name](seed)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing studies and from calling features experimental that we chose knowingly."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def distribution_of(options: Options) -> BaseDistribution:
    """The Optuna distribution that `SearchSpace.suggest` uses for a choice."""
    if not options.ordered:
        return CategoricalDistribution(options.values)
    low: Any = options.values[0]
    high, step = options.values[-1], options.values[1] - low
    return IntDistribution(low, high, step=step) if isinstance(low, int) else FloatDistribution(low, high, step=step)
