"""Syne Tune's multi-objective methods as an outside peer: `pip install syne-tune statsmodels xgboost` first.

Its searcher is asked through an Optuna sampler and its scheduler through a stopping rule, so that they are given the
same table, the same workers and the same help against duplicates as all others. Parameters are told as log10, since its
non-dominated sorting does not normalise. `MultiObjectiveRegularizedEvolution` has a population of 20 and samples of 5:
with its defaults (100 and 10) the first 100 trials are random. Its third method, expected hypervolume improvement,
can't be asked again for what is turned away: it takes every suggestion for a running trial.
"""

import datetime
import math
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice, finrange, randint
from syne_tune.optimizer.scheduler import SchedulerDecision
from syne_tune.optimizer.schedulers.multiobjective import MultiObjectiveRegularizedEvolution
from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

from dacnn_search.search.sampler.domain import Domain
from dacnn_search.search.stopping import Progress, StoppingRule, Verdict
from dacnn_search.space.search_space import SearchSpace

POPULATION, SAMPLE = 20, 5


class Evolution(BaseSampler):
    """Syne Tune's regularised evolution over all parameters of a space; those not asked are ignored."""

    def __init__(self, seed: int, space: SearchSpace) -> None:
        self._distributions = Domain(space).distributions
        self._searcher = MultiObjectiveRegularizedEvolution(
            {name: _domain(distribution) for name, distribution in self._distributions.items()},
            population_size=POPULATION,
            sample_size=SAMPLE,
            random_seed=seed % 2**31,
        )
        self._independent = RandomSampler(seed)
        self._configs: dict[int, dict[str, Any]] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        config = self._searcher.suggest()
        assert config is not None
        self._configs[trial.number] = config
        return {name: _value(search_space[name], value) for name, value in config.items()}

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, name: str, of: BaseDistribution) -> Any:
        return self._independent.sample_independent(study, trial, name, of)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        config = self._configs.pop(trial.number, None)
        if config is not None and state is TrialState.COMPLETE:
            self._searcher.on_trial_complete(trial.number, config, [1 - values[0], math.log10(values[1])])


class MOAsha(StoppingRule):
    """Syne Tune's MO-ASHA, with its defaults."""

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        self._scheduler = MOASHA({}, ["error", "size"], max_t=epochs)
        self._trials: dict[Any, Trial] = {}

    def judge(self, progress: Progress) -> Verdict:
        if progress.trial not in self._trials:
            trial = Trial(len(self._trials), {}, datetime.datetime.now())
            self._trials[progress.trial] = trial
            self._scheduler.on_trial_add(trial)
        done = len(progress.accuracy)
        result = {
            "training_iteration": done,
            "error": 1 - progress.accuracy[-1],
            "size": math.log10(progress.size),
        }
        decision = self._scheduler.on_trial_result(self._trials[progress.trial], result)
        return Verdict(done == self.epochs or decision == SchedulerDecision.CONTINUE)


def _domain(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return choice([str(value) for value in distribution.choices])
    if isinstance(distribution, IntDistribution) and distribution.step == 1:
        return randint(distribution.low, distribution.high)
    low, high, step = distribution.low, distribution.high, distribution.step
    return finrange(low, high, round((high - low) / step) + 1)


def _value(distribution: BaseDistribution, value: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return next(one for one in distribution.choices if str(one) == value)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)
