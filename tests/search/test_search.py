"""A tiny search on Ray, looked at from all sides; what needs no Ray is tested without."""

import csv
import json
import math
import sqlite3
import subprocess
import sys

import optuna
import pytest
import ray
from pretended import TINY, Pretended, epoch_result, new_run
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.execution import class_cache

from dacnn_search.common.errors import DacnnSearchError, InputError, RunDirectoryError
from dacnn_search.common.files import read_json
from dacnn_search.common.interrupt import Interrupted, Stop
from dacnn_search.network.architecture import Architecture
from dacnn_search.search.cluster.ray_cluster import RaySession
from dacnn_search.search.cluster.slots import Resources, Slots
from dacnn_search.search.cluster.tasks import fix_run_precision
from dacnn_search.search.driver import ATTEMPTS
from dacnn_search.search.listener import Listener
from dacnn_search.search.request import prepare
from dacnn_search.search.retrain import retrain
from dacnn_search.search.sampler.proposals import SAMPLERS, Proposals
from dacnn_search.search.search import run_search
from dacnn_search.search.tune import CheckpointBytes, SearchAdapter, TrialWorker, _adapted_tune, _requeue_running_trials
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.front import front_of, spread
from dacnn_search.storage.ledger import LedgerWarning, read_ledger
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.training.speed import Speed

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves its sockets and pipes to the collector
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]

LIMIT = 1200
TRIALS, MORE_TRIALS = 4, 6


class Diary(Listener):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.finished_trials: list[int] = []
        self.states: list[str] = []
        self.retrained_seeds: list[tuple[str, int]] = []
        self.most_running = 0

    def update(self, snapshot):
        if snapshot.state not in self.states:
            self.states.append(snapshot.state)
        self.most_running = max(self.most_running, len(snapshot.running))

    def finished(self, record):
        self.finished_trials.append(record["trial"])

    def say(self, message):
        self.said.append(message)

    def retrained(self, record):
        self.retrained_seeds.append((record["fingerprint"], record["seed"]))


@pytest.fixture(scope="module")
def ray_for_all():
    """Ray that the searches of this module share."""
    with RaySession(Resources(concurrency=1)) as session:
        session.start()
        yield


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> SearchSpace:
    path = tmp_path_factory.mktemp("space") / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return SearchSpace.from_yaml(path)


@pytest.fixture(scope="module")
def diary() -> Diary:
    return Diary()


@pytest.fixture(scope="module")
def finished(ray_for_all, tmp_path_factory, space, diary) -> RunDirectory:
    """A search of a few trials."""
    return run_search(space, results=tmp_path_factory.mktemp("results"), listener=diary)


@pytest.fixture(scope="module")
def first_records(finished) -> list[dict]:
    """Its records, before it is resumed."""
    return finished.records


@pytest.fixture(scope="module")
def resumed(finished, first_records) -> RunDirectory:
    """The same, gone on with for more trials; its study is lost in between."""
    (finished.folder / "optuna.db").unlink()
    return run_search(resume=finished.folder, trials=MORE_TRIALS)


def test_every_trial_is_recorded_in_full(finished, first_records, space):
    assert [r["sequence"] for r in first_records] == [1, 2, 3, 4]
    assert sorted(r["trial"] for r in first_records) == [0, 1, 2, 3]
    for record in first_records:
        architecture = Architecture.from_dict(record["architecture"])
        assert record["state"] == "COMPLETE"
        assert record["reason"] is None
        assert record["fingerprint"] == architecture.fingerprint
        assert record["parameters"] == space.cost(architecture).parameters <= LIMIT
        assert record["macs"] == space.cost(architecture).macs
        assert space.replay(record["choices"])[0] == architecture
        assert record["epochs"] == 2 == len(record["curve"]["accuracy"])
        assert record["accuracy"] == pytest.approx(record["curve"]["accuracy"][-1], abs=1e-4)
        assert 0 < record["accuracy"] < 1
        assert record["seconds"] > 0
        assert ":" in record["worker"]
    assert len({r["fingerprint"] for r in first_records}) == TRIALS


def test_the_precision_is_measured_once_and_kept(finished, space):
    """All trainings of a run use it, on any machine; a recipe that states one is left alone."""
    environment = finished.environment
    assert environment["precision"] in ("float32", "bfloat16")
    assert Speed.model_validate(environment["speed"]).precision == environment["precision"]
    other = "float32" if environment["precision"] == "bfloat16" else "bfloat16"
    finished.set_environment(precision=other)
    recipe, slots = space.settings.recipe, Slots(1, 1.0, 0.0)
    assert fix_run_precision(finished, recipe, [], slots)().precision == other
    finished.set_environment(precision=environment["precision"])
    stated = recipe.model_copy(update={"precision": other})
    assert fix_run_precision(finished, stated, [], slots)() == stated


def test_order_and_durations(first_records):
    ends = [r["finished"] for r in first_records]
    assert ends == sorted(ends)
    assert all(0 <= r["started"] <= r["finished"] for r in first_records)


def test_the_listener_heard_of_every_trial(finished, diary):
    assert sorted(diary.finished_trials) == [0, 1, 2, 3]
    assert diary.states == ["searching", "finished"]


def test_resume_adds_what_is_missing_and_repeats_nothing(resumed, first_records):
    records = resumed.records
    assert records[:TRIALS] == first_records
    assert sorted(r["trial"] for r in records) == list(range(MORE_TRIALS))
    assert len({r["fingerprint"] for r in records}) == MORE_TRIALS
    assert records[TRIALS]["started"] >= first_records[-1]["finished"]


def test_a_finished_search_has_nothing_to_resume(resumed):
    before = resumed.trials_file.read_bytes()
    run_search(resume=resumed.folder, trials=MORE_TRIALS)
    assert resumed.trials_file.read_bytes() == before


def test_a_resumed_search_keeps_its_seed(finished):
    with pytest.raises(RunDirectoryError, match="keeps its seed 3, but got 4"):
        run_search(resume=finished.folder, seed=4)


def test_tables(resumed):
    with (resumed.folder / "front.csv").open(encoding="utf-8") as file:
        front = list(csv.DictReader(file))
    expected = front_of(resumed.records)
    assert [int(row["trial"]) for row in front] == [r["trial"] for r in expected]
    assert [int(row["parameters"]) for row in front] == [r["parameters"] for r in expected]
    assert [float(row["accuracy"]) for row in front] == [r["accuracy"] for r in expected]
    assert {"fingerprint", "macs", "network", "width"} <= front[0].keys()
    with (resumed.folder / "trials.csv").open(encoding="utf-8") as file:
        assert [int(row["sequence"]) for row in csv.DictReader(file)] == list(range(1, MORE_TRIALS + 1))


def test_the_study_is_that_of_the_ledger(resumed):
    storage = f"sqlite:///{resumed.folder / 'optuna.db'}"
    study = optuna.load_study(study_name=resumed.folder.name, storage=storage)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert len(study.trials) == MORE_TRIALS
    trials = sorted(study.trials, key=lambda trial: trial.user_attrs["trial"])
    for trial, record in zip(trials, sorted(resumed.records, key=lambda record: record["trial"]), strict=True):
        assert trial.state.name == record["state"]
        assert trial.values == [record["accuracy"], record["parameters"]]
        assert trial.params == record["choices"]
        assert trial.user_attrs["fingerprint"] == record["fingerprint"]
    study._storage.remove_session()  # type: ignore[attr-defined]
    with sqlite3.connect(resumed.folder / "optuna.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_status_tells_that_it_is_finished(resumed):
    status = json.loads((resumed.folder / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["finished"], status["trials"]) == ("finished", MORE_TRIALS, MORE_TRIALS)
    assert status["running"] == []
    assert 0 < status["hypervolume"] < 1


def test_dashboard_is_written(resumed):
    assert "<html" in (resumed.folder / "dashboard.html").read_text(encoding="utf-8")


def test_nothing_temporary_is_left(resumed):
    assert [path.name for path in resumed.folder.rglob("*") if path.name.startswith(".tmp")] == []


def test_retraining_scores_the_test_images_once_per_network_and_seed(resumed):
    diary = Diary()
    records = retrain(resumed, listener=diary, concurrency=1)
    networks = {r["fingerprint"] for r in records}
    assert networks <= {r["fingerprint"] for r in resumed.front}
    assert len(networks) == min(2, len(resumed.front))
    assert sorted(diary.retrained_seeds) == sorted((f, seed) for f in networks for seed in (0, 1))
    assert diary.most_running == 1
    for record in records:
        assert record["epochs"] == 1
        assert 0 <= record["test_accuracy"] <= 1
        assert record["train_images"] == 300
        assert resumed.weights_file(record["fingerprint"], record["seed"]).is_file()
    assert read_ledger(resumed.retrained_file) == records
    status = read_json(resumed.folder / "status.json")
    assert status["retraining"] == {"finished": len(records), "trainings": len(records)}
    assert (status["state"], status["finished"], status["trials"]) == ("finished", MORE_TRIALS, MORE_TRIALS)
    assert status["elapsed"] == pytest.approx(max(r["finished"] for r in resumed.records), abs=0.1)
    again = Diary()
    assert retrain(resumed, listener=again) == records
    assert again.retrained_seeds == []


@pytest.fixture(scope="module")
def retrained(resumed) -> RunDirectory:
    """The same with its front trained in full."""
    retrain(resumed, concurrency=1)
    return resumed


def test_a_retraining_keeps_to_what_the_search_was_given(retrained, monkeypatch):
    """concurrency: 1 stands in the search space."""
    given = []

    def refuse(resources):
        given.append((resources.concurrency, resources.gpus_per_trial))
        raise InputError("enough is known")

    monkeypatch.setattr(sys.modules["dacnn_search.search.retrain"], "RaySession", refuse)
    for settings in ({}, {"concurrency": 2, "gpus_per_trial": 0.5}):
        with pytest.raises(InputError, match="enough"):
            retrain(retrained, epochs=7, **settings)
    assert given == [(1, "auto"), (2, 0.5)]


def test_lost_weights_of_a_network_that_is_not_chosen_any_more_are_trained_again(retrained):
    (chosen,) = spread(retrained.front, 1)
    left = next(r for r in retrained.retrained if r["fingerprint"] != chosen["fingerprint"])
    path = retrained.weights_file(left["fingerprint"], left["seed"])
    data = path.read_bytes()
    path.unlink()
    diary = Diary()
    retrain(retrained, top=1, listener=diary)
    assert diary.retrained_seeds == [(left["fingerprint"], left["seed"])]
    assert path.read_bytes() == data


def test_damaged_weights_are_noticed_and_trained_again(retrained):
    damaged, gone = retrained.retrained[:2]
    path = retrained.weights_file(damaged["fingerprint"], damaged["seed"])
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    retrained.weights_file(gone["fingerprint"], gone["seed"]).unlink()
    diary = Diary()
    retrain(retrained, listener=diary, concurrency=1)
    assert sorted(diary.retrained_seeds) == sorted((r["fingerprint"], r["seed"]) for r in (damaged, gone))
    assert path.read_bytes() == data
    assert all(retrained.has_weights(record) for record in retrained.retrained)


def test_a_damaged_record_of_a_retraining_is_repaired_on_request(retrained):
    path = retrained.retrained_file
    whole = {(r["fingerprint"], r["seed"]) for r in retrained.retrained}
    path.write_bytes(path.read_bytes().replace(b'"seed":', b'"seed": '))
    with pytest.raises(RunDirectoryError, match=r"retrained.jsonl:1: damaged line.* --repair"):
        retrain(retrained)
    diary = Diary()
    with pytest.warns(LedgerWarning, match="kept 0 records"):
        retrain(retrained, listener=diary, concurrency=1, repair=True)
    assert set(diary.retrained_seeds) == whole == {(r["fingerprint"], r["seed"]) for r in retrained.retrained}


class Impatient(Listener):
    """Presses Ctrl-C once a retraining has done some epochs; notes the epochs it was told of."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.epochs: list[int] = []

    def update(self, snapshot):
        self.epochs += [running["epoch"] for running in snapshot.running]
        if self.epochs and self.epochs[-1] >= self.patience:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_retraining_goes_on_from_its_checkpoint(retrained, monkeypatch):
    monkeypatch.setattr(sys.modules["dacnn_search.search.retrain"], "CHECKPOINT_SECONDS", 0.0)
    settings = {"top": 1, "seeds": 1, "epochs": 40, "concurrency": 1}
    with pytest.raises(Interrupted):
        retrain(retrained, listener=Impatient(10), **settings)
    assert list(retrained.checkpoints.iterdir())
    second = Impatient(100)
    (record,) = [r for r in retrain(retrained, listener=second, **settings) if r["epochs"] == 40]
    assert min(second.epochs) > 8
    assert len(record["curve"]["train_loss"]) == 40
    assert not retrained.checkpoints.exists()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_proposes_distinct_networks_that_meet_the_constraints(space, sampler):
    proposals = Proposals(space, sampler, seed=1)
    seen = set()
    for number in range(8):
        proposal = proposals.propose()
        assert proposal.trial == number
        assert space.meets_constraints(proposal.architecture)
        assert space.replay(proposal.choices)[0] == proposal.architecture
        seen.add(proposal.architecture.fingerprint)
        state = ("COMPLETE", "PRUNED", "FAIL")[number % 3]
        proposals.tell(proposal, state, 0.5 + number / 100 if state == "COMPLETE" else None)
    assert len(seen) == 8


def test_the_same_seed_proposes_the_same_networks(space, tmp_path):
    runs = [Pretended(space, new_run(space, tmp_path), trials=14).run() for _ in range(2)]
    first, second = [[r["fingerprint"] for r in records] for records in runs]
    assert first == second
    other = Pretended(space, new_run(space, tmp_path), trials=14, seed=4).run()
    assert [r["fingerprint"] for r in other] != first


def test_a_space_of_three_networks_ends_after_three(space_file, tmp_path):
    text = TINY.replace("sections: {choice: [1, 2]}", "sections: 1").replace("{choice: [none, block]}", "none")
    text = text.replace("  sharing: {choice: [network, section]}\n", "").replace("{choice: [3, 4, 6]}", "4")
    three = SearchSpace.from_yaml(space_file(text))
    pretended = Pretended(three, new_run(three, tmp_path), trials=10)
    records = pretended.run()
    assert sorted(r["parameters"] for r in records) == sorted(three.cost(a).parameters for a, _ in three.networks())
    assert len(records) == 3
    assert pretended.search.exhausted
    assert pretended.search.over


def test_a_trial_of_fewer_epochs_is_pruned_and_not_on_the_front(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path))
    config = pretended.search.propose("a")
    pretended.train("a", config, epochs=1)
    pretended.close()
    record = pretended.ledger.records[0]
    assert (record["state"], record["reason"]) == ("PRUNED", "stopped early")
    assert front_of(pretended.ledger.records) == []


def test_a_failure_is_told_with_its_reason_and_not_on_the_front(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path))
    pretended.search.propose("a")
    pretended.search.finish("a", {"epochs": [], "failure": "training loss is nan in epoch 1"})
    pretended.close()
    record = pretended.ledger.records[0]
    assert (record["state"], record["reason"]) == ("FAIL", "training loss is nan in epoch 1")
    assert record["accuracy"] is None
    run = pretended.search.run
    study = optuna.load_study(study_name=run.folder.name, storage=f"sqlite:///{run.folder / 'optuna.db'}")
    assert [trial.state.name for trial in study.trials] == ["FAIL"]
    study._storage.remove_session()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_figures_that_are_not_finite_never_complete(space, tmp_path, loss):
    pretended = Pretended(space, new_run(space, tmp_path))
    pretended.search.propose("a")
    epochs = [epoch_result(1, 0.5), epoch_result(2, loss, loss)]
    pretended.search.finish("a", {"epochs": epochs})
    pretended.close()
    record = read_ledger(pretended.search.run.trials_file)[0]
    assert record["state"] == "FAIL"
    assert record["curve"]["loss"] == [1.0, None]


def test_failures_in_a_row_with_one_cause_stop_the_search(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), trials=50)
    number = 0
    while pretended.search.propose(str(number)) is not None:
        pretended.search.finish(str(number), {"failure": "no luck"})
        number += 1
    pretended.close()
    assert pretended.search.failure == "5 trials in a row failed for one reason: no luck"
    assert len(pretended.ledger.records) == 5


def test_failures_with_successes_between_do_not_stop_it(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), trials=12)
    for number in range(12):
        config = pretended.search.propose(str(number))
        if number % 5 == 4:
            pretended.train(str(number), config)
        else:
            pretended.search.finish(str(number), {"failure": "no luck"})
    pretended.close()
    assert pretended.search.failure is None


def test_when_ray_tune_breaks_its_error_is_told_and_what_ran_is_trained_again(space, tmp_path):
    pretended, diary = Pretended(space, new_run(space, tmp_path), trials=3), Diary()
    pretended.search.listener = diary
    for key in "abc":
        pretended.search.propose(key)
    for key in "abc":
        _requeue_running_trials(pretended.search, RuntimeError("an OutOfMemoryError, or so\nand more"))
        assert "Ray Tune broke: RuntimeError: an OutOfMemoryError, or so; it is started again" in diary.said
        if key != "c":
            for again in "abc":
                pretended.search.propose(again)
    pretended.close()
    assert {(r["state"], r["reason"]) for r in pretended.ledger.records} == {("FAIL", "its worker was stopped 3 times")}


def test_ray_tune_breaking_without_a_trial_is_told(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path))
    error = ValueError("no idea")
    with pytest.raises(DacnnSearchError, match="Ray Tune broke: ValueError: no idea; no trial was running") as raised:
        _requeue_running_trials(pretended.search, error)
    assert raised.value.__cause__ is error
    pretended.close()


def test_a_worker_killed_for_memory_is_the_death_of_a_worker_to_tune():
    """Tune does not expect Ray's OutOfMemoryError: it would break and end all trials. An upgrade may move this."""

    class Actor:
        _on_error = None

    class Task:
        _tracked_actor = Actor()
        errors: list[Exception] = []  # noqa: RUF012

        def _on_error(self, actor, error):
            self.errors.append(error)

    manager = RayActorManager.__new__(RayActorManager)
    manager._failed_actor_ids = set()
    manager._cleanup_actor = lambda tracked_actor: None
    Actor.actor_id = 1
    killed = ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory.")
    with pytest.raises(RuntimeError, match="unexpected"):
        manager._actor_task_failed(tracked_actor_task=Task(), exception=killed)
    with _adapted_tune():
        manager._actor_task_failed(tracked_actor_task=Task(), exception=killed)
    (error,) = Task.errors
    assert isinstance(error, ray.exceptions.RayActorError)
    assert str(error).startswith("out of memory: Ray killed its worker\n")


def end(pretended, key, accuracy, epochs=2):
    pretended.search.finish(key, {"epochs": [epoch_result(n, accuracy) for n in range(1, epochs + 1)]})


def test_what_reaches_the_front_is_confirmed_by_further_seeds(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), confirm=2, trials=4)
    seeds = []
    for number, accuracy in enumerate((0.5, 0.9, 0.4)):
        config = pretended.search.propose(str(number))
        assert config["trial"] == 0
        seeds.append(config["seed"])
        assert len(pretended.ledger.records) == 0
        end(pretended, str(number), accuracy)
    (record,) = pretended.ledger.records
    assert len(set(seeds)) == 3
    assert seeds[0] == record["seed"]
    assert record["accuracies"] == [0.5, 0.9, 0.4]
    assert record["accuracy"] == pytest.approx(0.6)
    assert record["seconds"] == pytest.approx(0.06)
    assert record["curve"]["accuracy"] == [0.5, 0.5]
    pretended.close()


def test_what_does_not_reach_the_front_is_not_confirmed(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), confirm=1, trials=8)
    first = pretended.search.propose("a")
    end(pretended, "a", 0.9)
    assert pretended.search.propose("b")["trial"] == first["trial"]
    end(pretended, "b", 0.9)
    for number in range(5):
        config = pretended.search.propose(str(number))
        beaten = config["parameters"] >= first["parameters"]
        end(pretended, str(number), 0.5 if beaten else 0.95)
        waits = pretended.search.propose("again")["trial"] == config["trial"]
        assert waits != beaten
        end(pretended, "again", 0.5)
    pretended.close()


def test_a_candidate_that_falls_behind_gets_no_further_seeds(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), confirm=3, trials=20)
    accuracies = {}  # of the trainings of each trial
    smallest = None
    for number in range(40):
        config = pretended.search.propose(str(number))
        smallest = smallest or config["parameters"]
        above = config["parameters"] > smallest
        so_far = accuracies.setdefault((config["trial"], above), [])
        so_far.append((0.6 if not so_far else 0.2) if above else 0.5)
        end(pretended, str(number), so_far[-1])
        if above and len(so_far) == 2:
            break
    assert pretended.ledger.records[-1]["accuracies"] == [0.6, 0.2]  # their mean is below 0.5
    assert pretended.ledger.records[0]["accuracies"] == [0.5] * 4
    pretended.close()


def test_an_interrupted_confirmation_is_recorded_as_it_stands(space, tmp_path):
    run = new_run(space, tmp_path)
    pretended = Pretended(space, run, confirm=3, trials=4)
    pretended.search.propose("a")
    end(pretended, "a", 0.5)
    pretended.search.propose("b")
    pretended.search.interrupt()
    pretended.close()
    (record,) = read_ledger(run.trials_file)
    assert (record["state"], record["accuracies"]) == ("COMPLETE", [0.5])
    resumed = Pretended(space, run, trials=4)
    assert len(resumed.run()) == 4


def test_at_the_deadline_candidates_are_recorded_as_they_stand(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), confirm=3, trials=4, time_budget=1000.0)
    pretended.search.propose("a")
    end(pretended, "a", 0.5)
    pretended.search._begun -= 2000
    assert pretended.search.propose("b") is None
    assert pretended.search.over
    assert [record["accuracies"] for record in pretended.ledger.records] == [[0.5]]
    pretended.close()


def test_a_confirmation_whose_worker_dies_is_done_again_by_its_seed(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), confirm=1, trials=4)
    pretended.search.propose("a")
    end(pretended, "a", 0.5)
    lost = pretended.search.propose("b")
    pretended.search.lose("b", "its worker process died")
    assert pretended.search.propose("c")["seed"] == lost["seed"]
    end(pretended, "c", 0.7)
    assert pretended.ledger.records[0]["accuracies"] == [0.5, 0.7]
    pretended.close()


def test_a_candidate_whose_confirmations_lose_their_workers_counts_as_it_stands(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), confirm=2, trials=4)
    pretended.search.propose("a")
    end(pretended, "a", 0.5)
    for _ in range(ATTEMPTS):
        assert not pretended.ledger.records
        pretended.search.propose("b")
        pretended.search.lose("b", "its worker process died")
    (record,) = pretended.ledger.records
    assert (record["state"], record["reason"], record["accuracies"]) == ("COMPLETE", None, [0.5])
    pretended.close()


def test_a_candidate_whose_confirmation_breaks_counts_as_it_stands(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), confirm=2, trials=4)
    pretended.search.propose("a")
    end(pretended, "a", 0.5)
    pretended.search.propose("b")
    pretended.search.finish("b", {"epochs": [epoch_result(1, 0.4)], "failure": "the loss is nan"})
    (record,) = pretended.ledger.records
    assert (record["state"], record["reason"], record["accuracies"]) == ("COMPLETE", None, [0.5])
    pretended.close()


def test_the_end_records_candidates_as_they_stand(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), confirm=2, trials=4, time_budget=1000.0)
    pretended.search.propose("a")
    end(pretended, "a", 0.5)
    pretended.search.propose("b")
    pretended.search._begun -= 2000
    pretended.search.lose("b", "its worker was stopped")
    assert pretended.search.over
    pretended.search.end("finished")
    assert [record["accuracies"] for record in pretended.ledger.records] == [[0.5]]
    pretended.close()


def test_a_search_that_fails_records_candidates_as_they_stand(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), confirm=2, trials=40)
    pretended.search.propose("a")
    end(pretended, "a", 0.5)
    pretended.search.propose("b")
    pretended.search.end("failed", "five trials in a row failed")
    assert [record["accuracies"] for record in pretended.ledger.records] == [[0.5]]
    pretended.close()


def test_checkpoints_do_not_stay_with_the_results_that_tune_keeps(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path))
    searcher = SearchAdapter(pretended.search, Stop())
    for told in (searcher.on_trial_result, searcher.on_trial_complete):  # one that is stopped early is only completed
        pretended.search.propose("a")
        result = {"epochs": [epoch_result(1, 0.5)], "checkpoint": CheckpointBytes(b"state")}
        told("a", result)
        assert result["checkpoint"].data == b""
    pretended.close()


def test_a_search_needs_a_space_or_a_run(space):
    with pytest.raises(InputError, match="a space or a run directory"):
        run_search()


def test_what_the_machine_does_not_have_is_refused_before_anything_is_made(space, tmp_path, ray_for_all):
    with pytest.raises(InputError, match=r"gpus per trial must be at most the \d+ of the cluster, but is 1000"):
        run_search(space, results=tmp_path, gpus_per_trial=1000)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_measurement_of_precision_ends_the_search_and_costs_no_trial(
    space, tmp_path, monkeypatch, ray_for_all
):
    def broken(*_):
        raise RuntimeError("no torch there")

    monkeypatch.setattr(sys.modules["dacnn_search.search.search"], "fix_run_precision", lambda *_: broken)
    with pytest.raises(RuntimeError, match="no torch there"):
        run_search(space, results=tmp_path)
    assert RunDirectory(tmp_path / "tiny").records == []


def test_what_the_machine_does_not_have_does_not_stick_to_a_run(space, tmp_path, ray_for_all):
    run = new_run(space, tmp_path)
    with pytest.raises(InputError, match="gpus per trial"):
        run_search(resume=run.folder, gpus_per_trial=1000)
    assert run.environment["gpus_per_trial"] == "auto"
    run.space_file.write_text(run.space_file.read_text().replace("search: {", "search: {gpus_per_trial: 1000, "))
    for _ in range(2):  # it stands in the file as long as it stands there
        with pytest.raises(InputError, match="gpus per trial"):
            run_search(resume=run.folder)
    assert run.environment["gpus_per_trial"] == "auto"


def test_an_edit_of_the_space_file_while_ray_starts_changes_nothing(space_file, tmp_path):
    """What was read and checked is what is searched and stored; the run can be resumed."""
    path = space_file(TINY)
    request = prepare(path, results=tmp_path, settings={})
    path.write_text(TINY.replace("{choice: [3, 4, 6]}", "{choice: [3, 4]}"))
    run = new_run(request.space, tmp_path)
    assert run.space_file.read_text() == TINY
    resumed = prepare(resume=run.folder, settings={})
    run.space_file.write_text(TINY + "description: edited\n")
    run.set_space(resumed.space)
    assert run.space_file.read_text() == TINY


def test_what_the_file_says_of_a_search_that_is_over_counts_later(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), trials=4)
    pretended.run()
    run = pretended.search.run
    run.space_file.write_text(run.space_file.read_text().replace("search: {", "search: {stopping: none, "))
    run_search(resume=run.folder)
    assert prepare(resume=run.folder, settings={"trials": 9}).settings.stopping == "none"


def test_a_search_that_is_over_says_so(space, tmp_path):
    pretended = Pretended(space, new_run(space, tmp_path), trials=2)
    pretended.run()
    run = pretended.search.run
    run.set_environment(trials=2)
    diary = Diary()
    run_search(resume=run.folder, listener=diary)
    assert "nothing to search: 2 of 2 trials have ended" in diary.said
    assert read_json(run.folder / "status.json")["state"] == "finished"


def test_settings_given_are_checked(space, tmp_path):
    with pytest.raises(InputError, match="sampler"):
        run_search(space, results=tmp_path, sampler="best")
    assert list(tmp_path.iterdir()) == []


def test_workers_are_those_that_ray_has_at_hand():
    """Of an environment of their own they would be new processes, which import torch once more."""
    before = dict(class_cache.DEFAULT_ENV_VARS)
    with _adapted_tune():
        options = class_cache._ActorClassCache().get(TrialWorker)._default_options
    assert not options["runtime_env"].get("env_vars")
    assert before == class_cache.DEFAULT_ENV_VARS != {}


@pytest.mark.slow
def test_the_environment_of_the_user_stays_as_it_is():
    """Neither an import nor a session leaves variables in the process."""
    code = """
import os
import ray, sklearn  # they set variables of their own
before = dict(os.environ)
import dacnn_search.search.retrain, dacnn_search.search.search
assert dict(os.environ) == before, os.environ.items() - before.items()
from ray.tune.execution import class_cache
assert class_cache.DEFAULT_ENV_VARS
from dacnn_search.search.cluster.ray_cluster import RaySession
with RaySession() as session:
    session.start()
assert dict(os.environ) == before, os.environ.items() - before.items()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
