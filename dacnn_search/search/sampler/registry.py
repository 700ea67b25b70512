"""Optuna samplers by name, for the objectives (maximise accuracy, minimise parameters)."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import optuna
from optuna.samplers import BaseSampler

from dacnn_search.search.sampler.surrogate import SurrogateSampler
from dacnn_search.space.search_space import SearchSpace

__all__ = ["SAMPLERS", "SamplerFactory", "quiet_optuna"]

SamplerFactory = Callable[[int, SearchSpace], BaseSampler]  # called with a seed and the space


def _tpe(seed: int, space: SearchSpace) -> BaseSampler:
    """Return a TPE that models choices together that are asked together. Running trials count as bad ones, so that
    parallel workers do not flock."""
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


SAMPLERS: dict[str, SamplerFactory] = {
    "auto": SurrogateSampler,
    "tpe": _tpe,
    "nsga2": lambda seed, _: optuna.samplers.NSGAIISampler(seed=seed),
    "nsga3": lambda seed, _: optuna.samplers.NSGAIIISampler(seed=seed),
    "gp": lambda seed, _: optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False),
    "random": lambda seed, _: optuna.samplers.RandomSampler(seed=seed),
    "surrogate": SurrogateSampler,
    "qmc": lambda seed, _: optuna.samplers.QMCSampler(seed=seed, scramble=True),
}


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's announcements of studies and its warnings that a feature is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
