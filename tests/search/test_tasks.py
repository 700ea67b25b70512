"""Trainings as Ray tasks: their messages, and what becomes of those that break or lose their worker."""

import os
import signal
import time

import pytest
import ray

from dacnn_search.common.errors import TrainingError
from dacnn_search.common.interrupt import Stop
from dacnn_search.search.cluster.ray_cluster import RaySession, least_gpu_memory
from dacnn_search.search.cluster.slots import Resources, Slots
from dacnn_search.search.cluster.tasks import ATTEMPTS, run_tasks


@pytest.fixture(scope="module")
def cluster():
    with RaySession(Resources(concurrency=2)) as session:
        session.start()
        yield


class Diary:
    """Handles jobs by noting what it is told."""

    def __init__(self, work):
        self.work = work
        self.told = []

    def arguments(self, job):
        return (job,)

    def run(self, jobs, at_once, stop=None):
        run_tasks(jobs, self, self.work, Slots(at_once, 0.5, 0.0), stop or Stop())

    def progressed(self, job, message):
        self.told.append((job, message))

    def finished(self, job, result):
        self.told.append((job, result))

    def lost(self, job):
        self.told.append((job, "lost"))

    def failed(self, job, reason):
        self.told.append((job, f"failed: {reason}"))

    def of(self, job):
        return [message for other, message in self.told if other == job]


@pytest.fixture
def diary(cluster, tmp_path):
    def work(job):
        """What a job does on a worker, by its name; a file remembers how often it has begun."""
        attempts = tmp_path / job
        attempts.touch()
        attempts.write_text(attempts.read_text() + "x")
        yield {"epoch": 1}
        if job == "lethal" or (job == "unlucky" and attempts.read_text() == "x"):
            os._exit(1)
        if job == "faulty":
            raise ValueError("what went wrong\nand more of it")
        if job == "diverging":
            raise TrainingError("the loss is nan")
        while job == "endless":
            time.sleep(0.1)
        yield {"result": job}

    return Diary(work)


def test_jobs_tell_their_epochs_and_results(diary):
    diary.run(["a", "b", "c"], 2)
    assert len(diary.told) == 6
    assert all(diary.of(job) == [{"epoch": 1}, {"result": job}] for job in "abc")


def test_no_more_jobs_run_at_once_than_may(diary):
    started, arguments = [], diary.arguments
    ended = lambda: sum("result" in message for _, message in diary.told)  # noqa: E731

    def counted(job):
        started.append(job)
        assert len(started) - ended() <= 2
        return arguments(job)

    diary.arguments = counted
    diary.run("abcdef", 2)
    assert started == list("abcdef")


def test_what_lost_its_worker_begins_again(diary):
    diary.run(["unlucky", "a"], 2)
    assert diary.of("unlucky")[-3:] == ["lost", {"epoch": 1}, {"result": "unlucky"}]
    assert diary.of("a")[-1] == {"result": "a"}


@pytest.mark.slow
def test_what_always_loses_its_worker_is_given_up(diary, tmp_path):
    diary.run(["lethal", "a"], 1)
    assert (tmp_path / "lethal").read_text() == "x" * ATTEMPTS
    *lost, failed = [message for message in diary.of("lethal") if message != {"epoch": 1}]
    assert lost == ["lost"] * (ATTEMPTS - 1)
    assert failed.startswith("failed: ")
    assert diary.of("a")[-1] == {"result": "a"}


@pytest.mark.parametrize(
    ("job", "reason"), [("faulty", "ValueError: what went wrong"), ("diverging", "the loss is nan")]
)
def test_what_breaks_is_given_up_at_once_with_its_reason(diary, tmp_path, job, reason):
    diary.run([job], 1)
    assert diary.of(job) == [{"epoch": 1}, f"failed: {reason}"]
    assert (tmp_path / job).read_text() == "x"


def test_a_signal_ends_all(diary):
    stop = Stop()
    told = diary.progressed

    def signalled(job, message):
        told(job, message)
        stop.requested = True

    diary.progressed = signalled
    with pytest.raises(KeyboardInterrupt):
        diary.run(["endless", "a", "b"], 1, stop)
    assert diary.told == [("endless", {"epoch": 1})]


def test_gpu_memory_is_asked_of_the_nodes_that_have_gpus(cluster, monkeypatch):
    """The node of the driver may have none."""
    assert least_gpu_memory(lambda: 5) == 0
    with_gpu = [{**node, "Resources": {**node["Resources"], "GPU": 1.0}} for node in ray.nodes()]
    monkeypatch.setattr(ray, "nodes", lambda: with_gpu)
    assert least_gpu_memory(lambda: os.getpid()) not in (0, os.getpid())


def test_ray_leaves_sigterm_alone(cluster):
    """It would handle it from the start of its own start; an upgrade may move what keeps it from that."""
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_sharing_starts_the_session(monkeypatch):
    """Ray would start by itself, without the settings of the session."""
    begun = []
    monkeypatch.setattr(RaySession, "start", lambda self: begun.append(1))
    monkeypatch.setattr(ray, "put", lambda value: value)
    assert RaySession().share(1) == 1
    assert begun
