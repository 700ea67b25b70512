"""Networks of a space: counted, listed, drawn, suggested and replayed alike."""

import dataclasses
import itertools
import random

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_space import make_space
from strategies import architectures, space_parts

from dacnn_search.network.cost import COSTS, estimate_cost
from dacnn_search.space.choices import enumerate_answers
from dacnn_search.space.count import count_networks


def all_fingerprints(space):
    """By brute force: every answer to every question."""
    return {architecture.fingerprint for architecture, _ in enumerate_answers(space.tree.build)}


@pytest.mark.slow
@given(space_parts())
@settings(max_examples=120)
def test_count_equals_enumeration(parts):
    space = make_space(parts)
    fingerprints = all_fingerprints(space)
    assert count_networks(space.tree) == len(fingerprints)
    assert {architecture.fingerprint for architecture, _ in space.networks()} == fingerprints


@given(space_parts(), st.integers(0, 3), st.sampled_from(COSTS))
@settings(max_examples=80)
def test_only_networks_within_constraints_are_drawn_and_listed(parts, seed, name):
    if name in ("flash", "ram"):
        parts = {**parts, "batch_norm": True}  # which C code needs
    free = make_space(parts)
    costs = sorted(getattr(free.cost(a), name) for a, _ in free.networks())
    limit = costs[len(costs) // 10]
    space = make_space(parts, {name: {"max": limit}})
    listed = [a for a, _ in space.networks()]
    assert len(listed) == sum(cost <= limit for cost in costs)
    assert all(getattr(space.cost(a), name) <= limit for a in listed)
    generator = random.Random(seed)
    for _ in range(10):
        architecture, choices = space.draw(generator)
        assert getattr(space.cost(architecture), name) <= limit
        assert space.replay(choices)[0] == architecture


@given(architectures(), st.sampled_from([(1, 8, 8), (3, 9, 12), (1, 4, 40)]), st.integers(0, 2), st.data())
@settings(max_examples=200)
def test_no_cost_falls_as_a_width_a_history_a_depth_or_a_regulator_placement_grows(architecture, shape, index, data):
    sections = list(architecture.sections)
    section = sections[index % len(sections)]
    bigger = [dataclasses.replace(section, depth=section.depth + data.draw(st.integers(1, 2)))]
    bigger += [dataclasses.replace(section, regulators=r) for r in ("block", "layer") if section.regulators != "layer"]
    grown = [[*sections[: index % len(sections)], b, *sections[index % len(sections) + 1 :]] for b in bigger]
    factor = data.draw(st.integers(2, 3))
    grown.append([dataclasses.replace(s, width=factor * s.width) for s in sections])
    before = estimate_cost(architecture, shape, 10)
    networks = [dataclasses.replace(architecture, sections=tuple(changed)) for changed in grown]
    for network in [*networks, dataclasses.replace(architecture, history=architecture.history + 1)]:
        after = estimate_cost(network, shape, 10)
        assert all(getattr(before, name) <= getattr(after, name) for name in COSTS)


@given(space_parts(), st.sampled_from(COSTS))
@settings(max_examples=60)
def test_extremes_bound_all_networks(parts, name):
    space = make_space(parts)
    costs = [getattr(space.cost(a), name) for a, _ in space.networks()]
    assert space.extremes(name) == (min(costs), max(costs))


@given(space_parts(), st.integers(0, 5))
@settings(max_examples=40)
def test_optuna_suggests_what_replay_reads(parts, seed):
    space = make_space(parts)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    architecture = space.suggest(trial)
    replayed, asked = space.replay(trial.params)
    assert replayed == architecture == architecture.canonical()
    assert set(asked) == set(trial.params)


def test_a_width_that_adds_a_transition_can_need_less_ram():
    """Widths 4+4 and 5+5 have histories of 7 inputs, widths 6+5 and 7+6 of 6."""
    parts = {"sections": 2, "depth": [1, 6], "width": {"choice": [4, 5, 6, 7]}, "growth": 0.9}
    space = make_space({**parts, "shortcuts": "history", "history": 16}, {"ram": {"max": 548}})
    assert [[s.width for s in architecture.sections] for architecture, _ in space.networks()] == [[4, 4], [6, 5]]
    assert space.extremes("ram") == (525, 548)


def test_a_fixed_space_has_one_network_and_asks_nothing():
    space = make_space({"sections": 4, "depth": 8, "width": 12, "growth": 1.5, "sharing": "section"})
    assert count_networks(space.tree) == 1
    ((architecture, choices),) = space.networks()
    assert choices == {}
    assert [s.width for s in architecture.sections] == [12, 18, 27, 41]
    assert architecture.decided_shortcuts == "block"


def test_growth_is_not_asked_where_it_does_not_apply():
    parts = {"sections": 2, "depth": 1, "width": 4, "growth": {"choice": [1, 2]}, "sharing": "network"}
    assert all(choices == {} for _, choices in make_space(parts).networks())


def test_mixing_and_history_are_asked_where_they_apply():
    free = {"anchors": {"choice": [1, 2]}, "mixing": {"choice": ["turn", "learned"]}, "history": {"choice": [1, 3]}}
    shared = {"sharing": {"choice": ["none", "second"]}, "shortcuts": {"choice": ["block", "history"]}}
    space = make_space({"sections": 1, "depth": 6, "width": 4, **shared, **free})
    asked = {tuple(choices.values()) for _, choices in enumerate_answers(space.tree.build)}
    shortcuts = [("block",), ("history", 1), ("history", 3)]
    anchors = [(1,), (2, "turn"), (2, "learned")]
    assert asked == {("none", *s) for s in shortcuts} | {
        ("second", first, *a, *history) for first, *history in shortcuts for a in anchors
    }


def test_convolutions_are_a_choice_with_networks_of_its_own():
    parts = {"sections": 2, "depth": {"choice": [1, 2]}, "width": 4}
    full, both = (make_space({**parts, "convolutions": c}) for c in ("full", {"choice": ["full", "separable"]}))
    assert count_networks(both.tree) == 2 * count_networks(full.tree)
    assert {architecture.convolutions for architecture, _ in both.networks()} == {"full", "separable"}


@pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler(0), optuna.samplers.TPESampler(seed=0)])
def test_a_range_of_fractions_gives_the_values_it_lists(sampler):
    growth = {"range": {"low": 1.0, "high": 2.0, "step": 0.1}}
    space = make_space({"sections": 2, "depth": 1, "width": 10, "growth": growth})
    study = optuna.create_study(sampler=sampler)
    found = set()
    for _ in range(60):
        trial = study.ask()
        architecture = space.suggest(trial)
        assert space.replay(trial.params)[0] == architecture
        found.add(trial.params["growth"])
        study.tell(trial, architecture.sections[1].width)
    assert found <= {1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0}
    assert len(found) > 5


def test_lists_say_each_section_alone():
    parts = {
        "sections": {"choice": [1, 2]},
        "depth": [3, {"range": {"low": 1, "high": 5, "step": 2}}],
        "regulators": ["none", {"choice": ["block", "layer"]}],
        "width": 4,
    }
    found = {tuple((s.depth, s.regulators) for s in a.sections) for a, _ in make_space(parts).networks()}
    second = set(itertools.product([1, 3, 5], ["block", "layer"])) - {(1, "layer")}
    assert found == {((3, "none"),)} | {((3, "none"), s) for s in second}
