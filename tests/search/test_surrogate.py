"""The surrogate sampler: its expected improvement, its model, and what it proposes."""

import itertools
import math
import random

import numpy as np
import optuna
import pytest

from dacnn_search.search.sampler import surrogate
from dacnn_search.search.sampler.acquisition import expected_improvement, rate_of_gain
from dacnn_search.search.sampler.domain import Domain
from dacnn_search.search.sampler.gaussian_process import GaussianProcess
from dacnn_search.search.sampler.prior import Prior
from dacnn_search.search.sampler.proposals import Proposals, SamplerOptions
from dacnn_search.search.sampler.surrogate import SurrogateSampler
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.front import Scale, front_of

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


def improvement_by_sampling(front, reference, mean, deviation, cost, draws=200_000):
    """Return the expected improvement by Monte Carlo and its standard error."""
    errors = 10 ** (mean + deviation * np.random.default_rng(0).standard_normal(draws))
    total = np.zeros(draws)
    firsts = np.concatenate([[0.0], np.sort(front[:, 0]), reference[:1]])
    for left, right in itertools.pairwise(firsts):
        height = min([h for b, h in front if b <= left] + [reference[1]])
        total += np.clip(right - np.maximum(errors, left), 0, None) * max(height - cost, 0)
    return total.mean(), total.std() / math.sqrt(draws)


@pytest.mark.parametrize("deviation", [0.0, 0.1, 0.3])
@pytest.mark.parametrize(("mean", "cost"), [(-0.5, 1.5), (-1.2, 2.5), (-0.1, 0.5), (0.5, 0.5), (-0.5, 2.9), (-2, 0)])
def test_expected_improvement_is_that_of_samples(mean, cost, deviation):
    front, reference = np.array([[0.1, 2.0], [0.4, 1.0]]), np.array([0.9, 3.0])
    values = expected_improvement(front, reference, *(np.array([value]) for value in (mean, deviation, cost)))
    sampled, error = improvement_by_sampling(front, reference, mean, deviation, cost)
    assert values == pytest.approx([sampled], abs=5 * error + 1e-9)


def test_expected_improvement_of_certain_points_is_the_area_they_add():
    front, reference = np.array([[0.1, 2.0], [0.3, 0.0]]), np.array([0.4, 3.0])
    errors, costs = np.array([0.2, 0.3, 0.01, 0.1]), np.array([1.0, 2.0, 2.5, 2.0])
    values = expected_improvement(front, reference, np.log10(errors), np.zeros(4), costs)
    assert values == pytest.approx([0.1, 0.0, 0.045, 0.0], abs=1e-9)


FRONT, REFERENCE = np.array([[0.1, 2.0], [0.4, 1.0]]), np.array([0.9, 3.0])


def test_without_a_first_cycle_or_news_from_it_the_rate_is_the_expected_improvement():
    means, deviations, costs = np.array([-0.5, -1.2, 0.5]), np.array([0.1, 0.3, 0.1]), np.array([1.5, 2.5, 0.5])
    expected = expected_improvement(FRONT, REFERENCE, means, deviations, costs)
    for share in (0.0, 0.25):
        rates = rate_of_gain(FRONT, REFERENCE, means, deviations, np.zeros(3), costs, share)
        assert rates == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("move", [0.1, 0.25, 0.3])
def test_the_rate_is_that_at_which_training_is_worth_its_epochs(move):
    """By Monte Carlo: what the first cycle tells moves the mean, then the rest is trained if it is worth it."""
    mean, deviation, cost, share = -0.5, 0.3, 1.5, 0.25
    rate = rate_of_gain(FRONT, REFERENCE, *(np.array([v]) for v in (mean, deviation, move, cost)), share)[0]
    moved = mean + move * np.random.default_rng(0).standard_normal(20_000)
    left = np.full(len(moved), math.sqrt(max(deviation**2 - move**2, 0)))
    gains = expected_improvement(FRONT, REFERENCE, moved, left, np.full(len(moved), cost))
    worth = np.maximum(gains - rate * (1 - share), 0.0).mean()
    assert worth == pytest.approx(rate * share, rel=0.05)
    assert rate > expected_improvement(FRONT, REFERENCE, *(np.array([v]) for v in (mean, deviation, cost)))[0]


@pytest.fixture
def observations(monkeypatch):
    """Collect how many observed and how many pending points each model is made from."""
    seen = []

    class Watched(GaussianProcess):
        def __init__(self, kernel, weights, inputs, values):
            seen.append((len(values), len(inputs) - len(values)))
            super().__init__(kernel, weights, inputs, values)

    monkeypatch.setattr(surrogate, "GaussianProcess", Watched)
    return seen


def accuracy_of(proposal):
    """Return an accuracy that grows with the parameters, most of all with depth and without regulators."""
    architecture = proposal.architecture
    return 1 - proposal.cost.parameters**-0.3 * (1 + 0.3 * len(architecture.sections) / architecture.depth)


def finish(proposals, count):
    """Finish so many trials, one after the other, and return their proposals."""
    done = []
    for _ in range(count):
        done.append(proposals.propose())
        proposals.tell(done[-1], "COMPLETE", accuracy_of(done[-1]))
    return done


def test_its_front_is_better_than_that_of_random_search(space_file):
    """Here depth helps, which the prior does not expect."""
    space = SearchSpace.from_yaml(space_file(SPACE))
    scale = Scale(*space.extremes(), 0.1)

    def hypervolume(sampler, seed):
        done = finish(Proposals(space, sampler, seed), 24)
        records = [
            {"sequence": p.trial, "state": "COMPLETE", "parameters": p.cost.parameters, "accuracy": accuracy_of(p)}
            for p in done
        ]
        return scale.hypervolume(front_of(records))

    volumes = {name: [hypervolume(name, seed) for seed in range(2)] for name in ("surrogate", "random")}
    assert min(volumes["surrogate"]) > max(volumes["random"])


def test_a_study_of_other_directions_is_refused(space_file):
    sampler = SurrogateSampler(0, SearchSpace.from_yaml(space_file(SPACE)))
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    with pytest.raises(ValueError, match="needs the directions MAXIMIZE, MINIMIZE, but the study has MINIMIZE, MIN"):
        study.ask().suggest_float("x", 0, 1)


def test_a_model_is_made_from_the_front_and_some_of_many_observations(space_file, monkeypatch, observations):
    monkeypatch.setattr(surrogate, "MOST_OBSERVED", 16)
    done = finish(Proposals(SearchSpace.from_yaml(space_file(SPACE)), "surrogate", 0), 30)
    assert len({proposal.architecture.fingerprint for proposal in done}) == 30
    assert observations[-1] == (16, 0)


def test_running_trials_are_pending_for_the_model_and_estimates_count(space_file, observations):
    space, options = SearchSpace.from_yaml(space_file(SPACE)), SamplerOptions(prior="none")
    proposals = Proposals(space, "surrogate", 0, options=options)
    finish(proposals, 6)
    observations.clear()
    first, second, third = (proposals.propose() for _ in range(3))
    proposals.tell(first, "PRUNED", estimate=0.8)
    proposals.tell(second, "PRUNED")
    proposals.tell(third, "FAIL")
    proposals.propose()
    assert observations == [(6, 0), (6, 1), (6, 2), (7, 0)]


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
    least, most = map(math.log10, space.extremes())
    assert max(np.diff([least, *logs, most])) < 0.3 * (most - least)


def test_the_first_trials_have_the_structure_that_the_prior_prefers(space_file):
    space = SearchSpace.from_yaml(space_file(SPACE))
    domain, generator = Domain(space), random.Random(1)
    drawn = [domain.draw(generator).structure for _ in range(200)]

    def expected(prior):
        weights = Prior.load("auto").structure
        proposals = Proposals(space, "surrogate", 0, options=SamplerOptions(prior=prior))
        first = [domain.read(proposals.propose().choices).structure @ weights for _ in range(5)]
        return np.mean(first), np.quantile(np.array(drawn) @ weights, 0.2)

    known, good = expected("auto")
    assert known < good < expected("none")[0]


def test_a_wrong_prior_is_outgrown(space_file):
    """With all signs turned the front is, after some trials, as good as without a prior."""
    space = SearchSpace.from_yaml(space_file(SPACE))
    scale = Scale(*space.extremes(), 0.1)
    right = Prior.load("auto")

    def hypervolume(prior):
        done = finish(Proposals(space, "surrogate", 0, options=SamplerOptions(prior=prior)), 30)
        records = [
            {"sequence": p.trial, "state": "COMPLETE", "parameters": p.cost.parameters, "accuracy": accuracy_of(p)}
            for p in done
        ]
        return scale.hypervolume(front_of(records))

    assert hypervolume(Prior(-right.structure, right.weights)) > 0.99 * hypervolume("none")


def test_after_the_first_cycle_promising_trials_go_on_and_others_do_not(space_file):
    space = SearchSpace.from_yaml(space_file(SPACE))
    proposals = Proposals(space, "surrogate", 0, options=SamplerOptions(first_share=0.25))
    for _ in range(12):
        proposal = proposals.propose()
        proposals.tell_short(proposal.trial, accuracy_of(proposal) - 0.1)
        proposals.tell(proposal, "COMPLETE", accuracy_of(proposal))
    good, bad = proposals.propose(), proposals.propose()
    shorts = {good.trial: accuracy_of(good), bad.trial: accuracy_of(bad) - 0.25}  # better and worse than expected
    for trial, accuracy in shorts.items():
        proposals.tell_short(trial, accuracy)
    assert proposals.shorts == shorts
    assert proposals.is_worth_finishing(good.trial)
    assert not proposals.is_worth_finishing(bad.trial)


def test_judging_a_trial_does_not_change_what_is_proposed(space_file):
    space = SearchSpace.from_yaml(space_file(SPACE))

    def run(judged):
        proposals = Proposals(space, "surrogate", 3, options=SamplerOptions(first_share=0.25))
        for number in range(8):
            proposal = proposals.propose()
            proposals.tell_short(proposal.trial, accuracy_of(proposal) - 0.1)
            if judged and number > 2:
                proposals.is_worth_finishing(proposal.trial)
            proposals.tell(proposal, "COMPLETE", accuracy_of(proposal))
            yield proposal.architecture.fingerprint

    assert list(run(True)) == list(run(False))


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
    domain = Domain(SearchSpace.from_yaml(space_file(SPACE)))
    shared = {"sections": 1, "sharing": "section", "width": 8, "depth_1": 1, "regulators_1": "none"}
    assert domain.read(shared).architecture == domain.read({**shared, "sharing": "none"}).architecture
    assert domain.read({**shared, "depth_1": 2}).architecture != domain.read(shared).architecture


def test_features_tell_the_families_of_sharing_apart(space_file):
    families = {
        "sharing": ["section", "second"],
        "anchors": [2, 3],
        "mixing": ["turn", "learned"],
        "shortcuts": ["block", "none", "history"],
        "history": [2, 4],
    }
    free = "".join(f"\n  {name}: {{choice: [{', '.join(map(str, values))}]}}" for name, values in families.items())
    space = f"data: {{name: digits}}\narchitecture:\n  sections: 1\n  depth: 8\n  width: 4{free}"
    domain = Domain(SearchSpace.from_yaml(space_file(space)))
    ways = [dict(zip(families, values, strict=True)) for values in itertools.product(*families.values())]
    points = {point.architecture: point for way in ways for point in [domain.read(way)] if point}
    assert len(points) == 2 * 2 * 2 * (2 + 2)
    assert len({point.features.tobytes() for point in points.values()}) == len(points)
