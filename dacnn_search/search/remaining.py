"""Estimate how long a search still takes: from the cost of its networks at first, then from what its trials took."""

from collections.abc import Mapping, Sequence
from typing import Any

from dacnn_search.common.units import format_duration

__all__ = ["RemainingTime"]

MUCH = 1.5  # an estimate that is off by this factor is corrected aloud
SHARE = 1 / 3  # of the trials, after which it is


class RemainingTime:
    """Estimates the seconds until all trials of a search have ended.

    Trials that have ended in this session are counted from the first end on: the start of Ray and of its workers says
    nothing of the trials to come.

    Args:
        records: The ledger's records, which grow while the search runs.
        trials: How many trials are wanted in all.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]], trials: int) -> None:
        self._records = records
        self._before = len(records)
        self._trials = trials
        self._seconds_per_trial: float | None = None
        self._concurrency = 1
        self._corrected = False

    def expect(self, seconds_per_trial: float | None, concurrency: int) -> None:
        """Set what a trial is expected to take, by the cost of the networks, and how many run at once."""
        self._seconds_per_trial = seconds_per_trial
        self._concurrency = concurrency

    def seconds(self) -> float | None:
        """Return the estimate, None while there is nothing to go by."""
        left = max(0, self._trials - len(self._records))
        pace = self._measured_pace() or self._expected_pace()
        return None if pace is None else left * pace

    def correction(self) -> str | None:
        """Return, once, what to tell the user if a third of the trials took much more or less than expected."""
        measured, expected = self._measured_pace(), self._expected_pace()
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

    def _expected_pace(self) -> float | None:
        """Seconds from the end of one trial to the end of the next, by their cost."""
        return self._seconds_per_trial and self._seconds_per_trial / self._concurrency

    def _measured_pace(self) -> float | None:
        """The same by the trials of this session."""
        ended = self._records[self._before :]
        if not ended:
            return None
        if len(ended) <= self._concurrency:
            return sum(record["seconds"] for record in ended) / len(ended) / self._concurrency or None
        return (ended[-1]["finished"] - ended[0]["finished"]) / (len(ended) - 1) or None
