"""Trainings as Ray tasks that tell how they go: several at once, and again those whose worker process dies."""

import collections
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import dacnn_search.search.cluster.ray_cluster  # noqa: F401  sets what Ray reads when it is imported
from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.common.interrupt import Stop

import ray  # isort: skip

__all__ = ["Broken", "WorkerDied", "run_streams"]

ATTEMPTS = 3  # at a training whose worker dies
POLL_SECONDS = 0.2  # between two looks for a signal

Job = TypeVar("Job", bound=Hashable)


class WorkerDied:
    """The worker process of a training died; the training begins again."""


@dataclass(frozen=True)
class Broken:
    """A training is given up."""

    reason: str


def run_streams(
    jobs: Sequence[Job], start: Callable[[Job], Any], concurrency: int, stop: Stop
) -> Iterator[tuple[Job, Any]]:
    """Each job with what its task yields, as it comes, or a `WorkerDied` or `Broken` in between.

    start: starts the task of a job, a generator that Ray does not try again by itself, and returns its stream.
    concurrency: how many may run at once; jobs begin in their order.
    Raises KeyboardInterrupt once a signal has asked for the end; what is made of the messages is never interrupted.
    """
    waiting = collections.deque(jobs)
    streams: dict[Any, Job] = {}
    deaths: collections.Counter[Job] = collections.Counter()
    with stop.polled():
        while waiting or streams:
            while waiting and len(streams) < concurrency:
                job = waiting.popleft()
                streams[start(job)] = job
            ready: list[Any] = ray.wait(list(streams), num_returns=1, timeout=POLL_SECONDS)[0]
            for stream in ready:
                job = streams[stream]
                try:
                    message = ray.get(next(stream))
                except StopIteration:
                    del streams[stream]
                except ray.exceptions.RayError as error:
                    del streams[stream]
                    deaths[job] += _died(error)
                    if _died(error) and deaths[job] < ATTEMPTS:
                        waiting.appendleft(job)
                        yield job, WorkerDied()
                    else:
                        yield job, Broken(_reason(error))
                else:
                    yield job, message
            if stop.requested:
                raise KeyboardInterrupt


def _died(error: Exception) -> bool:
    """Whether a worker process went, rather than its code raised."""
    return not isinstance(error, ray.exceptions.RayTaskError | ray.exceptions.OutOfMemoryError)


def _reason(error: Exception) -> str:
    """What a worker's error says, in one line."""
    cause = getattr(error, "cause", None) or error
    words = str(cause).strip().partition("\n")[0]
    return words if isinstance(cause, DacnnSearchError) else f"{type(cause).__name__}: {words}"
