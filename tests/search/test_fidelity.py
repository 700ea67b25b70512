"""The first cycle of a trial, after which the sampler decides whether it is trained in full."""

import json

import pytest
import torch
from pretended import TINY, Pretended, epoch_result, new_run

from dacnn_search.cli import main
from dacnn_search.common.errors import InputError, RunDirectoryError
from dacnn_search.data.dataset import load
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.replay import replay
from dacnn_search.search.request import prepare
from dacnn_search.search.search import run_search
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SearchSettings
from dacnn_search.training.device_data import ResidentData
from dacnn_search.training.recipe import Recipe, learning_rate_at
from dacnn_search.training.trainer import Training, build_seeded

EPOCHS, FIRST = 8, 2
TWO_CYCLES = TINY.replace("{epochs: 2}", f"{{epochs: {EPOCHS}}}").replace(
    "sampler: tpe", "sampler: surrogate, fidelity: auto"
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TWO_CYCLES, encoding="utf-8")
    return path


@pytest.fixture
def space(path):
    return SearchSpace.from_yaml(path)


@pytest.mark.parametrize(
    ("settings", "epochs", "expected"),
    [
        ({}, 12, 0),
        ({"fidelity": "auto"}, 12, 3),
        ({"fidelity": "auto"}, 5, 1),
        ({"fidelity": "auto"}, 3, 0),
        ({"fidelity": 5}, 12, 5),
        ({"fidelity": "auto", "sampler": "tpe"}, 12, 0),
    ],
)
def test_the_first_cycle_takes_what_is_asked_for_or_a_quarter_of_the_epochs(settings, epochs, expected):
    assert SearchSettings(**settings).first_cycle(epochs) == expected


def test_the_rate_goes_through_its_schedule_twice():
    recipe = Recipe(epochs=8)
    rates = [learning_rate_at(recipe, step, 80, 20) for step in range(80)]
    assert rates[:20] == [learning_rate_at(recipe, step, 20) for step in range(20)]
    assert rates[20:] == [learning_rate_at(recipe, step, 60) for step in range(60)]
    assert rates[20] < 0.1 * max(rates)
    assert rates[-1] < 0.01 * max(rates)


def test_the_first_cycle_is_a_short_training_of_its_own_and_the_others_go_on_from_it(space):
    data = ResidentData(load(space.settings.data).without_test(), "cpu")
    network = Architecture((Section(2, 4),), sharing="network")

    def train(epochs, first_cycle=0):
        training = Training(build_seeded(network, 10, 1, 0), data, Recipe(epochs=epochs), first_cycle=first_cycle)
        return training, [training.run_epoch().train_loss for _ in range(epochs)]

    short, losses = train(FIRST)
    whole, in_two = train(EPOCHS, FIRST)
    assert in_two[:FIRST] == losses
    assert in_two[-1] < losses[-1]
    assert not torch.equal(short.model.classifier.weight, whole.model.classifier.weight)


def curve(final, epochs=EPOCHS):
    return [epoch_result(epoch, final - 0.02 * (EPOCHS - epoch)) for epoch in range(1, epochs + 1)]


def good(config):
    """An accuracy that grows with the parameters."""
    return 1 - config["parameters"] ** -0.4


def search(space, run, finals, **settings):
    """Run a search without Ray, whose trials end with these accuracies by their number."""
    pretended = Pretended(space, run, **settings)
    while (config := pretended.search.propose("0")) is not None:
        final = finals(config)
        goes_on = pretended.search.goes_on("0", curve(final, FIRST))
        pretended.search.finish("0", {"epochs": curve(final, EPOCHS if goes_on else FIRST)})
    pretended.close()
    return list(pretended.ledger.records)


def test_a_trial_that_promises_less_than_a_new_network_ends_after_its_first_cycle(space, tmp_path):
    run = new_run(space, tmp_path / "results")
    records = search(space, run, lambda c: good(c) - 0.5 * (c["trial"] == 11), trials=12)
    *earlier, bad = records
    assert {record["state"] for record in earlier} == {"COMPLETE", "PRUNED"}
    assert (bad["state"], bad["epochs"], bad["reason"]) == ("PRUNED", FIRST, "stopped early")
    for record in records:
        assert record["short"] == pytest.approx(record["curve"]["accuracy"][FIRST - 1], abs=1e-5)
    assert all(record["state"] == "COMPLETE" for record in run.front)


def test_with_stopping_none_every_trial_is_trained_in_full(space, tmp_path):
    run = new_run(space, tmp_path / "results")
    records = search(space, run, lambda c: good(c) - 0.5 * (c["trial"] % 3 == 1), trials=8, stopping="none")
    assert {record["state"] for record in records} == {"COMPLETE"}
    assert None not in {record["short"] for record in records}


def test_a_search_in_two_sessions_with_trials_at_once_is_replayed(space, tmp_path):
    run = new_run(space, tmp_path / "results")
    for trials in (8, 16):
        pretended = Pretended(space, run, trials=trials)
        first, second = pretended.search.propose("a"), pretended.search.propose("b")
        while first is not None and second is not None:
            pretended.search.goes_on("a", curve(good(first), FIRST))  # its first cycle is known, it still runs
            keeps = pretended.search.goes_on("b", curve(good(second) - 0.3 * (second["trial"] % 2), FIRST))
            pretended.search.finish("b", {"epochs": curve(good(second), EPOCHS if keeps else FIRST)})
            second = pretended.search.propose("b")
            if second is not None and second["trial"] % 3 == 0:
                pretended.search.finish("a", {"epochs": curve(good(first))})
                first = pretended.search.propose("a")
        pretended.search.interrupt()
        pretended.close()
    assert any(line["shorts"] for line in run.proposals)
    confirmed, unknown, departure = replay(run)
    assert (unknown, departure) == (0, None)
    assert confirmed == len(run.proposals)


def test_a_resumed_search_keeps_its_fidelity_and_one_of_older_versions_has_none(path, space, tmp_path):
    run = new_run(space, tmp_path / "results")
    with pytest.raises(RunDirectoryError, match="a resumed search keeps its fidelity auto, but got 3"):
        prepare(resume=run.folder, settings={"fidelity": 3})
    environment = json.loads(run.environment_file.read_text())
    del environment["fidelity"], environment["prior"]
    run.environment_file.write_text(json.dumps(environment))
    assert prepare(resume=run.folder, settings={}).settings.fidelity == "none"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fidelity": 8}, "fidelity must be below the 8 epochs of a trial, but is 8"),
        ({"fidelity": 3, "sampler": "tpe"}, "fidelity needs the sampler surrogate, but got 3 and tpe"),
    ],
)
def test_a_first_cycle_that_can_not_be_is_refused(path, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        prepare(path, results=tmp_path, settings=settings)


def test_the_command_line_refuses_what_is_no_number_of_epochs(path, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", "--space", str(path), "--results", str(tmp_path), "--fidelity", "half"])
    assert ended.value.code == 2
    assert "must be auto, none or a number of at least 1, but is 'half'" in capsys.readouterr().err


@pytest.mark.slow
def test_workers_train_in_two_cycles(path, tmp_path):
    run = run_search(path, results=tmp_path / "results", trials=12, concurrency=2)
    assert {record["state"] for record in run.records} <= {"COMPLETE", "PRUNED"}
    for record in run.records:
        assert record["epochs"] == (EPOCHS if record["state"] == "COMPLETE" else FIRST)
        assert record["short"] == pytest.approx(record["curve"]["accuracy"][FIRST - 1], abs=1e-5)
    assert replay(run)[1:] == (0, None)
