"""The rules that stop trials early, and the scheduler that applies them in Ray Tune."""

from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from dacnn_search.scheduling import StoppingScheduler
from dacnn_search.stopping import RULES, FrontStopping, ParetoHalving, Progress, make_stopping, sort_by_layers

EPOCHS = 9


def progress(trial, parameters, final, epochs):
    """A curve whose error falls by a fixed factor per epoch towards `1 - final`."""
    errors = [(1 - final) * 1.3 ** (EPOCHS - epoch) for epoch in range(1, epochs + 1)]
    return Progress(trial, parameters, tuple(1 - e for e in errors), tuple(2 * e for e in errors))


def fed(rule, count=12):
    """The rule after full trials whose error falls with their parameters."""
    for trial in range(count):
        parameters = 100 * 2**trial
        for epochs in range(1, EPOCHS + 1):
            assert rule.judge(progress(trial, parameters, 1 - 0.05 * 0.8**trial, epochs)).go_on
    return rule


@pytest.mark.parametrize("name", RULES)
def test_the_first_trials_run_in_full(name):
    rule = make_stopping(name, EPOCHS)
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


def test_more_optimism_means_more_patience():
    def patience(optimism):
        rule, generator = FrontStopping(EPOCHS, optimism), np.random.default_rng(0)
        for trial in range(30):
            curve = progress(trial, 1000, generator.uniform(0.8, 0.95), EPOCHS)
            errors = [(1 - a) * np.exp(0.3 * generator.standard_normal()) for a in curve.accuracy]
            rule.judge(Progress(trial, 1000, tuple(1 - e for e in errors), tuple(2 * e for e in errors)))
        return [rule.judge(progress("x", 1000, final, 5)).go_on for final in np.linspace(0.7, 0.99, 20)].count(True)

    assert patience(0.0) < patience(2.0) < 20


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


def test_layers_come_in_order_and_ends_first():
    losses = np.array([[3.0, 3.0], [0.0, 2.0], [1.0, 1.0], [2.0, 0.0], [2.0, 2.5], [0.9, 1.1]])
    assert sort_by_layers(losses) == [3, 1, 2, 5, 4, 0]


def test_the_scheduler_stops_what_the_rule_stops():
    scheduler = StoppingScheduler(fed(FrontStopping(EPOCHS)))

    def report(trial, final, first, last):
        curve = progress(trial, 3200, final, last)
        epochs = [
            {"epoch": i + 1, "validation_accuracy": curve.accuracy[i], "validation_loss": curve.loss[i]}
            for i in range(first - 1, last)
        ]
        tune_trial = SimpleNamespace(trial_id=trial, config={"parameters": 3200})
        return scheduler.on_trial_result(None, tune_trial, {"epochs": epochs})

    assert report("good", 0.995, 1, 2) == TrialScheduler.CONTINUE
    assert report("good", 0.995, 2, 5) == TrialScheduler.CONTINUE
    assert report("bad", 0.9, 1, 3) == TrialScheduler.STOP
    assert scheduler.estimates["bad"] == pytest.approx(0.9, abs=0.05)
    assert "good" not in scheduler.estimates


@pytest.mark.slow
def test_ray_tune_stops_trials_by_the_rule(tmp_path):
    import ray
    from ray import tune

    full = EPOCHS  # workers can't import this file

    class Trainable(tune.Trainable):
        def step(self):
            epoch, final = self.iteration + 1, 0.5 if self.config["parameters"] == 777 else 0.995
            error = (1 - final) * 1.3 ** (full - epoch)
            last = {"epoch": epoch, "validation_accuracy": 1 - error, "validation_loss": 2 * error}
            return {"epochs": [last], "epoch": epoch, "done": epoch == full}

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        tuner = tune.Tuner(
            Trainable,
            param_space={"parameters": tune.grid_search([2000, 777])},
            tune_config=tune.TuneConfig(
                scheduler=StoppingScheduler(fed(FrontStopping(EPOCHS))), max_concurrent_trials=1
            ),
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
        )
        ended = {result.config["parameters"]: result.metrics["epoch"] for result in tuner.fit()}
    finally:
        ray.shutdown()
    assert ended[2000] == EPOCHS
    assert ended[777] < EPOCHS
