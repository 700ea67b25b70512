"""Estimate how long a search still takes: from the cost of its networks at first, then from what its trials took."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from dacnn_search.common.units import format_duration
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import training_seconds
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.training.speed import Speed

MUCH = 1.5  # an estimate that is off by this factor is corrected aloud
SHARE = 1 / 3  # of the trials, after which it is


class RemainingTime:
    """Estimates the seconds until all trials of a search have ended.

    Trials that have ended in this session are counted from the first end on: the start of Ray and of its workers says
    nothing of the trials to come.
    `records` are the ledger's, which grow while the search runs; `trials` are wanted in all.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]], trials: int) -> None:
        self._records = records
        self._before = len(records)
        self._trials = trials
        self._expected: float | None = None  # seconds from the end of one trial to the end of the next, by their cost
        self._concurrency = 1
        self._corrected = False

    def expect(self, seconds_per_trial: float | None, concurrency: int) -> None:
        """Set what a trial is expected to take, by the cost of the networks, and how many run at once."""
        self._expected = seconds_per_trial and seconds_per_trial / concurrency
        self._concurrency = concurrency

    def seconds(self) -> float | None:
        """Return the estimate, None while there is nothing to go by."""
        left = max(0, self._trials - len(self._records))
        pace = self._measured() or self._expected
        return None if pace is None else left * pace

    def correction(self) -> str | None:
        """Return, once, what to tell the user if a third of the trials took much more or less than expected."""
        measured, expected = self._measured(), self._expected
        wanted = self._trials - self._before
        if self._corrected or not measured or not expected or len(self._records) - self._before < SHARE * wanted:
            return None
        self._corrected = True
        if 1 / MUCH < measured / expected < MUCH:
            return None
        return (
            f"trials take {'longer' if measured > expected else 'less time'} than expected: the search takes about "
            f"{format_duration(wanted * measured)}, not {format_duration(wanted * expected)}"
        )

    def _measured(self) -> float | None:
        """Return the seconds from the end of one trial to the end of the next, by the trials of this session."""
        ended = self._records[self._before :]
        if not ended:
            return None
        if len(ended) <= self._concurrency:
            return sum(record["seconds"] for record in ended) / len(ended) / self._concurrency or None
        return (ended[-1]["finished"] - ended[0]["finished"]) / (len(ended) - 1) or None


def expected_seconds(
    run: RunDirectory, space: SearchSpace, precision: str, networks: Sequence[Architecture]
) -> float | None:
    """Return what a trial takes on one CPU thread by the speed that was measured; None if it was not."""
    measured = run.environment.get("speed")
    if not measured:
        return None
    recipe = space.settings.recipe
    rate, images = Speed.model_validate(measured).rate(precision), recipe.epochs * space.summary.train_size
    shape, classes = space.input_shape, space.num_classes
    return fmean(training_seconds(n, shape, classes, images, recipe.batch_size, rate) for n in networks)
