"""Faults that need no Ray: what a search on the driver's side makes of them, and what it finds when it is resumed."""

import json
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pandas as pd
import pytest
import safetensors.torch
import torch
from faulty import no_space
from pretended import TINY, Pretended, new_run

from dacnn_search.common.errors import InputError, RunDirectoryError
from dacnn_search.common.files import lock
from dacnn_search.dashboard.__main__ import main as dashboard_command
from dacnn_search.dashboard.page import write_dashboard
from dacnn_search.dashboard.tensorboard import write_tensorboard
from dacnn_search.data.dataset import load
from dacnn_search.export.__main__ import main as export_command
from dacnn_search.replay import main as replay_command
from dacnn_search.replay import replay
from dacnn_search.run import main as run_command
from dacnn_search.search import trial
from dacnn_search.search.cluster import worker as processes
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.search.cluster.tasks import train_fully
from dacnn_search.search.report import write_study, write_tables
from dacnn_search.search.request import prepare
from dacnn_search.search.retrain import retrain
from dacnn_search.search.search import run_search
from dacnn_search.search.tune import CheckpointBytes, TrialWorker
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.checkpoint import Checkpoints
from dacnn_search.storage.front import front_of
from dacnn_search.storage.ledger import Ledger, LedgerWarning, read_ledger
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.training.memory import GIB, GPU_PROCESS_BYTES, GPU_WORKSPACE_BYTES, step_bytes

OLD_RUN = Path(__file__).parents[1] / "fixtures" / "run-format-1"


@pytest.fixture
def space(space_file) -> SearchSpace:
    return SearchSpace.from_yaml(space_file(TINY))


@pytest.fixture
def run(space, tmp_path) -> RunDirectory:
    return new_run(space, tmp_path, trials=8)


def other_space(space_file, old: str, new: str) -> Path:
    assert old in TINY
    return space_file(TINY.replace(old, new), "edited.yaml")


def states_in_study(run: RunDirectory) -> dict[int, str]:
    """Trial number -> state, as the file has it."""
    with sqlite3.connect(run.folder / "optuna.db") as database:
        rows = database.execute(
            "SELECT value_json, state FROM trials JOIN trial_user_attributes USING (trial_id) WHERE key = 'trial'"
        ).fetchall()
    database.close()
    return {int(number): state for number, state in rows}


# Workers that die.


def test_a_trial_whose_worker_dies_is_trained_again_under_its_number(space, run):
    pretended = Pretended(space, run, trials=8)
    lost, other = pretended.search.propose("a"), pretended.search.propose("b")
    pretended.search.lose("a", "its worker process died")
    again = pretended.search.propose("c")
    assert again == lost != other
    pretended.train("c", again)
    pretended.train("b", other)
    records = pretended.run()
    assert [r["trial"] for r in records] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert {r["state"] for r in records} == {"COMPLETE"}


def test_after_three_deaths_it_has_failed_and_the_others_go_on(space, run):
    pretended = Pretended(space, run, trials=4)
    for key in "abc":
        assert not pretended.search.over
        assert pretended.search.propose(key)["trial"] == 0
        pretended.search.lose(key, "its worker process died")
    records = pretended.run()
    assert records[0]["reason"] == "its worker process died 3 times"
    assert [r["state"] for r in records] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]


def test_the_last_trial_is_trained_again_too(space, run):
    pretended = Pretended(space, run, trials=1)
    pretended.search.propose("a")
    assert pretended.search.propose("b") is None
    assert not pretended.search.over
    pretended.search.lose("a", "its worker process died")
    assert not pretended.search.over
    assert len(pretended.run()) == 1


def test_running_out_of_memory_is_not_tried_again(space, run):
    pretended = Pretended(space, run, trials=4)
    pretended.search.propose("a")
    pretended.search.lose("a", "out of memory: Ray killed its worker", again=False)
    pretended.close()
    assert [(r["state"], r["reason"]) for r in run.records] == [("FAIL", "out of memory: Ray killed its worker")]


# Checkpoints.


def make_worker(space: SearchSpace, config: dict, seconds: float = 0.0) -> TrialWorker:
    worker = TrialWorker.__new__(TrialWorker)
    worker.setup(
        config,
        data=load(space.settings.data).without_test(),
        recipe=space.settings.recipe.model_copy(update={"epochs": 6}),
        first_cycle=2,
        slots=Slots(2, 1.0, 0.0),
        checkpoint_seconds=seconds,
        report_seconds=0.0001,  # an epoch per step
    )
    return worker


def train_to_end(worker: TrialWorker) -> tuple[list[dict], list[CheckpointBytes]]:
    epochs, checkpoints, done = [], [], False
    while not done:
        result = worker.step()
        assert result["failure"] is None
        epochs = result["epochs"]
        checkpoints += [result["checkpoint"]] if result["checkpoint"] else []
        done = result["done"]
    return epochs, checkpoints


def figures(epochs: list[dict]) -> list[tuple]:
    return [(e["epoch"], e["train_loss"], e["validation_loss"], e["validation_accuracy"]) for e in epochs]


def test_a_worker_carries_on_from_a_checkpoint_to_the_same_figures(space, run):
    config = Pretended(space, run).search.propose("a")
    whole, checkpoints = train_to_end(make_worker(space, config))
    assert [e["epoch"] for e in whole] == [1, 2, 3, 4, 5, 6]
    assert len(checkpoints) >= 3  # one per report; epochs that are short are reported together
    carried_on, _ = train_to_end(make_worker(space, {**config, "checkpoint": checkpoints[-3]}))
    assert figures(carried_on) == figures(whole)


def test_a_worker_keeps_to_its_share_of_a_gpu(monkeypatch):
    """On an invented GPU of 16 GiB: of four processes, of two, and of one alone."""
    fractions = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=16 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda fraction, _: fractions.append(fraction))
    claimed = [processes._claim_gpu_share(torch.device("cuda", 0), share) for share in (0.25, 0.5, 1.0)]
    assert claimed == [4 * GIB - GPU_PROCESS_BYTES, 8 * GIB - GPU_PROCESS_BYTES, 16 * GIB - GPU_PROCESS_BYTES]
    assert fractions == [(4 * GIB - GPU_PROCESS_BYTES) / (16 * GIB), (8 * GIB - GPU_PROCESS_BYTES) / (16 * GIB)]


def test_a_training_is_gone_when_the_next_one_begins(space, run):
    """Its memory is counted as free."""
    config = Pretended(space, run).search.propose("a")
    worker = make_worker(space, config)
    worker.step()
    training = weakref.ref(worker._training)
    worker.reset_config(config)
    assert training() is None


def test_without_a_share_of_a_gpu_trials_run_on_the_cpu(space, monkeypatch):
    monkeypatch.setattr(processes, "pick_device", lambda: torch.device("meta"))  # in place of a GPU
    images = load(space.settings.data).without_test()
    devices = [processes.WorkerProcess(images, Slots(2, 1.0, share)).data.device.type for share in (0.0, 0.5)]
    assert devices == ["cpu", "meta"]


def test_a_worker_learns_from_what_trainings_took(space, run, monkeypatch):
    """On an invented GPU: a training takes three times what was estimated, beside the data and the workspaces."""
    config = Pretended(space, run).search.propose("a")
    worker = make_worker(space, config)
    assert worker.step()["peak_bytes"] is None  # there is none on a CPU
    model, data = worker._training.model, worker._process.data
    estimate = step_bytes(model.architecture, data.input_shape, data.num_classes, worker._recipe)
    images = 5 * GIB
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "max_memory_allocated", lambda _: images + GPU_WORKSPACE_BYTES + 3 * estimate)
        patch.setattr(data, "device", torch.device("cuda", 0))
        patch.setattr(worker._process, "_bytes_before", images)
        assert worker._process.peak_bytes(model, worker._recipe) == GPU_WORKSPACE_BYTES + 3 * estimate
    for limit, fits in ((4 * estimate, True), (2 * estimate, False)):
        monkeypatch.setattr(worker._process, "_limit", limit)
        worker.reset_config(config)
        result = worker.step()
        assert (result["failure"] is None and not result["recomputes"]) == fits


def test_an_error_that_a_gpu_does_not_survive_ends_the_worker(space, run, monkeypatch):
    worker = make_worker(space, Pretended(space, run).search.propose("a"))
    worker.step()

    def broken(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    worker._running = map(broken, "a")
    assert worker._process.device_works()
    assert worker.step()["failure"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    worker._running = map(broken, "a")
    worker._slots = Slots(2, 1.0, 0.5)
    monkeypatch.setattr(worker._process.data, "device", torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        worker.step()


def test_without_time_passing_there_is_no_checkpoint(space, run):
    config = Pretended(space, run).search.propose("a")
    assert train_to_end(make_worker(space, config, seconds=1000.0))[1] == []


def test_a_checkpoint_is_kept_handed_out_and_dropped(space, run):
    pretended = Pretended(space, run, trials=8)
    config = pretended.search.propose("a")
    assert config["checkpoint"] is None
    pretended.search.progress("a", {"epochs": []}, b"after one epoch")
    pretended.search.lose("a", "its worker process died")
    again = pretended.search.propose("b")
    assert again["checkpoint"] == b"after one epoch"
    pretended.train("b", again)
    pretended.close()
    assert not run.checkpoints.exists()


def test_a_resumed_search_hands_out_checkpoints(space, run):
    first = Pretended(space, run, trials=8)
    first.search.propose("a")
    first.search.progress("a", {"epochs": []}, b"state")
    assert Pretended(space, run, trials=8).search.propose("x")["checkpoint"] == b"state"


def other_network(space: SearchSpace, config: dict) -> bytes:
    """A checkpoint of a network that is twice as wide."""
    architecture = {**config["architecture"], "sections": [{"depth": 2, "width": 12}]}
    return train_to_end(make_worker(space, {**config, "architecture": architecture}))[1][0].data


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return (Path.touch, (self._path,))


@pytest.mark.parametrize("kind", ["of another network", "pickle", "torch", "safetensors", "nothing"])
def test_a_checkpoint_of_something_else_is_not_used(space, run, tmp_path, kind):
    config = Pretended(space, run).search.propose("a")
    whole, _ = train_to_end(make_worker(space, config))
    if kind == "of another network":
        data = other_network(space, config)
    elif kind == "pickle":
        data = pickle.dumps(Hostile(tmp_path / "harm"))
    elif kind == "torch":
        torch.save({"model": Hostile(tmp_path / "harm")}, tmp_path / "hostile.pt")
        data = (tmp_path / "hostile.pt").read_bytes()
    else:
        header = {"epochs": json.dumps([{"epoch": 1}])} if kind == "safetensors" else None
        data = safetensors.torch.save({"epoch": torch.tensor(1)}, header)
    started_over, _ = train_to_end(make_worker(space, {**config, "checkpoint": CheckpointBytes(data)}))
    assert figures(started_over) == figures(whole)
    assert not (tmp_path / "harm").exists()


def full_training(space: SearchSpace, architecture: dict, checkpoint: bytes | None) -> tuple[list[dict], dict]:
    """What a worker tells of a training of six epochs, and its result."""
    recipe = space.settings.recipe.model_copy(update={"epochs": 6})
    data = load(space.settings.data).with_validation_in_train()
    *told, result = train_fully(data, architecture, recipe, 5, Slots(2, 1.0, 0.0), checkpoint, 0.0)
    return told, result


def test_a_full_training_is_carried_on_from_a_checkpoint_to_the_same_weights(space, run):
    architecture = Pretended(space, run).search.propose("a")["architecture"]
    told, whole = full_training(space, architecture, None)
    assert [message["epoch"] for message in told] == [1, 2, 3, 4, 5, 6]
    rest, carried_on = full_training(space, architecture, told[3]["checkpoint"])
    assert [message["epoch"] for message in rest] == [5, 6]
    for name, weights in whole["weights"].items():
        assert np.array_equal(carried_on["weights"][name], weights)
    assert {**carried_on, "seconds": 0, "weights": 0} == {**whole, "seconds": 0, "weights": 0}


@pytest.mark.parametrize("damage", [lambda data: data[:5], lambda data: data[:-1] + b"!", lambda data: b""])
def test_a_damaged_checkpoint_is_found_out_and_the_one_before_is_used(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for epoch in (8, 9, 10):
        checkpoints.save("key", epoch, f"state {epoch}".encode())
    checkpoints.save("other", 1, b"state of another")
    assert checkpoints.load("key") == b"state 10"
    newest = next(path for path in checkpoints._folder.iterdir() if ".00010." in path.name)
    newest.write_bytes(damage(newest.read_bytes()))
    assert checkpoints.load("key") == b"state 9"
    assert not newest.exists()
    checkpoints.drop("key")
    assert checkpoints.load("key") is None
    assert checkpoints.load("other") == b"state of another"


def test_a_network_too_big_is_refused_before_it_is_built(space, run, monkeypatch):
    monkeypatch.setattr(processes, "build_seeded", None)
    worker = make_worker(space, Pretended(space, run).search.propose("a"))
    worker._slots = Slots(2, 1.0, 0.0, memory=10_000)
    result = worker.step()
    assert result["done"]
    assert result["failure"].startswith("out of memory: a step with 32 images needs about ")
    assert result["failure"].endswith("but a trial may use 10.0 kB")


# Failures.


@pytest.mark.parametrize(
    "reasons",
    [
        [
            f"training loss is {loss} in epoch {epoch}"
            for epoch, loss in enumerate(("nan", "inf", "nan", "-inf", "nan"), 1)
        ],
        [
            f"out of memory: a step with 32 images needs about {n}, but"
            for n in ("1 GB", "1.5 GB", "9 MB", "77 kB", "8 B")
        ],
    ],
)
def test_one_cause_may_have_other_figures(space, run, reasons):
    pretended = Pretended(space, run, trials=20)
    for number, reason in enumerate(reasons):
        assert pretended.search.failure is None
        pretended.search.propose(str(number))
        pretended.search.finish(str(number), {"failure": reason})
    pretended.close()
    assert pretended.search.failure == f"5 trials in a row failed for one reason: {reasons[-1]}"


def test_five_causes_are_not_one(space, run):
    pretended = Pretended(space, run, trials=20)
    for number, reason in enumerate("abcde"):
        pretended.search.propose(str(number))
        pretended.search.finish(str(number), {"failure": reason})
    pretended.close()
    assert pretended.search.failure is None


# Resuming.


def test_what_was_not_finished_is_finished_first(space, run):
    first = Pretended(space, run, trials=8)
    configs = [first.search.propose(str(n)) for n in range(5)]
    for n in (3, 1):
        first.train(str(n), configs[n])
    second = Pretended(space, run, trials=8)  # the first was killed: nothing was closed
    again = [second.search.propose(str(n)) for n in range(3)]
    assert again == [configs[0], configs[2], configs[4]]
    for n in range(3):
        second.train(str(n), again[n])
    records = second.run()
    assert sorted(r["trial"] for r in records) == list(range(8))
    assert len({r["fingerprint"] for r in records}) == 8
    assert [r["finished"] for r in records] == sorted(r["finished"] for r in records)


def test_a_clock_that_is_set_back_does_not_disturb_the_order(space, run, monkeypatch):
    years = iter(range(2030, 1930, -1))
    monkeypatch.setattr(trial, "now", lambda: f"{next(years)}-01-01T00:00:00+00:00")
    Pretended(space, run, trials=4).run()
    records = Pretended(space, run, trials=8).run()
    assert [r["sequence"] for r in records] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [r["trial"] for r in records] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [r["finished"] for r in records] == sorted(r["finished"] for r in records)
    assert all(r["finished"] >= r["started"] for r in records)


def test_a_full_disk_stops_the_search_and_room_lets_it_go_on(space, run, monkeypatch):
    first = Pretended(space, run, trials=8)
    configs = [first.search.propose(str(n)) for n in range(3)]
    first.train("0", configs[0])

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "append", no_space)
        first.train("1", configs[1])
        assert first.search.failure == f"{run.trials_file} can't be written: No space left on device"
        assert first.search.propose("3") is None
        assert first.search.over
    first.close()
    records = Pretended(space, run, trials=8).run()
    assert sorted(r["trial"] for r in records) == list(range(8))


def test_a_full_disk_at_a_proposal_stops_the_search(space, run, monkeypatch):
    first = Pretended(space, run, trials=8)

    with monkeypatch.context() as patched:
        patched.setattr(first.proposed, "append", no_space)
        assert first.search.propose("0") is None
    assert first.search.failure == f"{run.proposals_file} can't be written: No space left on device"
    first.close()
    assert len(Pretended(space, run, trials=8).run()) == 8


def test_a_run_in_use_is_refused_naming_the_holder(run):
    with lock(run.folder), pytest.raises(RunDirectoryError, match=r"in use by process \d+"):
        run_search(resume=run.folder)


def test_a_damaged_ledger_is_refused_with_the_line_and_repaired_on_request(space, run):
    Pretended(space, run, trials=4).run()
    lines = run.trials_file.read_bytes().splitlines(keepends=True)
    run.trials_file.write_bytes(b"".join([lines[0], lines[1].replace(b"COMPLETE", b"COMPLETF"), *lines[2:]]))
    with pytest.raises(RunDirectoryError, match=r"trials.jsonl:2: damaged line"):
        run_search(resume=run.folder, trials=3)
    with pytest.warns(LedgerWarning, match="kept 3 records and dropped 1"):
        run_search(resume=run.folder, trials=3, repair=True)
    assert [r["trial"] for r in run.records] == [0, 2, 3]
    records = Pretended(space, run, trials=4).run()  # what was damaged is trained again
    assert sorted(r["trial"] for r in records) == [0, 1, 2, 3]


def test_a_torn_last_line_is_cut_off_with_a_warning(space, run):
    Pretended(space, run, trials=4).run()
    with run.trials_file.open("ab") as file:
        file.write(b'{"sequence":5,"tri')
    with pytest.warns(LedgerWarning, match="cut off an unfinished last line"):
        run_search(resume=run.folder, trials=4)
    assert len(run.records) == 4


# Optuna's study.


def test_the_study_tells_what_runs_waits_and_has_ended(space, run):
    first = Pretended(space, run, trials=8)
    configs = [first.search.propose(str(n)) for n in range(3)]
    write_study(run.folder, space, first.ledger.records, first.search._unfinished)
    assert states_in_study(run) == {0: "RUNNING", 1: "RUNNING", 2: "RUNNING"}
    first.train("1", configs[1])
    first.search.finish("2", {"failure": "training loss is nan in epoch 1"})
    first.search.interrupt()
    first.close()
    assert states_in_study(run) == {0: "WAITING", 1: "COMPLETE", 2: "FAIL"}
    Pretended(space, run, trials=3).run()
    assert states_in_study(run) == {0: "COMPLETE", 1: "COMPLETE", 2: "FAIL"}


@pytest.mark.parametrize("harm", ["deleted", "garbage", "of another run"])
def test_losing_the_study_costs_nothing(space, run, tmp_path, harm):
    Pretended(space, run, trials=4).run()
    study = run.folder / "optuna.db"
    before = states_in_study(run)
    if harm == "deleted":
        study.unlink()
    elif harm == "garbage":
        study.write_bytes(b"no database" * 1000)
    else:
        (tmp_path / "more").mkdir()
        other = new_run(space, tmp_path / "more", trials=5, seed=9)
        Pretended(space, other, trials=5, seed=9).run()
        shutil.copy(other.folder / "optuna.db", study)
    run_search(resume=run.folder, trials=4)
    assert states_in_study(run) == before
    loaded = optuna.load_study(study_name=run.folder.name, storage=f"sqlite:///{study}")
    assert sorted(t.values[1] for t in loaded.trials) == sorted(r["parameters"] for r in run.records)
    loaded._storage.remove_session()


# Other spaces.


def test_an_edited_space_is_refused_with_what_differs(space, run, space_file):
    edited = other_space(space_file, "{choice: [3, 4, 6]}", "{choice: [3, 4, 8]}")
    with pytest.raises(RunDirectoryError) as refused:
        prepare(edited, resume=run.folder, settings={})
    text = str(refused.value)
    assert "--extend" in text
    assert "architecture.width: {'choice': [3, 4, 6]} -> {'choice': [3, 4, 8]}" in text
    assert "depth" not in text


def test_the_same_space_and_other_budgets_are_no_edit(space, run, space_file):
    same = other_space(space_file, "trials: 4", "trials: 40")
    task = prepare(same, resume=run.folder, settings={})
    assert (task.replaced, task.settings.trials) == (None, 40)
    run.set_space(task.space)
    assert run.space_file.read_text() == same.read_text()


def test_a_space_edited_in_the_run_directory_is_refused_with_what_differs(run):
    run.space_file.write_text(run.space_file.read_text().replace("{choice: [3, 4, 6]}", "{choice: [3, 4]}"))
    with pytest.raises(RunDirectoryError) as refused:
        prepare(resume=run.folder, settings={})
    text = str(refused.value)
    assert "--extend" in text
    assert "architecture.width: {'choice': [3, 4, 6]} -> {'choice': [3, 4]}" in text


def test_a_space_cut_short_in_the_run_directory_is_refused(run):
    text = run.space_file.read_text()
    run.space_file.write_text(text[: text.index("  regulators")])  # still a valid space
    with pytest.raises(RunDirectoryError, match=r"architecture.regulators: .* -> "):
        prepare(resume=run.folder, settings={})


def test_budgets_and_comments_may_be_edited_in_the_run_directory(run):
    text = run.space_file.read_text().replace("trials: 4", "trials: 40")
    run.space_file.write_text(f"# as we like it\n{text}")
    assert prepare(resume=run.folder, settings={}).settings.trials == 40


def test_what_was_given_last_counts(run):
    """A budget in the file, one on the command line, the file edited again."""
    for trials, given in ((40, None), (40, 52), (30, None)):
        run.space_file.write_text(TINY.replace("trials: 4", f"trials: {trials}"))
        task = prepare(resume=run.folder, settings={"trials": given})
        assert task.settings.trials == (given or trials)
        run.set_space(task.space)
        run.set_environment(**task.settings.model_dump(mode="json"))
        assert prepare(resume=run.folder, settings={}).settings.trials == (given or trials)


def test_a_time_budget_can_be_lifted_in_the_file(run):
    run.space_file.write_text(TINY.replace("trials: 4", "time_budget: 1s, trials: 4"))
    task = prepare(resume=run.folder, settings={})
    run.set_space(task.space)
    run.set_environment(**task.settings.model_dump(mode="json"))
    assert prepare(resume=run.folder, settings={}).settings.time_budget == 1
    run.space_file.write_text(TINY)
    assert prepare(resume=run.folder, settings={}).settings.time_budget is None


def test_an_extension_brings_its_budgets(run, space_file):
    wider = space_file(TINY.replace("[3, 4, 6]", "[3, 4, 6, 8]").replace("trials: 4", "trials: 40"), "wider.yaml")
    assert prepare(wider, resume=run.folder, extend=True, settings={}).settings.trials == 40


def test_what_another_file_leaves_out_stays(run, space_file):
    run.set_environment(trials=200, sampler="random")
    text = TINY.replace("[3, 4, 6]", "[3, 4, 6, 8]").replace(
        "search: {trials: 4, concurrency: 1, seed: 3, sampler: tpe}", ""
    )
    assert "search:" not in text
    wider = space_file(text, "wider.yaml")
    settings = prepare(wider, resume=run.folder, extend=True, settings={}).settings
    assert (settings.trials, settings.sampler, settings.seed) == (200, "random", 3)


def test_a_seed_edited_in_the_file_is_refused(run):
    run.space_file.write_text(TINY.replace("seed: 3", "seed: 4"))
    with pytest.raises(RunDirectoryError, match="keeps its seed 3, but got 4"):
        prepare(resume=run.folder, settings={})


def test_references_edited_in_the_file_are_shown(run):
    run.space_file.write_text(TINY + "references: [{name: mine, parameters: 1k, accuracy: 0.5}]\n")
    run.set_space(prepare(resume=run.folder, settings={}).space)
    assert run.environment["references"] == [{"name": "mine", "parameters": 1000, "accuracy": 0.5}]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [("epochs: 2", "epochs: 3", "recipe.epochs: 2 -> 3"), ("subset: 300", "subset: 200", "data.subset: 300 -> 200")],
)
def test_an_extension_keeps_data_and_recipe(run, space_file, old, new, named):
    with pytest.raises(RunDirectoryError, match=named):
        prepare(other_space(space_file, old, new), resume=run.folder, extend=True, settings={})


def extended(run: RunDirectory, edited: Path, trials: int) -> SearchSpace:
    """The space of a run after an extension; nothing is trained."""
    run_search(edited, resume=run.folder, extend=True, trials=trials)
    return run.space


def test_a_wider_space_keeps_all_trials(space, run, space_file, capsys):
    before = Pretended(space, run, trials=6).run()
    edited = other_space(space_file, "{choice: [3, 4, 6]}", "{choice: [3, 4, 6, 7]}")
    wider = extended(run, edited, trials=6)
    assert run.records == before
    assert run.environment["space"]["networks"] > 0
    assert run.space_file.read_text() == edited.read_text()
    records = Pretended(wider, run, trials=12).run()
    assert records[:6] == before
    assert len({r["fingerprint"] for r in records}) == 12
    assert set(states_in_study(run).values()) == {"COMPLETE"}


def test_what_was_fixed_may_become_free(space_file, tmp_path):
    narrow = SearchSpace.from_yaml(space_file(TINY.replace("{choice: [3, 4, 6]}", "4")))
    run = new_run(narrow, tmp_path)
    before = Pretended(narrow, run, trials=5).run()
    wider = extended(run, space_file(TINY, "wide.yaml"), trials=5)
    records = run.records
    assert [r["fingerprint"] for r in records] == [r["fingerprint"] for r in before]
    assert all(r["choices"]["width"] == 4 for r in records)
    assert all(wider.replay(r["choices"])[0].fingerprint == r["fingerprint"] for r in records)
    Pretended(wider, run, trials=7).run()


def test_trials_that_do_not_fit_leave_and_are_kept_aside(space, run, space_file):
    before = Pretended(space, run, trials=8).run()
    edited = other_space(space_file, "{choice: [3, 4, 6]}", "{choice: [4, 5]}")
    narrower = extended(run, edited, trials=1)
    kept = [r["trial"] for r in before if r["choices"]["width"] == 4]
    assert 0 < len(kept) < 8
    assert [r["trial"] for r in run.records] == kept
    assert (run.folder / "trials.jsonl.before-1").read_text().count("\n") == 8
    assert all(narrower.meets_constraints(narrower.replay(r["choices"])[0]) for r in run.records)
    records = Pretended(narrower, run, trials=9).run()
    assert [r["trial"] for r in front_of(records)]


def test_an_extension_leaves_out_full_trainings_too(space, run, space_file):
    """Numbers of trials that left are given out again: what is known of a network goes by its fingerprint."""
    before = Pretended(space, run, trials=8).run()
    with Ledger.open(run.retrained_file) as ledger:
        for record in before:
            network = {name: record[name] for name in record if name not in ("sequence", "check", "state", "choices")}
            ledger.append({**network, "seed": 0, "test_accuracy": 0.5 + record["trial"] / 100, "recipe": {}})
    write_tensorboard(run.folder, run.records)
    extended(run, other_space(space_file, "{choice: [3, 4, 6]}", "{choice: [4, 5]}"), trials=1)
    kept = {r["fingerprint"]: r["trial"] for r in run.records}
    assert {network.fingerprint for network in run.networks} == set(kept)
    assert len(read_ledger(run.folder / "retrained.jsonl.before-1")) == 8
    assert len(list((run.folder / "tensorboard").iterdir())) == len(kept)
    Pretended(run.space, run, trials=9).run()
    assert len({r["trial"] for r in run.records}) == 9
    write_tables(run.folder, run.records, run.networks)
    rows = pd.read_csv(run.folder / "front.csv").set_index("fingerprint")
    tested = {fingerprint: 0.5 + kept[fingerprint] / 100 for fingerprint in kept if fingerprint in rows.index}
    assert rows["test_accuracy"].dropna().to_dict() == pytest.approx(tested)


def test_the_page_on_run_directories_has_every_file_of_an_extended_run(space, run, space_file):
    Pretended(space, run, trials=8).run()
    extended(run, other_space(space_file, "{choice: [3, 4, 6]}", "{choice: [4, 5]}"), trials=1)
    page = (Path(__file__).parents[2] / "results" / "README.md").read_text(encoding="utf-8")
    described = re.findall(r"`([\w.*/-]+?)/?`", page)
    assert [path.name for path in run.folder.iterdir() if not any(map(path.match, described))] == []


@pytest.mark.parametrize("arguments", [{"extend": True}, {"repair": True}])
def test_only_a_resumed_run_is_extended_or_repaired(space, arguments):
    with pytest.raises(InputError, match="only a run directory that is resumed"):
        prepare(space, settings={}, **arguments)


# Replaying.


def test_a_search_of_several_sessions_can_be_replayed(space, run, capsys):
    first = Pretended(space, run, trials=12)
    configs = {str(n): first.search.propose(str(n)) for n in range(3)}
    for key in ("1", "0"):
        first.train(key, configs[key])
        configs[f"{key}+"] = first.search.propose(f"{key}+")
    first.train("2", configs["2"])
    Pretended(space, run, trials=14).run()  # the first was killed with two trials running
    assert replay(run) == (14, 0, None)
    with pytest.raises(SystemExit) as ended:
        replay_command([str(run.folder)])
    assert ended.value.code == 0
    assert "14 proposals confirmed" in capsys.readouterr().out


def test_a_replay_says_where_it_departs(space, run, capsys):
    Pretended(space, run, trials=8).run()
    with Ledger.open(run.proposals_file) as proposals:
        lines = [dict(line) for line in proposals.records]
        lines[5]["fingerprint"] = "0" * 16
        proposals.rewrite(lines)
    confirmed, _, departure = replay(run)
    assert confirmed == 5
    assert departure.startswith("trial 5: recorded is network 0000000000000000, but the sampler proposes ")
    with pytest.raises(SystemExit) as ended:
        replay_command([str(run.folder)])
    assert ended.value.code == 1
    assert "departs at trial 5" in capsys.readouterr().out


def test_a_ledger_that_lacks_lines_is_told_by_a_replay(space, run):
    Pretended(space, run, trials=8).run()
    lines = run.trials_file.read_bytes().splitlines(keepends=True)
    run.trials_file.write_bytes(b"".join([*lines[:3], *lines[4:]]))
    with pytest.raises(RunDirectoryError, match="lines are missing"):
        replay(run)


@pytest.mark.parametrize("left", [0, 2])
def test_a_ledger_that_lost_its_end_is_not_silently_begun_anew(space, run, left):
    """Cut at the end of a line, emptied or deleted, it looks whole: the proposals tell that more trials had ended."""
    Pretended(space, run, trials=6).run()
    lines = run.trials_file.read_bytes().splitlines(keepends=True)
    run.trials_file.write_bytes(b"".join(lines[:left]))
    if not left:
        run.trials_file.unlink()
    message = rf"must have the 5 trials that proposals.jsonl knows to have ended, but has {left}; .*--repair"
    with pytest.raises(RunDirectoryError, match=message):
        run_search(resume=run.folder)
    with pytest.raises(RunDirectoryError, match=message):
        replay(run)
    if left:
        run_search(resume=run.folder, trials=left, repair=True)
        run_search(resume=run.folder, trials=left)  # it is told once
        assert len(Pretended(space, run, trials=6).run()) == 6


@pytest.mark.parametrize(("name", "other"), [("trials", "proposals"), ("proposals", "trials"), ("retrained", "trials")])
def test_the_lines_of_another_ledger_are_refused(space, run, name, other):
    Pretended(space, run, trials=2).run()
    shutil.copy(run.folder / f"{other}.jsonl", run.folder / f"{name}.jsonl")
    with pytest.raises(RunDirectoryError, match=rf"{name}.jsonl:1: .* a record of this ledger must have .*, but lacks"):
        getattr(run, "records" if name == "trials" else name)
    with pytest.raises(RunDirectoryError, match=rf"{name}.jsonl:1: "):
        retrain(run) if name == "retrained" else run_search(resume=run.folder)


def test_a_command_tells_a_warning_in_one_line(tmp_path):
    path = tmp_path / "trials.jsonl"
    path.write_bytes(b'{"sequence":1,"tri')
    code = (
        "import pathlib, sys\n"
        "from dacnn_search.common.command import command\n"
        "from dacnn_search.storage.ledger import Ledger\n"
        f"command()(lambda: Ledger.open(pathlib.Path({str(path)!r})).close())([])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == f"warning: {path}:1: cut off an unfinished last line\n"


HOSTILE = {
    "empty": b"",
    "zeros": bytes(500),
    "deep": b"[" * 100_000,
    "list": b"[]",
    "not UTF-8": b'\xff{"format": 1}',
    "huge": b'{"format": ' + b"9" * 10_000 + b"}",
    "versions": b'{"format": 2, "versions": "x"}',
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("command", [run_command, replay_command, dashboard_command, export_command])
def test_a_hostile_environment_is_refused_by_every_command(run, capsys, command, kind):
    if kind == "versions" and command is dashboard_command:
        pytest.skip("a dashboard shows what it knows of a later format")
    run.environment_file.write_bytes(HOSTILE[kind])
    Ledger.open(run.trials_file).close()
    with pytest.raises(SystemExit) as ended:
        command(["--resume", str(run.folder)] if command is run_command else [str(run.folder)])
    assert ended.value.code == 2
    assert str(run.folder) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("data", "input_shape", "abc"),
        ("data", "input_shape", [1, 8]),
        ("data", "num_classes", 0),
        ("data", "num_classes", True),
        ("space", "least", None),
        ("space", "most", "9"),
    ],
)
def test_an_environment_that_says_what_cannot_be_is_refused(space, run, part, key, value):
    Pretended(space, run, trials=1).run()
    values = json.loads(run.environment_file.read_text())
    values[part][key] = value
    run.environment_file.write_text(json.dumps(values))
    for read in (RunDirectory, write_dashboard):
        with pytest.raises(RunDirectoryError, match=rf"environment.json: {part} must have {key}, "):
            read(run.folder)


@pytest.mark.parametrize("part", ["data", "space"])
def test_an_environment_without_what_is_needed_is_refused(run, part):
    values = json.loads(run.environment_file.read_text())
    del values[part]
    run.environment_file.write_text(json.dumps(values))
    with pytest.raises(RunDirectoryError, match=rf"environment.json: {part} must have"):
        RunDirectory(run.folder)


def test_an_empty_ledger_is_filled_again_with_the_same_networks(space, run):
    before = Pretended(space, run, trials=6).run()
    run.trials_file.write_bytes(b"")
    records = Pretended(space, run, trials=6).run()
    assert {(r["trial"], r["fingerprint"]) for r in records} == {(r["trial"], r["fingerprint"]) for r in before}
    assert set(states_in_study(run).values()) == {"COMPLETE"}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], r"trials.jsonl:3: damaged line: sequence must grow"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], r"trials.jsonl:2: damaged line: sequence must grow"),
        (lambda lines: [line.replace(b"\n", b"\r\n") for line in lines], r"trials.jsonl:1: damaged line .and 3 more"),
        (lambda lines: [*lines[:2], bytes(100) + b"\n", *lines[2:]], r"trials.jsonl:3: damaged line"),
        (lambda lines: [*lines, b"\xff\xfe\n"], r"trials.jsonl:5: damaged line"),
    ],
)
def test_a_ledger_that_was_tampered_with_is_refused_and_repaired(space, run, harm, message):
    before = Pretended(space, run, trials=4).run()
    run.trials_file.write_bytes(b"".join(harm(run.trials_file.read_bytes().splitlines(keepends=True))))
    with pytest.raises(RunDirectoryError, match=message):
        run_search(resume=run.folder, trials=4)
    with pytest.warns(LedgerWarning):
        run_search(resume=run.folder, trials=1, repair=True)
    assert all(record in before for record in run.records)
    records = Pretended(space, run, trials=4).run()
    assert sorted(r["trial"] for r in records) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["checkpoints", "optuna.db", "trials.csv", "dashboard.html", "status.json"])
def test_a_file_where_a_folder_should_be_or_the_reverse(space, run, name):
    path = run.folder / name
    if name == "checkpoints":
        path.write_bytes(b"")
    else:
        path.mkdir()
    pretended = Pretended(space, run, trials=2)
    pretended.search.propose("a")
    pretended.search.progress("a", {"epochs": []}, b"state")
    if name == "checkpoints":  # without them a long trial could not be carried on
        assert pretended.search.failure == f"{run.checkpoints} can't be written: File exists"
        path.unlink()
    pretended.close()
    assert len(Pretended(space, run, trials=2).run()) == 2


# Other versions.


def test_a_run_of_the_first_format_is_read_and_resumed(tmp_path):
    folder = tmp_path / "run-format-1"
    shutil.copytree(OLD_RUN, folder)
    run = RunDirectory(folder)
    assert [r["trial"] for r in run.records] == [1, 0, 2, 3]
    assert [r["state"] for r in run.records] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert len(run.front) > 0
    assert run.networks[0].accuracy == run.retrained[0]["test_accuracy"]
    records = Pretended(run.space, run, trials=6).run()
    assert [r["trial"] for r in records] == [1, 0, 2, 3, 4, 5]


@pytest.mark.parametrize("version", [2, "1", None, 0])
def test_a_later_format_is_refused_by_name(run, version):
    values = {**json.loads(run.environment_file.read_text()), "format": version}
    values["versions"]["dacnn-search"] = "9.9"
    run.environment_file.write_text(json.dumps(values))
    with pytest.raises(RunDirectoryError, match=r"format must be 1 to 1, but is .*dacnn-search 9.9"):
        RunDirectory(run.folder)
