"""What an expert would write with BoTorch, as an outside peer: `pip install botorch` first.

A Gaussian process of the error on one-hot choices and log10 parameters, the second objective as the deterministic model
that it is, qLogEHVI over random networks of the space, running trials as pending points (Daulton, Balandat and Bakshy,
"Parallel Bayesian optimization of multiple noisy objectives", 2021; Ament et al., "Unexpected improvements to expected
improvement", 2023). The first trials are random.
"""

import random
import warnings
from typing import Any

import optuna
import torch
from botorch.acquisition.multi_objective.logei import qLogExpectedHypervolumeImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelList, SingleTaskGP
from botorch.models.deterministic import GenericDeterministicModel
from botorch.models.transforms import Standardize
from botorch.optim import optimize_acqf_discrete
from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning
from gpytorch.mlls import ExactMarginalLogLikelihood
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from dacnn_search.search.sampler.domain import Domain, Point
from dacnn_search.space.search_space import SearchSpace

RANDOM_TRIALS, CANDIDATES = 10, 512


class LogEHVI(BaseSampler):
    """Proposes the random network with the largest qLogEHVI."""

    def __init__(self, seed: int, space: SearchSpace) -> None:
        self._domain = Domain(space)
        self._generator = random.Random(seed)
        self._independent = RandomSampler(seed)
        self._reference = torch.tensor([-self._domain.chance, -1.05], dtype=torch.double)
        torch.manual_seed(seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._domain.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        done = [t for t in others if t.state is TrialState.COMPLETE]
        points = {t.number: self._domain.read(t.params) for t in others if t.params}
        known = {point.architecture for point in points.values() if point}
        drawn = (self._domain.draw(self._generator) for _ in range(CANDIDATES))
        free = list({p.architecture: p for p in drawn if p and p.architecture not in known}.values())
        if len(done) < RANDOM_TRIALS or not free:
            return free[0].choices if free else {}
        seen = torch.stack([self._encode(points[t.number]) for t in done])
        errors = torch.tensor([[t.values[0] - 1] for t in done], dtype=torch.double)
        running = [
            self._encode(points[t.number]) for t in others if t.state is TrialState.RUNNING and points.get(t.number)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            process = SingleTaskGP(seen, errors, outcome_transform=Standardize(1))
            fit_gpytorch_mll(ExactMarginalLogLikelihood(process.likelihood, process))
            size = GenericDeterministicModel(lambda x: -x[..., -1:], num_outputs=1)
            values = torch.cat([errors, -seen[:, -1:]], dim=1)
            acquisition = qLogExpectedHypervolumeImprovement(
                ModelList(process, size),
                self._reference,
                FastNondominatedPartitioning(self._reference, values),
                X_pending=torch.stack(running) if running else None,
            )
            choices = torch.stack([self._encode(point) for point in free])
            best, _ = optimize_acqf_discrete(acquisition, 1, choices)
        return free[int((choices == best).all(dim=1).nonzero()[0, 0])].choices

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, name: str, of: BaseDistribution) -> Any:
        return self._independent.sample_independent(study, trial, name, of)

    def _encode(self, point: Point | None) -> torch.Tensor:
        """Return the choices of a network, one-hot or scaled, 0 where they do not apply, and its size in [0, 1]."""
        assert point is not None
        values: list[float] = []
        for name, distribution in self._domain.distributions.items():
            chosen = point.choices.get(name)
            if isinstance(distribution, CategoricalDistribution):
                values += [float(chosen == choice) for choice in distribution.choices]
            else:
                low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
                values.append(0.0 if chosen is None else (chosen - low) / (high - low))
        least, most = self._domain.costs
        return torch.tensor([*values, (point.cost - least) / (most - least)], dtype=torch.double)
