"""Full trainings with a teacher: who teaches, in which order, and what is done again. Mostly without Ray."""

import json
import math
import shutil
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch

from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.common.files import sha256_of
from dacnn_search.common.interrupt import Interrupted
from dacnn_search.data.dataset import load
from dacnn_search.export.best import write_best
from dacnn_search.export.folder import read_metrics
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.search.cluster.ray_cluster import RaySession
from dacnn_search.search.cluster.slots import Machine, Resources, demand_of, pack
from dacnn_search.search.cluster.tasks import train_fully
from dacnn_search.search.listener import Listener
from dacnn_search.search.retrain import retrain, retrain_in_session
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.training.recipe import Recipe

SPACE = """\
name: taught
data: {name: digits, validation: 0.3, subset: 300}
architecture:
  sections: 1
  depth: {range: {low: 1, high: 4}}
  width: {choice: [3, 4, 6]}
recipe: {epochs: 2, precision: float32}
search: {concurrency: 1}
retrain: {top: 4, recipe: {epochs: 3, distillation: 0.7, precision: float32}}
"""
NETWORKS = [Architecture((Section(depth, width),)) for depth, width in ((1, 3), (2, 3), (1, 6))]
SMALL, MIDDLE, TEACHER = (network.fingerprint for network in NETWORKS)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> RunDirectory:
    """A run with a front of three networks, none of them trained."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "space.yaml").write_text(SPACE)
    space = SearchSpace.from_yaml(folder / "space.yaml")
    run = RunDirectory.create(folder, None, space, [str(n) for n in range(10)], {"seed": 0, "concurrency": 1})
    for trial, network in enumerate(NETWORKS):
        add_trial(run, trial, network)
    return run


@pytest.fixture
def run(searched, tmp_path) -> RunDirectory:
    return RunDirectory(shutil.copytree(searched.folder, tmp_path / "taught"))


@pytest.fixture(scope="module")
def taught(searched, tmp_path_factory) -> RunDirectory:
    """The same after its trainings."""
    run = RunDirectory(shutil.copytree(searched.folder, tmp_path_factory.mktemp("taught") / "taught"))
    with pytest.MonkeyPatch.context() as patch:
        retrain_here(run, patch)
    return run


@pytest.fixture
def taught_copy(taught, tmp_path) -> RunDirectory:
    return RunDirectory(shutil.copytree(taught.folder, tmp_path / "copy"))


def add_trial(run: RunDirectory, trial: int, network: Architecture) -> None:
    """Note a trial that is more accurate than those before it."""
    cost = run.space.cost(network)
    record = {"trial": trial, "fingerprint": network.fingerprint, "architecture": network.to_dict()}
    record |= {name: getattr(cost, name) for name in ("parameters", "macs", "flash", "ram")}
    record |= {"accuracy": 0.5 + trial / 100, "state": "COMPLETE", "epochs": 2, "seconds": 1.0, "choices": {}}
    with Ledger.open(run.trials_file) as ledger:
        ledger.append({**record, "finished": 1.0, "curve": {}})


class Session:
    """Stands for Ray: values stay where they are, and trainings run in this process."""

    def slots(self, demand):
        return pack(Machine(1, 0, 2**33), demand)

    def share(self, value):
        return value


class Diary(Listener):
    def __init__(self) -> None:
        self.trained: list[tuple[str, int]] = []
        self.said: list[str] = []
        self.counts: list[tuple[int, int]] = []

    def retrained(self, record):
        self.trained.append((record["fingerprint"], record["seed"]))

    def say(self, text):
        self.said.append(text)

    def update(self, snapshot):
        self.counts.append((snapshot.retraining["finished"], snapshot.retraining["trainings"]))


def retrain_here(run, monkeypatch, *, broken=(), interrupted=None, **settings) -> Diary:
    """Retrain in this process. `broken` are networks whose training breaks; `interrupted`, a network and an epoch, is
    where a signal ends all. Each epoch gives a checkpoint."""

    def run_here(jobs, handler, work, slots, stop):
        for job in jobs:
            for message in work(*handler.arguments(job)):
                if "epoch" not in message:
                    handler.finished(job, message)
                elif job.key[0] in broken:
                    handler.failed(job, "the loss is nan")
                    break
                else:
                    handler.progressed(job, message)
                    if (job.key[0], message["epoch"]) == interrupted:
                        raise KeyboardInterrupt

    module, diary = sys.modules["dacnn_search.search.retrain"], Diary()
    monkeypatch.setattr(module, "run_tasks", run_here)
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
    retrain_in_session(run, Session(), listener=diary, **settings)
    return diary


def weights_of(run: RunDirectory, fingerprint: str, seed: int = 0) -> bytes:
    return run.weights_file(fingerprint, seed).read_bytes()


def teachers(run: RunDirectory) -> dict[tuple[str, int], str | None]:
    return {(record["fingerprint"], record["seed"]): record["teacher"] for record in run.retrained}


def test_the_most_accurate_network_is_trained_first_and_teaches_the_others(run, monkeypatch):
    diary = retrain_here(run, monkeypatch, seeds=2)
    assert diary.trained[:2] == [(TEACHER, 0), (TEACHER, 1)]
    assert sorted(diary.trained[2:]) == sorted((network, seed) for network in (SMALL, MIDDLE) for seed in (0, 1))
    assert teachers(run) == {key: None if key[0] == TEACHER else TEACHER for key in diary.trained}
    assert diary.counts[0] == (0, 6)
    assert diary.counts[-1] == (6, 6)
    assert retrain_here(run, monkeypatch, seeds=2).trained == []


def test_a_student_is_taught_by_the_weights_that_are_stored(taught):
    data = load(taught.space.settings.data).with_validation_in_train()
    lesson = {
        "architecture": NETWORKS[2].to_dict(),
        "weights": safetensors.numpy.load(weights_of(taught, TEACHER)),
    }
    recipe = Recipe(epochs=3, distillation=0.7, precision="float32")
    slots = Session().slots(demand_of(NETWORKS[:1], data.input_shape, data.num_classes, recipe))
    results = []
    for teacher in (lesson, None):
        *_, result = train_fully(data, NETWORKS[0].to_dict(), recipe, 0, slots, None, math.inf, teacher)
        results.append(result["weights"]["classifier.weight"])
    stored = safetensors.numpy.load(weights_of(taught, SMALL))["classifier.weight"]
    assert np.array_equal(stored, results[0])
    assert not np.allclose(stored, results[1], atol=1e-3)


def test_without_distillation_nobody_teaches(run, monkeypatch):
    text = run.space_file.read_text().replace("distillation: 0.7", "distillation: 0.0")
    run.space_file.write_text(text)
    diary = retrain_here(run, monkeypatch)
    by_work = sorted(NETWORKS, key=lambda network: -run.space.cost(network).macs)
    assert diary.trained == [(network.fingerprint, 0) for network in by_work]
    assert set(teachers(run).values()) == {None}


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        ([SMALL], [SMALL]),
        ([TEACHER], [TEACHER]),
        ([SMALL, TEACHER], [TEACHER, SMALL]),
    ],
)
@pytest.mark.parametrize("top", [4, 0])
def test_lost_weights_are_trained_again_to_the_same_bytes(taught_copy, monkeypatch, lost, again, top):
    """Also where no network is chosen: then only what is lost, and the teacher if it is needed."""
    before = {fingerprint: weights_of(taught_copy, fingerprint) for fingerprint in lost}
    for fingerprint in lost:
        taught_copy.weights_file(fingerprint, 0).write_bytes(b"damaged")
    diary = retrain_here(taught_copy, monkeypatch, top=top)
    assert diary.trained == [(fingerprint, 0) for fingerprint in again]
    assert {fingerprint: weights_of(taught_copy, fingerprint) for fingerprint in lost} == before
    assert teachers(taught_copy) == {(SMALL, 0): TEACHER, (MIDDLE, 0): TEACHER, (TEACHER, 0): None}


def test_a_teacher_that_is_not_chosen_is_trained_if_it_is_needed(taught_copy, monkeypatch):
    """A student's weights are lost, and those of the teacher are of a training by another recipe."""
    text = taught_copy.space_file.read_text().replace("distillation: 0.7", "distillation: 0.6")
    taught_copy.space_file.write_text(text)
    taught_copy.weights_file(SMALL, 0).unlink()
    assert retrain_here(taught_copy, monkeypatch, top=0).trained == [(TEACHER, 0), (SMALL, 0)]


def test_budgets_choose_the_most_accurate_network_within_each(run, monkeypatch):
    """Two budgets that hold the same network count once, one that holds none is told; `top` goes before them."""
    small, middle = (run.space.cost(network).parameters for network in NETWORKS[:2])
    text = run.space_file.read_text().replace("top: 4", f"top: 0, budgets: [{middle + 1}, {middle}, {small - 1}]")
    run.space_file.write_text(text.replace("choice: [3", "choice: [2, 3"))
    diary = retrain_here(run, monkeypatch)
    assert diary.trained == [(TEACHER, 0), (MIDDLE, 0)]
    told = f"no network of the front has at most {small - 1:,} parameters: the smallest has {small:,}"
    assert diary.said[0] == told
    assert set(retrain_here(run, monkeypatch, top=3).trained) == {(SMALL, 0)}


def test_what_is_done_stays_where_the_front_has_another_most_accurate_network(taught_copy, monkeypatch):
    before = taught_copy.retrained
    new = [Architecture((Section(depth, 6),)) for depth in (2, 3)]
    for trial, network in enumerate(new, start=3):
        add_trial(taught_copy, trial, network)
    last = taught_copy.front[-1]["fingerprint"]
    (other,) = {network.fingerprint for network in new} - {last}
    assert retrain_here(taught_copy, monkeypatch, top=5).trained == [(last, 0), (other, 0)]
    assert taught_copy.retrained[:3] == before
    assert teachers(taught_copy)[last, 0] is None
    assert teachers(taught_copy)[other, 0] == last


def test_if_the_teacher_breaks_the_others_wait_for_another_attempt(run, monkeypatch):
    """They are not trained without it, or they would count as done and never be taught."""
    with pytest.raises(DacnnSearchError, match="trial 2 broke: the loss is nan; it is the teacher of the others: to"):
        retrain_here(run, monkeypatch, broken=[TEACHER])
    assert json.loads(run.status_file.read_text())["state"] == "failed"
    retrain_here(run, monkeypatch)
    assert teachers(run) == {(TEACHER, 0): None, (SMALL, 0): TEACHER, (MIDDLE, 0): TEACHER}


def test_a_recipe_that_comes_back_trains_what_another_replaced(run, monkeypatch):
    """The weights of a network are of one recipe: a seed whose record counts no more is trained again."""
    retrain_here(run, monkeypatch, top=1, seeds=2)
    retrain_here(run, monkeypatch, top=1, epochs=1)
    retrain_here(run, monkeypatch, top=1, seeds=2)
    (network,) = run.networks
    assert [(record["seed"], record["epochs"]) for record in network.records] == [(0, 3), (1, 3)]


def test_a_retraining_goes_on_where_it_was_interrupted(run, taught, monkeypatch):
    with pytest.raises(Interrupted):
        retrain_here(run, monkeypatch, interrupted=(TEACHER, 2))
    with pytest.raises(Interrupted):
        retrain_here(run, monkeypatch, interrupted=(SMALL, 1))
    assert run.retrained[0]["fingerprint"] == TEACHER
    assert len([path for path in run.checkpoints.iterdir() if path.name.startswith(SMALL)]) == 1
    retrain_here(run, monkeypatch)
    for fingerprint in (SMALL, MIDDLE, TEACHER):
        assert weights_of(run, fingerprint) == weights_of(taught, fingerprint)
    assert not run.checkpoints.exists()


def test_a_checkpoint_is_of_one_teacher(run, monkeypatch):
    """A student that was interrupted does not go on with what another teacher's weights began."""
    with pytest.raises(Interrupted):
        retrain_here(run, monkeypatch, interrupted=(SMALL, 1))
    add_trial(run, 3, Architecture((Section(2, 6),)))
    begun = []
    monkeypatch.setattr(
        "dacnn_search.search.retrain.train_fully",
        lambda *given: begun.append(given[5]) or train_fully(*given),
    )
    retrain_here(run, monkeypatch)
    assert begun
    assert not any(begun)
    assert not run.checkpoints.exists()


def test_metrics_and_card_say_who_taught(taught_copy):
    for folder in write_best(taught_copy):
        metrics, card = read_metrics(folder), (folder / "README.md").read_text()
        is_taught = metrics["fingerprint"] != TEACHER
        assert metrics["training"]["teacher"] == (TEACHER if is_taught else None)
        assert (f"`{TEACHER}`" in card and "70% of the loss" in card) == is_taught
        assert ("--teacher" in card) == is_taught


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")
def test_a_teacher_teaches_in_rays_workers(run):
    diary = Diary()
    with RaySession(Resources(concurrency=1)) as session:
        session.start()
        records = retrain(run, top=2, listener=diary, concurrency=1)
    assert diary.trained == [(TEACHER, 0), (SMALL, 0)]
    assert [record["teacher"] for record in records] == [None, TEACHER]
    assert all(sha256_of(run.weights_file(r["fingerprint"], 0)) == r["weights_sha256"] for r in records)
