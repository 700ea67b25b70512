"""The rules that stop trials early, and the search that obeys them."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from faulty import records_in
from pretended import TINY, Pretended, epoch_result, new_run

from dacnn_search.replay import replay
from dacnn_search.search.search import run_search
from dacnn_search.search.stopping import RULES, FrontStopping, ParetoHalving, Progress, Verdict
from dacnn_search.space.search_space import SearchSpace

EPOCHS = 9


def progress(trial, parameters, final, epochs):
    """A curve whose error falls by a fixed factor per epoch towards `1 - final`."""
    errors = [(1 - final) * 1.3 ** (EPOCHS - epoch) for epoch in range(1, epochs + 1)]
    return Progress(trial, parameters, 9 * parameters, 4, tuple(1 - e for e in errors), tuple(2 * e for e in errors))


def fed(rule, count=12):
    """The rule after full trials whose error falls with their parameters."""
    for trial in range(count):
        parameters = 100 * 2**trial
        for epochs in range(1, EPOCHS + 1):
            assert rule.judge(progress(trial, parameters, 1 - 0.05 * 0.8**trial, epochs)).go_on
    return rule


@pytest.mark.parametrize("name", RULES)
def test_the_first_trials_run_in_full(name):
    rule = RULES[name](EPOCHS)
    assert all(rule.judge(progress("a", 1000, 0.9, epochs)).go_on for epochs in range(1, EPOCHS + 1))


def test_a_trial_below_the_front_at_its_size_is_stopped_and_one_on_it_goes_on():
    rule = fed(FrontStopping(EPOCHS))
    assert not rule.judge(progress("bad", 3200, 0.95, 2)).go_on
    assert rule.judge(progress("good", 3200, 0.995, 2)).go_on


def test_small_networks_live_with_accuracies_that_stop_large_ones():
    rule = fed(FrontStopping(EPOCHS))
    assert rule.judge(progress("small", 110, 0.95, 2)).go_on
    assert not rule.judge(progress("large", 100_000, 0.95, 2)).go_on


def test_a_network_smaller_than_all_never_stops():
    rule = fed(FrontStopping(EPOCHS))
    assert all(rule.judge(progress("least", 50, 0.2, epochs)).go_on for epochs in range(1, EPOCHS + 1))


def test_the_estimate_is_near_the_final_accuracy():
    rule = fed(FrontStopping(EPOCHS))
    assert rule.judge(progress("new", 3200, 0.97, 4)).estimate == pytest.approx(0.97, abs=0.01)


def test_a_full_trial_is_never_stopped():
    rule = fed(FrontStopping(EPOCHS))
    assert rule.judge(progress("bad", 100_000, 0.3, EPOCHS)).go_on


def test_halving_keeps_a_share_of_each_rung_and_small_networks_too():
    rule, generator = ParetoHalving(EPOCHS), np.random.default_rng(0)
    kept = []
    for trial in range(60):
        parameters = int(10 ** generator.uniform(2, 5))
        final = 1 - 0.5 * parameters**-0.2 * generator.uniform(1, 2)
        if rule.judge(progress(trial, parameters, final, 1)).go_on:
            kept.append(parameters)
    assert 15 <= len(kept) <= 35
    assert min(kept) < 1000
    assert max(kept) > 10_000


def naive_order(losses):
    """Sort rows by non-dominated sorting, comparing all pairs; within a layer by the gap between the neighbours."""
    left, order = list(range(len(losses))), []
    while left:
        layer = [
            i for i in left if not any((losses[j] <= losses[i]).all() and (losses[j] < losses[i]).any() for j in left)
        ]
        layer.sort(key=lambda i: (losses[i, 1], losses[i, 0]))
        costs = losses[layer, 1]
        gaps = np.concatenate([[np.inf], costs[2:] - costs[:-2], [np.inf]])[: len(layer)]
        order += [layer[i] for i in np.argsort(-gaps, kind="stable")]
        left = [i for i in left if i not in layer]
    return order


def naive_features(curve, done):
    error, loss = (math.log10(max(value, 1e-3)) for value in (1 - curve.accuracy[done - 1], curve.loss[done - 1]))
    return [error, loss, math.log10(curve.size), math.log10(curve.macs), curve.depth]


def naive_front_verdict(full, curve):
    """Judge a curve by a forecast made from all full curves and their front, from scratch."""
    done = len(curve.accuracy)
    if len(full) < 8:
        return Verdict(True)
    rows, row = (np.array([naive_features(c, done) for c in curves]) for curves in (full, [curve]))
    targets = np.array([math.log10(max(1 - c.accuracy[-1], 1e-3)) for c in full])
    centre, spread, mean = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6), targets.mean()
    scaled, point = (rows - centre) / spread, (row[0] - centre) / spread
    inverse = np.linalg.inv(scaled.T @ scaled + 0.1 * np.eye(5))
    weights = inverse @ scaled.T @ (targets - mean)
    residuals = targets - mean - scaled @ weights
    variance = residuals @ residuals / max(len(full) - 6, 1) * (1 + 1 / len(full) + point @ inverse @ point)
    expected = mean + point @ weights
    front = max((c.accuracy[-1] for c in full if c.size <= curve.size), default=0.0)
    return Verdict(bool(1 - 10 ** (expected - 2 * math.sqrt(variance)) >= front), 1 - 10**expected)


def random_curves(seed, count):
    """Return noisy curves; parameters and accuracies are coarse, so that there are equals."""
    generator = np.random.default_rng(seed)
    for trial in range(count):
        parameters = int(100 * 2 ** generator.integers(0, 8))
        final = parameters**-0.3 * math.exp(generator.normal(0, 0.3))
        errors = [
            min(1.0, final * 1.2 ** (EPOCHS - n) * math.exp(generator.normal(0, 0.1))) for n in range(1, EPOCHS + 1)
        ]
        accuracy = tuple(float(np.round(1 - error, 2)) for error in errors)
        depth = int(generator.integers(1, 9))
        yield Progress(trial, parameters, 9 * parameters, depth, accuracy, tuple(2.1 - 2 * a for a in accuracy))


def beginning(curve, done):
    return dataclasses.replace(curve, accuracy=curve.accuracy[:done], loss=curve.loss[:done])


@pytest.mark.parametrize("seed", range(3))
def test_halving_decides_as_sorting_all_pairs_does(seed):
    rule, rung = ParetoHalving(EPOCHS), []
    for curve in random_curves(seed, 60):
        rung.append((1 - curve.accuracy[0], math.log10(curve.size)))
        best = naive_order(np.array(rung))[: max(len(rung) // 3, 1)]
        assert rule.judge(beginning(curve, 1)).go_on == (len(rung) - 1 in best)


@pytest.mark.parametrize("seed", range(3))
def test_front_decides_as_a_forecast_from_scratch_does(seed):
    rule, full, stopped = FrontStopping(EPOCHS), {}, 0
    for curve in random_curves(seed, 40):
        curve = dataclasses.replace(curve, trial=curve.trial % 35)  # some trials are trained twice: the last counts
        for done in range(1, EPOCHS):
            verdict, expected = (
                rule.judge(beginning(curve, done)),
                naive_front_verdict(list(full.values()), beginning(curve, done)),
            )
            assert verdict.go_on == expected.go_on
            assert verdict.estimate == pytest.approx(expected.estimate)
            stopped += not verdict.go_on
        assert rule.judge(curve).go_on
        full[curve.trial] = curve
    assert stopped


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_learns_of_earlier_trials_decides_as_the_one_that_judged_them(name):
    judged, learnt = RULES[name](EPOCHS), RULES[name](EPOCHS)
    for number, curve in enumerate(random_curves(0, 30)):
        if number >= 15:
            assert judged.judge(beginning(curve, 3)) == learnt.judge(beginning(curve, 3))
        if number < 15:
            ended = beginning(curve, EPOCHS if number % 3 else 4)
            for done in range(1, len(ended.accuracy) + 1):
                judged.judge(beginning(ended, done))
            learnt.learn(ended)


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("{epochs: 2}", "{epochs: 9}"), encoding="utf-8")
    return SearchSpace.from_yaml(path)


def grow(final, first, last):
    errors = [(1 - final) * 1.3 ** (EPOCHS - epoch) for epoch in range(first, last + 1)]
    return [epoch_result(epoch, 1 - error) for epoch, error in enumerate(errors, start=first)]


def search_with_one_bad_trial(space, run):
    """Trials, most of them full, and one that has just begun, of a network that is not the least of all."""
    pretended = Pretended(space, run, trials=30, stopping="front")
    searched, least = pretended.search, float("inf")
    finals = itertools.cycle((0.93, 0.94, 0.95, 0.96, 0.97, 0.98))
    while (config := searched.propose("bad"))["parameters"] <= least or searched.finished < 12:
        final = next(finals)
        searched.finish("bad", {"epochs": grow(final, 1, EPOCHS)})
        least = min(least, config["parameters"] if final == 0.98 else least)
    return pretended


def test_a_search_records_what_it_stops_as_pruned_with_a_forecast(space, tmp_path):
    pretended = search_with_one_bad_trial(space, new_run(space, tmp_path / "results"))
    assert not pretended.search.goes_on("bad", grow(0.9, 1, 3))
    pretended.search.finish("bad", {"epochs": grow(0.9, 1, 3)})
    pretended.close()
    *earlier, stopped = pretended.ledger.records
    assert all((record["estimate"] is None) == (record["state"] == "COMPLETE") for record in earlier)
    assert (stopped["state"], stopped["reason"]) == ("PRUNED", "stopped early")
    assert 1 <= stopped["epochs"] <= 3
    assert 0.85 < stopped["estimate"] < 0.93


@pytest.mark.parametrize("reports", [(3,), (4,), (2, 5), (EPOCHS,), (3, EPOCHS)])
def test_what_a_worker_does_before_it_hears_of_its_stop_does_not_count(space, tmp_path, reports):
    pretended = search_with_one_bad_trial(space, new_run(space, tmp_path / "results"))
    for first, last in itertools.pairwise((0, *reports)):
        pretended.search.progress("bad", {"epochs": grow(0.9, first + 1, last)})
    pretended.search.finish("bad", {"epochs": grow(0.9, 1, reports[-1]), "failure": "training loss is nan in epoch 8"})
    pretended.close()
    record = pretended.ledger.records[-1]
    assert (record["state"], record["reason"], record["epochs"]) == ("PRUNED", "stopped early", 1)


def test_a_resumed_search_stops_by_the_curves_of_its_earlier_sessions(space, tmp_path):
    run = new_run(space, tmp_path / "results")
    pretended = search_with_one_bad_trial(space, run)
    pretended.search.interrupt()
    pretended.close()
    resumed = Pretended(space, run, trials=30, stopping="front")
    assert resumed.search.propose("bad")
    assert not resumed.search.goes_on("bad", grow(0.9, 1, 3))
    resumed.close()


@pytest.mark.slow
def test_a_search_that_stops_trials_can_be_replayed(space, tmp_path):
    run = new_run(space, tmp_path / "results", sampler="surrogate")
    pretended = Pretended(space, run, trials=30, stopping="front", sampler="surrogate")
    for number in range(30):
        final = 0.98 - 0.03 * (number % 4)
        assert pretended.search.propose("0")
        epochs = next((n for n in range(1, EPOCHS) if not pretended.search.goes_on("0", grow(final, n, n))), EPOCHS)
        pretended.search.finish("0", {"epochs": grow(final, epochs, epochs)})
    pretended.close()
    assert "PRUNED" in {record["state"] for record in pretended.ledger.records}
    assert replay(run) == (30, 0, None)


def test_a_broken_epoch_is_not_judged(space, tmp_path):
    pretended = search_with_one_bad_trial(space, new_run(space, tmp_path / "results"))
    assert pretended.search.goes_on("bad", [{**epoch_result(1, 0.1), "validation_loss": float("nan")}])
    pretended.close()


@pytest.mark.slow
def test_workers_are_stopped_by_the_rule(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("{epochs: 2}", "{epochs: 27}"), encoding="utf-8")
    run = run_search(path, results=tmp_path / "results", trials=16, concurrency=2, stopping="halving")
    records = records_in(run.folder)
    assert {record["state"] for record in records} == {"COMPLETE", "PRUNED"}
    for record in records:
        assert (record["epochs"] == 27) == (record["state"] == "COMPLETE")
    assert {record["state"] for record in run.front} == {"COMPLETE"}
