"""What the sampler knows before the first trial."""

import json
from importlib import resources

import fit_prior
import numpy as np
import pytest

from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import estimate_cost
from dacnn_search.search.sampler import prior
from dacnn_search.search.sampler.domain import Domain
from dacnn_search.search.sampler.prior import FEATURES, WEIGHTS, Prior, structure_of
from dacnn_search.space.search_space import SearchSpace

SHAPE = (3, 16, 16)


def structure(*sections, **fields):
    network = Architecture(tuple(Section(*section) for section in sections), **fields).canonical()
    return dict(zip(FEATURES, structure_of(network, estimate_cost(network, SHAPE, 10)), strict=True))


def test_the_file_tells_where_it_comes_from_and_has_all_weights():
    values = json.loads(resources.files(prior.__package__).joinpath(prior.FILE).read_text("utf-8"))
    assert values["made"]["by"] == "benchmarks/fit_prior.py"
    assert len(values["made"]["tables"]) >= 6
    assert sum(values["made"]["tables"].values()) > 1000
    assert set(values["structure"]) == set(FEATURES)
    assert set(values["weights"]) == set(WEIGHTS)


def test_the_file_is_what_the_tables_give():
    values = json.loads(resources.files(prior.__package__).joinpath(prior.FILE).read_text("utf-8"))
    fitted = fit_prior.fit({name: fit_prior.read(name) for name in fit_prior.SOURCES})
    assert fitted["made"]["tables"] == values["made"]["tables"]
    for part in ("structure", "weights"):
        assert list(fitted[part]) == list(values[part])
        for name, value in fitted[part].items():
            assert value == pytest.approx(values[part][name], abs=1e-3)


def test_none_knows_errors_but_no_structure():
    known, unknown = Prior.load("auto"), Prior.load("none")
    assert np.array_equal(known.weights.mean, unknown.weights.mean)
    assert np.abs(known.structure).max() > 0
    assert not unknown.structure.any()


def test_the_second_belief_takes_structure_for_better_or_worse():
    known = Prior.load("auto")
    first, second = known.beliefs
    assert first is known.weights
    place = WEIGHTS.index("structure")
    assert (first.mean[place] > 0, second.mean[place]) == (True, 0)
    assert second.covariance[place, place] == 4 * first.mean[place] ** 2
    others = np.arange(len(WEIGHTS)) != place
    assert np.array_equal(first.mean[others], second.mean[others])
    assert len(Prior.load("none").beliefs) == 1


def test_features_tell_networks_apart():
    plain = structure((2, 8), (2, 16), sharing="section", shortcuts="none")
    assert (plain["sections"], plain["first width"], plain["last width"]) == (2, 3, 4)
    assert plain["depth"] == plain["depth without shortcuts"] == 2
    residual = structure((2, 8), (2, 16), sharing="section", shortcuts="block")
    changed = {name for name in FEATURES if residual[name] != plain[name]}
    assert changed == {"depth without shortcuts", "block shortcuts", "multiply-accumulates"}
    history = structure((2, 8), (2, 8), sharing="network", shortcuts="history", history=3, anchors=2, mixing="learned")
    assert (history["network sharing"], history["learned mixing"], history["anchors"]) == (1, 1, 1)
    assert history["history"] == pytest.approx(np.log2(4))


def test_a_point_has_its_structure_beyond_what_is_usual_at_its_size(space_file):
    text = """
data: {name: digits}
architecture: {sections: {choice: [1, 2, 3]}, depth: {choice: [1, 2, 4]}, width: {choice: [4, 8, 16]}, sharing: section}
"""
    space = SearchSpace.from_yaml(space_file(text))
    domain = Domain(space)
    points = [domain.read(choices) for _, choices in space.networks()]
    sizes, structures = np.array([p.cost for p in points]), np.array([p.structure for p in points])
    slopes = np.polynomial.polynomial.polyfit(sizes, structures, 1)[1]
    raw = np.array([structure_of(p.architecture, space.cost(p.architecture)) for p in points])
    assert np.abs(slopes).max() < 0.3 * np.abs(np.polynomial.polynomial.polyfit(sizes, raw, 1)[1]).max()
