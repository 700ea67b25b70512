"""The sampler, alone in plain Optuna studies and inside a search of ours."""

import itertools
import math
import random

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from dacnn_search.search.sampler import surrogate
from dacnn_search.search.sampler.domain import LearntDomain, SpaceDomain
from dacnn_search.search.sampler.gaussian_process import GaussianProcess, fit_kernel
from dacnn_search.search.sampler.proposals import Proposals
from dacnn_search.search.sampler.surrogate import SurrogateSampler, expected_improvement
from dacnn_search.space.search_space import SearchSpace

SPACE = """
data: {name: digits}
architecture:
  sections: {choice: [1, 2, 3]}
  depth: {range: {low: 1, high: 4}}
  width: {choice: [4, 8, 16]}
  growth: {choice: [1, 2]}
  sharing: {choice: [network, section, none]}
  regulators: {choice: [none, block]}
constraints:
  parameters: {max: 20k}
"""
TWELVE = """
data: {name: digits}
architecture: {sections: 1, depth: {range: {low: 1, high: 4}}, width: {choice: [4, 8, 16]}, sharing: section}
"""


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def mixed(trial):
    """Two objectives over numbers, categories and parameters that only one of them has."""
    kind = trial.suggest_categorical("kind", ["line", "curve"])
    x = trial.suggest_float("x", 0, 1)
    if kind == "curve":
        power = trial.suggest_int("power", 1, 4)
        loss = (1 - x) ** power + 0.1 * abs(power - 3)
    else:
        loss = 1.2 - x * trial.suggest_categorical("slope", [0.5, 1.0])
    return loss, x * (2 if kind == "curve" else 1)


def improvement_by_sampling(front, reference, means, deviations, draws=200_000):
    """The same by Monte Carlo and by cutting the plane at the coordinates of the front."""
    generator = np.random.default_rng(0)
    samples = means + deviations * generator.standard_normal((draws, 2))
    total = np.zeros(draws)
    firsts = np.concatenate([[-50.0], np.sort(front[:, 0]), reference[:1]])
    for left, right in itertools.pairwise(firsts):
        below = [h for b, h in front if b <= left]
        height = min([*below, reference[1]])
        width = np.clip(right - np.maximum(samples[:, 0], left), 0, None)
        total += width * np.clip(height - samples[:, 1], 0, None)
    return total.mean(), total.std() / math.sqrt(draws)


@pytest.mark.parametrize("deviations", [(0.3, 0.5), (0.4, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize("means", [(0.5, 0.5), (2.5, -0.5), (1.2, 1.4), (2.9, 2.9), (-1.0, -1.0)])
def test_expected_improvement_is_that_of_samples(means, deviations):
    front = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    reference = np.array([3.0, 3.0])
    value = expected_improvement(front, reference, np.array([means]), np.array([deviations]))[0]
    sampled, error = improvement_by_sampling(front, reference, np.array(means), np.array(deviations))
    assert value == pytest.approx(sampled, abs=5 * error + 1e-6)


def test_expected_improvement_of_certain_points_is_the_area_they_add():
    front, reference = np.array([[0.0, 2.0], [2.0, 0.0]]), np.array([3.0, 3.0])
    points = np.array([[1.0, 1.0], [2.0, 2.0], [-1.0, 2.5], [0.0, 2.0]])
    assert expected_improvement(front, reference, points, np.zeros((4, 2))) == pytest.approx(
        [1.0, 0.0, 0.5, 0.0], abs=1e-9
    )


def test_expected_improvement_of_an_objective_known_by_its_logarithm():
    front, reference = np.array([[0.1, 2.0], [0.4, 1.0]]), np.array([0.9, 3.0])
    means, deviations = (
        np.array([[-0.5, 1.5], [-1.2, 2.5], [-0.1, 0.5]]),
        np.array([[0.2, 0.0], [0.3, 0.0], [0.1, 0.0]]),
    )
    values = expected_improvement(front, reference, means, deviations, (True, False))
    draws = np.random.default_rng(0).standard_normal((200_000, 1))
    for value, mean, deviation in zip(values, means, deviations, strict=True):
        sampled = 10 ** (mean[0] + deviation[0] * draws)
        points = np.concatenate([sampled, np.full_like(sampled, mean[1])], axis=1)
        each = expected_improvement(front, reference, points, np.zeros_like(points))
        assert value == pytest.approx(each.mean(), rel=0.02, abs=1e-5)


def test_expected_improvement_of_one_objective():
    value = expected_improvement(np.array([[1.0]]), np.array([9.0]), np.array([[1.0], [0.0]]), np.array([[1.0], [0.0]]))
    assert value == pytest.approx([1 / math.sqrt(2 * math.pi), 1.0])


def test_a_plain_study_with_conditional_parameters_comes_closer_than_random_search():
    volumes = {}
    for name, make in (("ours", SurrogateSampler), ("random", optuna.samplers.RandomSampler)):
        volumes[name] = []
        for seed in range(3):
            study = optuna.create_study(directions=["minimize", "minimize"], sampler=make(seed))
            study.optimize(mixed, n_trials=40)
            front = np.array([trial.values for trial in study.best_trials])
            origin, reference = np.array([[2.0, 2.0]]), np.array([2.0, 2.0])
            gains = [expected_improvement(origin, reference, point[None], np.zeros((1, 2)))[0] for point in front]
            assert min(gains) > 0
            order = front[np.argsort(front[:, 0])]
            heights = np.concatenate([[2.0], order[:-1, 1]])
            volumes[name].append(float(((2.0 - order[:, 0]) * (heights - order[:, 1])).sum()))
    assert np.median(volumes["ours"]) > np.median(volumes["random"])


def test_a_single_noisy_objective_is_minimised():
    generator = np.random.default_rng(0)

    def noisy(trial):
        x, y = trial.suggest_float("x", -2, 2), trial.suggest_float("y", 0.01, 10, log=True)
        return (x - 1) ** 2 + math.log10(y) ** 2 + 0.1 * generator.standard_normal()

    study = optuna.create_study(sampler=SurrogateSampler(0))
    study.optimize(noisy, n_trials=40)
    late = [(t.params["x"] - 1) ** 2 + math.log10(t.params["y"]) ** 2 for t in study.trials[25:]]
    assert np.median(late) < 0.2


def test_three_objectives_are_refused():
    study = optuna.create_study(directions=["minimize"] * 3, sampler=SurrogateSampler(0))
    with pytest.raises(ValueError, match="1 or 2 objectives, but the study has 3"):
        study.ask().suggest_float("x", 0, 1)


def test_a_discrete_study_is_exhausted_without_a_duplicate():
    study = optuna.create_study(sampler=SurrogateSampler(0))

    def objective(trial):
        return trial.suggest_int("a", 1, 4) * trial.suggest_categorical("b", [1, 2, 3])

    study.optimize(objective, n_trials=12)
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 12


def test_few_of_many_observations_suffice(monkeypatch):
    monkeypatch.setattr(surrogate, "MOST_OBSERVED", 16)
    study = optuna.create_study(sampler=SurrogateSampler(0))
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.3) ** 2, n_trials=60)
    assert study.best_value < 1e-4
    assert np.median([trial.value for trial in study.trials[40:]]) < 0.01


def test_a_pending_trial_counts_with_the_value_expected_of_it():
    """So that there is nothing to be gained beside it, as long as it runs."""
    features = np.linspace(0, 1, 6)[:, None]
    values = np.sin(5 * features[:, 0])
    pending, far = np.array([[0.5]]), np.array([[1.5]])
    kernel = fit_kernel(features, (values - values.mean()) / values.std())
    before = GaussianProcess(kernel, features, values)
    after = GaussianProcess(kernel, np.concatenate([features, far]), values)
    assert after.predict(far)[0] == pytest.approx(before.predict(far)[0], rel=0.05)
    assert after.predict(far)[1] < 0.5 * before.predict(far)[1]
    assert after.predict(pending)[1] == pytest.approx(before.predict(pending)[1], rel=0.1)


def test_running_trials_are_pending_for_the_models(monkeypatch):
    seen = []

    class Watched(GaussianProcess):
        def __init__(self, kernel, features, values):
            seen.append(len(features) - len(values))
            super().__init__(kernel, features, values)

    monkeypatch.setattr(surrogate, "GaussianProcess", Watched)
    study = optuna.create_study(sampler=SurrogateSampler(0))
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.5) ** 2, n_trials=12)
    seen.clear()
    for _ in range(3):
        study.ask().suggest_float("x", 0, 1)
    assert seen == [0, 1, 2]


def test_a_space_is_searched_without_duplicates_and_within_its_constraints(space_file):
    space = SearchSpace.from_yaml(space_file(SPACE))
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=SurrogateSampler(0, space))
    seen = set()
    for _ in range(3):
        batch = [study.ask() for _ in range(8)]
        networks = [space.suggest(trial) for trial in batch]
        assert all(space.meets_constraints(network) for network in networks)
        seen |= {network.fingerprint for network in networks}
        for trial, network in zip(batch, networks, strict=True):
            parameters = space.cost(network).parameters
            study.tell(trial, (1 - parameters**-0.5, parameters))
    assert len(seen) == 24


def test_first_trials_spread_over_the_parameter_range(space_file):
    space = SearchSpace.from_yaml(space_file(SPACE))
    proposals = Proposals(space, "surrogate", 0)
    logs = sorted(math.log10(proposals.propose().cost.parameters) for _ in range(10))
    least, most = (math.log10(cost.parameters) for cost in space.extremes())
    assert max(np.diff([least, *logs, most])) < 0.3 * (most - least)


def test_the_first_trials_are_typical_networks_of_their_size(space_file):
    space = SearchSpace.from_yaml(space_file(SPACE))
    domain, generator = SpaceDomain(space), random.Random(1)
    drawn = [np.linalg.norm(domain.draw(generator).features) for _ in range(200)]
    proposals = Proposals(space, "surrogate", 0)
    first = [np.linalg.norm(domain.read(proposals.propose().choices).features) for _ in range(5)]
    assert np.mean(first) < np.quantile(drawn, 0.3)


def test_a_space_of_twelve_networks_ends_by_itself(space_file):
    proposals = Proposals(SearchSpace.from_yaml(space_file(TWELVE)), "surrogate", 0)
    seen = []
    while (proposal := proposals.propose()) is not None:
        seen.append(proposal.architecture.fingerprint)
        proposals.tell(proposal, "COMPLETE", 0.9)
    assert len(seen) == len(set(seen)) == 12


def test_many_workers_get_distinct_networks_before_any_trial_ends(space_file):
    proposals = Proposals(SearchSpace.from_yaml(space_file(SPACE)), "surrogate", 0)
    running = [proposals.propose() for _ in range(32)]
    assert len({proposal.architecture.fingerprint for proposal in running}) == 32
    assert max(p.cost.parameters for p in running[:5]) > 5 * min(p.cost.parameters for p in running[:5])
    for proposal in running[:4]:
        proposals.tell(proposal, "COMPLETE", 1 - proposal.cost.parameters**-0.4)
        assert proposals.propose().duplicates == 0


def test_failed_and_stopped_trials_are_not_proposed_again(space_file):
    proposals = Proposals(SearchSpace.from_yaml(space_file(SPACE)), "surrogate", 0)
    seen = []
    for number in range(30):
        proposal = proposals.propose()
        seen.append(proposal.architecture.fingerprint)
        assert proposal.duplicates == 0
        if number % 3 == 0:
            proposals.tell(proposal, "FAIL")
        elif number % 3 == 1:
            proposals.tell(proposal, "PRUNED", estimate=0.5)
        else:
            proposals.tell(proposal, "COMPLETE", 1 - proposal.cost.parameters**-0.4)
    assert len(set(seen)) == 30


def test_the_same_history_gives_the_same_proposals(space_file):
    space = SearchSpace.from_yaml(space_file(SPACE))

    def run():
        proposals = Proposals(space, "surrogate", 7)
        for _ in range(14):
            proposal = proposals.propose()
            proposals.tell(proposal, "COMPLETE", 1 - proposal.cost.parameters**-0.4)
            yield proposal.architecture.fingerprint

    assert list(run()) == list(run())


def test_descriptions_of_one_network_are_one_point(space_file):
    domain = SpaceDomain(SearchSpace.from_yaml(space_file(SPACE)))
    shared = {"sections": 1, "sharing": "section", "width": 8, "depth_1": 1, "regulators_1": "none"}
    assert domain.read(shared).key == domain.read({**shared, "sharing": "none"}).key
    assert domain.read({**shared, "depth_1": 2}).key != domain.read(shared).key


def test_conditional_parameters_are_learnt_from_trials():
    distributions = {
        "kind": CategoricalDistribution(["a", "b"]),
        "x": FloatDistribution(0, 1),
        "n": IntDistribution(1, 3),
    }
    trials = [
        ({"kind": "a", "x": 0.5}, {name: distributions[name] for name in ("kind", "x")}),
        ({"kind": "b", "n": 2}, {name: distributions[name] for name in ("kind", "n")}),
        ({"kind": "a", "x": 0.1}, {name: distributions[name] for name in ("kind", "x")}),
    ]
    domain = LearntDomain(trials)

    def answer(kind):
        return domain.build(lambda name, _: {"kind": kind, "x": 0.3, "n": 1}[name])

    assert answer("a") == {"kind": "a", "x": 0.3}
    assert answer("b") == {"kind": "b", "n": 1}
