"""Searches that are replayed from a table, and the figures made of them."""

import json

import dacnn_bench
import numpy as np
import pandas as pd
import pytest
import real_searches
import search_efficiency
import simulator

from dacnn_search.search.stopping import FrontStopping, StoppingRule
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.front import Scale

SPACE = """
data: {name: digits}
architecture:
  sections: {choice: [1, 2]}
  depth: {choice: [1, 2, 3]}
  width: {choice: [4, 6, 8]}
  sharing: {choice: [section, none]}
recipe: {name: fast, epochs: 4}
"""
SECONDS = 2.0


def curves(parameters):
    """Accuracies that rise with the parameters, but for every third network."""
    final = 1 - parameters**-0.4 - 0.2 * (parameters % 3 == 0)
    accuracy = [final - 0.1 * (4 - epoch) for epoch in range(1, 5)]
    return {
        "validation_accuracy": accuracy,
        "validation_loss": [2 * (1 - a) for a in accuracy],
        "test_accuracy": [a - 0.01 for a in accuracy],
        "seconds": [SECONDS] * 4,
    }


@pytest.fixture
def bench(space_file, tmp_path):
    """A space and the table of all its networks, packed by the script."""
    path = space_file(SPACE)
    space = SearchSpace.from_yaml(path)
    networks = dacnn_bench.networks_of(space)
    work = tmp_path / "work"
    work.mkdir()
    lines = [
        json.dumps({"fingerprint": f, "seed": seed, **curves(space.cost(networks[f]).parameters)})
        for f, seed in dacnn_bench.jobs_of(networks)
    ]
    (work / "worker-0.jsonl").write_text("\n".join([*lines, '{"fingerprint": "torn']), encoding="utf-8")
    output = tmp_path / "table.parquet"
    dacnn_bench.pack(path, work, output)
    return space, simulator.Table(output)


def simulate(bench, stopping=None, **options):
    given = {"sampler": "random", "seed": 0, "trials": 1000, "workers": 4} | options
    return simulator.simulate(*bench, stopping=stopping or StoppingRule(4), **given)


def test_the_table_has_every_network_and_a_quarter_of_them_twice(bench):
    space, table = bench
    assert set(table.trainings) == {architecture.fingerprint for architecture, _ in space.networks()}
    twice = [f for f, of in table.trainings.items() if len(of) == 2]
    assert twice == [f for f in sorted(table.trainings) if int(f[:8], 16) % 4 == 0]
    assert twice


def test_a_search_ends_when_all_networks_are_known_and_finds_the_best_front(bench):
    space, table = bench
    events = simulate(bench)
    assert {event.proposal.architecture.fingerprint for event in events} == set(table.trainings)
    scale = simulator.scale_of(space)
    volumes = simulator.hypervolumes(events, table, scale)
    assert volumes[-1] == pytest.approx(simulator.best_hypervolume(table, scale))
    assert (np.diff(volumes) >= -1e-9).all()


def test_virtual_time_is_shared_by_the_workers(bench):
    alone, four = simulate(bench, trials=8, workers=1), simulate(bench, trials=8, workers=4)
    assert alone[-1].seconds == 8 * 4 * SECONDS
    assert four[-1].seconds == 2 * 4 * SECONDS
    assert alone[-1].spent == four[-1].spent == 32


@pytest.mark.slow
def test_stopped_trials_are_pruned_and_cost_what_they_ran(bench):
    events = simulate(bench, FrontStopping(4), sampler="surrogate", workers=2)
    pruned = [event for event in events if event.state == "PRUNED"]
    assert pruned
    assert all(event.epochs < 4 for event in pruned)
    assert events[-1].spent == sum(event.epochs for event in events) < 4 * len(events)
    assert all(event.proposal.duplicates == 0 for event in events)


def test_epochs_to_a_target_are_counted_on_the_median_curve():
    rows = pd.DataFrame(
        {"seed": [0, 0, 1, 1, 2, 2], "epochs": [4, 8, 4, 8, 4, 8], "hypervolume": [0.1, 0.9, 0.5, 0.7, 0.6, 0.6]}
    )
    assert search_efficiency.epochs_to(rows, 0.5) == 4
    assert search_efficiency.epochs_to(rows, 0.7) == 8
    assert search_efficiency.epochs_to(rows, 0.8) is None


def test_real_searches_tell_when_a_hypervolume_was_reached():
    scale = Scale(100, 10_000, 0.1)
    records = [
        {"sequence": n, "state": "COMPLETE", "fingerprint": str(n), "parameters": p, "accuracy": a, "after": after}
        for n, (p, a, after) in enumerate([(1000, 0.5, 10.0), (2000, 0.4, 20.0), (1000, 0.9, 30.0)])
    ]
    volumes = real_searches.hypervolumes(records, scale)
    assert volumes[0] == volumes[1] < volumes[2]
    assert real_searches.seconds_to(volumes[0], records, volumes) == 10.0
    assert real_searches.seconds_to(volumes[2], records, volumes) == 30.0
    assert real_searches.seconds_to(volumes[2] + 0.01, records, volumes) is None
    assert real_searches.volume_at(29.0, records, volumes) == volumes[0]
    assert real_searches.volume_at(9.0, records, volumes) == 0.0


def test_a_search_by_short_trainings_pays_for_the_full_ones_of_its_front():
    search = search_efficiency.Search("held-out", "random", "short", seed=0, trials=12, workers=4)
    rows = search_efficiency.run_search(search)
    own = rows["trials"] * 2
    assert (rows["epochs"] >= own + 8).all()  # two epochs of each trial, eight of each network of the front
    assert (rows["epochs"].iloc[-1] - 24) % 8 == 0
    assert rows["epochs"].is_monotonic_increasing
