"""Trainings as Ray tasks: their messages, and what becomes of those that break or lose their worker."""

import os
import time

import pytest

from dacnn_search.common.errors import TrainingError
from dacnn_search.common.interrupt import Stop
from dacnn_search.search.cluster.ray_cluster import start_ray
from dacnn_search.search.cluster.tasks import ATTEMPTS, Broken, WorkerDied, run_streams

import ray  # isort: skip  # after dacnn_search.search.cluster.ray_cluster, which sets what Ray reads


@pytest.fixture(scope="module")
def cluster():
    with start_ray(concurrency=2):
        yield


@pytest.fixture
def start(cluster, tmp_path):
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

    return ray.remote(num_cpus=0.5, max_retries=0)(work).remote


def messages_of(pairs, job):
    return [message for other, message in pairs if other == job]


def test_jobs_tell_their_epochs_and_results(start):
    pairs = list(run_streams(["a", "b", "c"], start, 2, Stop()))
    assert len(pairs) == 6
    assert all(messages_of(pairs, job) == [{"epoch": 1}, {"result": job}] for job in "abc")


def test_no_more_jobs_run_at_once_than_may(start):
    started, ended = [], []
    for job, message in run_streams("abcdef", lambda job: started.append(job) or start(job), 2, Stop()):
        ended += [job] if "result" in message else []
        assert len(started) - len(ended) <= 2
    assert started == list("abcdef")


def test_what_lost_its_worker_begins_again(start):
    pairs = list(run_streams(["unlucky", "a"], start, 2, Stop()))
    *_, died, first, last = messages_of(pairs, "unlucky")
    assert isinstance(died, WorkerDied)
    assert (first, last) == ({"epoch": 1}, {"result": "unlucky"})
    assert messages_of(pairs, "a")[-1] == {"result": "a"}


def test_what_always_loses_its_worker_is_given_up(start, tmp_path):
    pairs = list(run_streams(["lethal", "a"], start, 1, Stop()))
    assert (tmp_path / "lethal").read_text() == "x" * ATTEMPTS
    ends = [type(message) for message in messages_of(pairs, "lethal") if message != {"epoch": 1}]
    assert ends == [WorkerDied] * (ATTEMPTS - 1) + [Broken]
    assert messages_of(pairs, "a")[-1] == {"result": "a"}


@pytest.mark.parametrize(
    ("job", "reason"), [("faulty", "ValueError: what went wrong"), ("diverging", "the loss is nan")]
)
def test_what_breaks_is_given_up_at_once_with_its_reason(start, tmp_path, job, reason):
    pairs = list(run_streams([job], start, 1, Stop()))
    assert messages_of(pairs, job) == [{"epoch": 1}, Broken(reason)]
    assert (tmp_path / job).read_text() == "x"


def test_a_signal_ends_all(start):
    stop = Stop()
    streams = run_streams(["endless", "a", "b"], start, 1, stop)
    assert next(streams) == ("endless", {"epoch": 1})
    stop.signal = 2
    with pytest.raises(KeyboardInterrupt):
        next(streams)
