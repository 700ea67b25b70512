"""`Search`: what to train next, when to end, what to record and report. It knows nothing of Ray.

A trial is in the ledger, on disk, before anyone else hears of it.
"""

import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dacnn_search.search.listener import Listener, Snapshot
from dacnn_search.search.remaining import RemainingTime
from dacnn_search.search.report import ReportWriter
from dacnn_search.search.sampler.proposals import Proposal, Proposer
from dacnn_search.search.stopping import RULES, Progress, Verdict
from dacnn_search.search.trial import Trial, progress_in, training_seed, what_is_missing
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SearchSettings
from dacnn_search.storage.checkpoint import Checkpoints
from dacnn_search.storage.front import Record, best_under, front_of
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.run_directory import RunDirectory

SAME_FAILURES = 5  # in a row, without a success between: the cause is not the networks
ATTEMPTS = 3  # at a trial whose worker dies


@dataclass(eq=False)
class Search:
    """The driver's side of a search.

    It is asked for trials (`propose`) and told how they go (`progress`, `goes_on`) and how they end (`finish`, `lose`).
    A trial is known by the key that it was proposed with.
    """

    run: RunDirectory
    space: SearchSpace
    settings: SearchSettings
    ledger: Ledger  # of the trials that have ended
    proposed: Ledger
    listener: Listener

    def __post_init__(self) -> None:
        self.recipe = self.space.settings.recipe
        self.failure: str | None = None  # why the search can't go on
        self.exhausted = False  # every network of the space has been proposed
        self.looks_ahead = False  # make the next proposal while trials run
        self.running: dict[str, Trial] = {}  # by key
        self.remaining = RemainingTime(self.ledger.records, self.settings.trials)
        self._proposer = Proposer(self.space, self.settings, self.ledger, self.proposed)
        self._waiting = deque(map(Trial, self._proposer.reopened))  # to be trained again, or by a further seed
        self._checkpoints = Checkpoints(self.run.checkpoints)
        self._report = ReportWriter(self.run, self.space, self.listener)
        self._epochs = self.recipe.epochs
        self._objective = self.settings.objective
        self.first_cycle = self.settings.first_cycle(self._epochs)
        self._sampler_stops = self.settings.stopping == "auto" and self.first_cycle > 0
        self._rule = RULES["none" if self._sampler_stops else self.settings.stopping](self._epochs)
        for record in self.ledger.records:
            self._rule.learn(progress_in(record, self._objective))
        self._scale = self.run.scale
        self._front = front_of(self.ledger.records, self._objective)
        self._hypervolume = self._scale.hypervolume(self._front)
        self._begun = time.monotonic() - max((record["finished"] for record in self.ledger.records), default=0.0)
        self.listener.update(self.snapshot())

    # Where the search stands.

    @property
    def elapsed(self) -> float:
        """Seconds of search, summed over the sessions of a resumed search."""
        return time.monotonic() - self._begun

    @property
    def finished(self) -> int:
        """The number of trials that have ended."""
        return len(self.ledger.records)

    @property
    def late(self) -> bool:
        """True if the time budget is used up."""
        return self.settings.time_budget is not None and self.elapsed >= self.settings.time_budget

    @property
    def full(self) -> bool:
        """True if no new proposals are needed: as many trials as wanted have ended, run or wait to be run again."""
        return self.exhausted or self.finished + len(self.running) + len(self._waiting) >= self.settings.trials

    @property
    def over(self) -> bool:
        """True if nothing is left to do; never while a trial runs, unless the search can't go on."""
        if self.failure is not None:
            return True
        wanted = self.finished < self.settings.trials
        return not self.running and (self.late or not wanted or (self.full and not self._waiting))

    def snapshot(self, state: str = "searching", message: str | None = None) -> Snapshot:
        """Return where the search stands, for the listener and `status.json`."""
        return Snapshot(
            state=state,
            message=message,
            elapsed=self.elapsed,
            remaining=self._seconds_left(),
            finished=self.finished,
            trials=self.settings.trials,
            running=[
                {
                    "trial": trial.proposal.trial,
                    "fingerprint": trial.proposal.architecture.fingerprint,
                    "parameters": trial.proposal.cost.parameters,
                    "flash": trial.proposal.cost.flash,
                    "epoch": len(trial.epochs),
                    "epochs": self._epochs,
                    "accuracy": trial.epochs[-1].get("validation_accuracy") if trial.epochs else None,
                }
                for trial in self.running.values()
            ],
            front=self._front,
            hypervolume=self._hypervolume,
            objective=self._objective,
        )

    # What a worker trains.

    def look_ahead(self) -> None:
        """Start making the next proposal if one is needed."""
        if not (self.full or self.late or self._waiting):
            self._proposer.look_ahead(self.finished)

    def propose(self, key: str) -> dict[str, Any] | None:
        """Return the config of the next trial, to be known as `key`; None if there is none now."""
        if self.failure is None and self.late:
            self._record_candidates(running=False)
        trial = self._next_trial()
        if trial is None:
            return None
        trial.started = self.elapsed
        self.running[key] = trial
        if self.looks_ahead and not self.full:
            self._proposer.look_ahead(self.finished)
        self._refresh()
        return {
            "trial": trial.proposal.trial,
            "choices": trial.proposal.choices,
            "parameters": trial.proposal.cost.parameters,
            "flash": trial.proposal.cost.flash,
            "architecture": trial.proposal.architecture.to_dict(),
            "seed": training_seed(self.settings.seed, trial.key),
            "checkpoint": self._checkpoints.load(trial.key),
        }

    def _next_trial(self) -> Trial | None:
        """Return a trial that waits to be trained again, or a new one."""
        if self.failure is not None or self.late:
            return None
        if self._waiting and self.finished + len(self.running) < self.settings.trials:
            return self._waiting.popleft()
        if self.full:
            return None
        try:
            proposal = self._proposer.next(self.finished)
        except OSError as error:
            self._fail(f"{self.run.proposals_file} can't be written: {error.strerror}")
            return None
        self.exhausted = proposal is None
        return None if proposal is None else Trial(proposal)

    # What a worker reports.

    def goes_on(self, key: str, epochs: Sequence[dict[str, Any]]) -> bool:
        """Take note of epochs that a running trial has done; return whether the stopping rule lets it go on.

        Epochs reported before are left out, and so is what a worker did before it heard that its trial is stopped: the
        record does not depend on how often workers report.
        """
        trial = self.running.get(key)
        if trial is None:
            return True
        for epoch in epochs:
            if trial.stopped or epoch["epoch"] <= len(trial.epochs):
                continue
            trial.epochs.append(epoch)
            progress = trial.progress(self._objective)
            if not trial.confirmed and len(progress.accuracy) == len(trial.epochs):  # all of them finite
                verdict = self._judge(trial, progress)
                trial.stopped, trial.estimate = not verdict.go_on, verdict.estimate
        return not trial.stopped

    def _judge(self, trial: Trial, progress: Progress) -> Verdict:
        """Return whether a trial goes on, by the stopping rule or, after the first cycle, by the sampler."""
        verdict = self._rule.judge(progress)
        if len(progress.accuracy) != self.first_cycle:
            return verdict
        trial.short = progress.accuracy[-1]
        promising = self._proposer.first_cycle_over(trial.proposal, trial.short, asks=self._sampler_stops)
        return Verdict(promising) if self._sampler_stops else verdict

    def progress(self, key: str, result: Mapping[str, Any], checkpoint: bytes | None = None) -> None:
        """Take note of what a worker reports of a running trial."""
        trial = self.running.get(key)
        if trial is None:
            return
        self.goes_on(key, result["epochs"])
        if checkpoint and not trial.stopped:
            try:
                self._checkpoints.save(trial.key, len(trial.epochs), checkpoint)
            except OSError as error:
                self._fail(f"{self.run.checkpoints} can't be written: {error.strerror}")
        self._tell()

    def finish(self, key: str, result: Mapping[str, Any]) -> None:
        """Take note that a trial has ended by itself or was stopped early."""
        self.goes_on(key, result.get("epochs", []))
        trial = self.running.pop(key, None)
        if trial is None:
            return
        trial.result = trial.result or result
        failure = (None if trial.stopped else result.get("failure")) or what_is_missing(trial.epochs)
        if failure or len(trial.epochs) < self._epochs:
            self._record(trial, failure)
            return
        self._checkpoints.drop(trial.key)
        trial.confirmed.append(trial.epochs)
        trial.epochs = []
        if self._needs_confirmation(trial):
            self._waiting.appendleft(trial)
            self._tell()
        else:
            self._record(trial)

    def lose(self, key: str, reason: str, *, again: bool = True) -> None:
        """Take note that a trial's worker died: train it again, unless that happened too often or would not help."""
        trial = self.running.pop(key, None)
        if trial is None:
            return
        if again and trial.attempts < ATTEMPTS:
            trial.begin_again()
            self._waiting.append(trial)
            self.listener.say(f"trial {trial.proposal.trial}: {reason}; it is trained again")
        else:
            times = f" {trial.attempts} times" if trial.attempts > 1 else ""
            self._record(trial, f"{reason}{times}")

    # The end.

    def interrupt(self) -> None:
        """Give up what runs, for now: a resumed search trains it again, unless it only lacks confirmation."""
        self._record_candidates()
        for trial in self.running.values():
            self.listener.say(
                f"trial {trial.proposal.trial} interrupted after {len(trial.epochs)} of {self._epochs} epochs"
            )
        self._waiting.extend(self.running.values())
        self.end("interrupted")
        self.running.clear()

    def end(self, state: str, message: str | None = None) -> None:
        """Record trials that only lack confirmation, and report how the search ended."""
        self._record_candidates()
        if message is None and self.exhausted and self.finished < self.settings.trials:
            message = "every network of the space has been tried"
        self._tell(state, message)

    def close(self) -> None:
        """Bring everything that is derived from the ledger up to date."""
        proposal = self._proposer.close()
        if proposal is not None:
            self._waiting.append(Trial(proposal))
        self._report.close(self.ledger.records, self._unfinished)

    def _needs_confirmation(self, trial: Trial) -> bool:
        """Return whether a trial that would be on the front has to be trained by another seed before it is."""
        if len(trial.confirmed) > self.settings.confirm or self.late:
            return False
        rival = best_under(self._front, getattr(trial.proposal.cost, self._objective), self._objective)
        return rival is None or trial.accuracy > rival["accuracy"]

    def _record_candidates(self, running: bool = True) -> None:
        """Record trials that only lack confirmation as they stand."""
        for key in [key for key, trial in self.running.items() if running and trial.confirmed]:
            self._waiting.append(self.running.pop(key))
        for trial in [trial for trial in self._waiting if trial.confirmed]:
            self._waiting.remove(trial)
            self._record(trial)

    def _record(self, trial: Trial, reason: str | None = None) -> None:
        """Write how a trial ended into the ledger, then tell everyone. One that was trained in full did not fail."""
        reason = None if trial.confirmed else reason
        try:
            record = self.ledger.append(
                trial.record(reason, full=self._epochs, seed=self.settings.seed, elapsed=self.elapsed)
            )
        except OSError as error:  # such as a full disk: what is not on disk has not ended
            self._waiting.append(trial)
            self._fail(f"{self.run.trials_file} can't be written: {error.strerror}")
            return
        self._proposer.tell(trial.proposal, record)
        if record["state"] == "COMPLETE":
            self._front = front_of([*self._front, record], self._objective)
            self._hypervolume = self._scale.hypervolume(self._front)
        self._checkpoints.drop(trial.key)
        if repeated := repeated_failure(self.ledger.records):
            self._fail(repeated)
        self.listener.finished(record)
        if correction := self.remaining.correction():
            self.listener.say(correction)
        self._tell()
        self._refresh()

    def _fail(self, message: str) -> None:
        self.failure = self.failure or message

    def _tell(self, state: str = "searching", message: str | None = None) -> None:
        snapshot = self.snapshot(state, message)
        self.listener.update(snapshot)
        self._report.write_status(snapshot)

    def _refresh(self) -> None:
        self._report.refresh(self.ledger.records, self._unfinished)

    @property
    def _unfinished(self) -> list[tuple[Proposal, bool]]:
        """The proposals that have not ended in the order of their numbers, and whether each is being trained."""
        running = [(trial.proposal, True) for trial in self.running.values()]
        waiting = [(trial.proposal, False) for trial in self._waiting]
        return sorted(running + waiting, key=lambda pair: pair[0].trial)

    def _seconds_left(self) -> float | None:
        left, budget = self.remaining.seconds(), self.settings.time_budget
        return left if left is None or budget is None else max(0.0, min(left, budget - self.elapsed))


def repeated_failure(records: Sequence[Record]) -> str | None:
    """Return what to tell if the latest trials all failed for one reason."""
    latest = records[-SAME_FAILURES:]
    causes = {_cause(record["reason"]) if record["state"] == "FAIL" else None for record in latest}
    if len(latest) < SAME_FAILURES or len(causes) > 1 or None in causes:
        return None
    return f"{SAME_FAILURES} trials in a row failed for one reason: {latest[-1]['reason']}"


def _cause(reason: str) -> str:
    """Return a reason without the figures (epochs, losses, bytes) in which two failures for that reason differ."""
    return re.sub(r"(\bnan|-?\binf|[\d.]+( [kMGT]?B)?)\b", "#", reason)
