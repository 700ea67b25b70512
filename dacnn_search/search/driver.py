"""`Search`: where a search stands, what to train next, when to end, what to record and tell. It knows nothing of Ray.

A trial is in the ledger, on disk, before anyone else hears of it.
"""

import re
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from dacnn_search.network.architecture import Architecture
from dacnn_search.search.listener import Listener, RunningTrial, Snapshot
from dacnn_search.search.report import ReportWriter
from dacnn_search.search.sampler.proposals import Proposal, Proposals, Proposer
from dacnn_search.search.stopping import NoStopping, make_stopping
from dacnn_search.search.trial import Running, describe, missing, progress_of, training_seed
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SearchSettings
from dacnn_search.storage.checkpoint import Checkpoints
from dacnn_search.storage.front import best_under, front_of
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.resume import space_id
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.training.recipe import Recipe

__all__ = ["Search"]

SAME_FAILURES = 5  # in a row, without a success between: the cause is not the networks
ATTEMPTS = 3  # at a trial whose worker dies


class Search:
    """The driver's side of a search.

    Times are seconds of search, by a clock that never goes back, summed over the sessions of a resumed search.
    """

    def __init__(
        self,
        run: RunDirectory,
        space: SearchSpace,
        settings: SearchSettings,
        ledger: Ledger,
        proposed: Ledger,
        listener: Listener,
    ) -> None:
        self.run = run
        self.space = space
        self.settings = settings
        self.running: dict[str, Running] = {}
        self.failure: str | None = None  # why the search can't go on
        self.exhausted = False
        self.looks_ahead = False  # whether the next proposal is made while trials run
        self._ledger = ledger
        self._listener = listener
        proposals = Proposals(space, settings.sampler, settings.seed, ledger.records, proposed.records)
        self._waiting = deque(Running(proposal) for proposal in proposals.reopened)  # to be trained again
        self._proposer = Proposer(
            proposals,
            proposed,
            {
                "session": len(ledger.records),
                "sampler": settings.sampler,
                "seed": settings.seed,
                "space": space_id(space.settings),
            },
        )
        self._checkpoints = Checkpoints(run.checkpoints)
        self._report = ReportWriter(run, space, listener)
        self._scale = run.scale
        self._epochs = space.settings.recipe.epochs
        self._rule = make_stopping(settings.stopping, self._epochs)
        for record in ledger.records:
            self._rule.learn(progress_of(record, Architecture.from_dict(record["architecture"]), record["curve"]))
        self._front = front_of(ledger.records)
        self._hypervolume = self._scale.hypervolume(self._front)
        self._begun = time.monotonic()
        self._elapsed_before = max((record["finished"] for record in ledger.records), default=0.0)
        self._finished_before = len(ledger.records)
        listener.update(self.snapshot())

    @property
    def recipe(self) -> Recipe:
        """How each trial is trained."""
        return self.space.settings.recipe

    @property
    def elapsed(self) -> float:
        return self._elapsed_before + time.monotonic() - self._begun

    @property
    def finished(self) -> int:
        """How many trials have ended."""
        return len(self._ledger.records)

    @property
    def stops(self) -> bool:
        """Whether trials may be stopped early."""
        return not isinstance(self._rule, NoStopping)

    @property
    def late(self) -> bool:
        return self.settings.time_budget is not None and self.elapsed >= self.settings.time_budget

    @property
    def full(self) -> bool:
        """Whether as many trials as wanted have ended, run or wait to be run again."""
        planned = self.finished + len(self.running) + len(self._waiting)
        return self.exhausted or planned >= self.settings.trials

    @property
    def over(self) -> bool:
        """Whether nothing is left to do; never so while a trial runs, unless the search can't go on."""
        if self.failure is not None:
            return True
        wanted = self.finished < self.settings.trials
        return not self.running and (self.late or not wanted or (self.full and not self._waiting))

    def propose(self, key: str) -> dict[str, Any] | None:
        """The config of the next trial, to be known as `key`; None if there is none now."""
        if self.failure is None and self.late:
            self._settle()
        if self.failure is not None or self.late:
            return None
        if self._waiting and self.finished + len(self.running) < self.settings.trials:
            running = self._waiting.popleft()
        elif self.full or (proposal := self._next()) is None:
            return None
        else:
            running = Running(proposal)
        running.started = self.elapsed
        self.running[key] = running
        if self.looks_ahead and not self.full:
            self._proposer.look_ahead(self.finished)
        self._refresh()
        checkpoint = self._checkpoints.load(running.key)
        return {
            "trial": running.proposal.trial,
            "choices": running.proposal.choices,
            "parameters": running.proposal.cost.parameters,
            "architecture": running.proposal.architecture.to_dict(),
            "seed": training_seed(self.settings.seed, running.key),
            "checkpoint": checkpoint,
        }

    def goes_on(self, key: str, epochs: list[dict[str, Any]]) -> bool:
        """Take note of epochs that a running trial has done; whether the stopping rule lets it go on.

        Epochs told before are left out, and so is what a worker did before it heard that its trial is stopped: the
        record does not depend on how often workers report.
        """
        running = self.running.get(key)
        if running is None:
            return True
        for epoch in epochs:
            if running.stopped or epoch["epoch"] <= len(running.epochs):
                continue
            running.epochs.append(epoch)
            if running.confirmed:
                continue
            curve = {name: [epoch[f"validation_{name}"] for epoch in running.epochs] for name in ("accuracy", "loss")}
            proposal = running.proposal
            costs = {"trial": proposal.trial, "parameters": proposal.cost.parameters, "macs": proposal.cost.macs}
            progress = progress_of(costs, proposal.architecture, curve)
            verdict = self._rule.follow(progress, len(running.epochs) - 1)
            running.stopped, running.estimate = not verdict.go_on, verdict.estimate
        return not running.stopped

    def progress(self, key: str, result: Mapping[str, Any], checkpoint: bytes | None = None) -> None:
        """A running trial has done some epochs."""
        running = self.running.get(key)
        if running is None:
            return
        self.goes_on(key, result["epochs"])
        if checkpoint and not running.stopped:
            try:
                self._checkpoints.save(running.key, len(running.epochs), checkpoint)
            except OSError as error:
                self._fail(f"{self.run.checkpoints} can't be written: {error.strerror}")
        self._tell()

    def finish(self, key: str, result: Mapping[str, Any]) -> None:
        """A trial has ended by itself or was stopped early."""
        running = self.running.get(key)
        if running is None:
            return
        self.goes_on(key, result.get("epochs", []))
        del self.running[key]
        failure = (None if running.stopped else result.get("failure")) or missing(running.epochs)
        running.result = running.result or result
        if failure or len(running.epochs) < self._epochs:
            self._record(running, None if running.confirmed else failure)  # it was trained in full before
            return
        self._checkpoints.drop(running.key)
        running.confirmed.append(running.epochs)
        running.epochs = []
        if self._is_unsure(running):
            self._waiting.appendleft(running)
            self._tell()
        else:
            self._record(running)

    def lose(self, key: str, reason: str, *, again: bool = True) -> None:
        """A trial's worker has died: it is trained again, unless that happened too often or would not help."""
        running = self.running.pop(key, None)
        if running is None:
            return
        if again and running.attempts < ATTEMPTS:
            running.attempts += 1
            running.epochs, running.stopped, running.estimate = [], False, None
            self._waiting.append(running)
            self._listener.say(f"trial {running.proposal.trial}: {reason}; it is trained again")
        else:
            times = f" {running.attempts} times" if running.attempts > 1 else ""
            self._record(running, None if running.confirmed else f"{reason}{times}")  # it was trained in full before

    def interrupt(self) -> None:
        """All that runs is given up for now; a resumed search trains it again, unless it only lacks confirmation."""
        self.end("interrupted")
        for running in self.running.values():
            trial, epochs = running.proposal.trial, len(running.epochs)
            self._listener.say(f"trial {trial} interrupted after {epochs} of {self._epochs} epochs")
            self._waiting.append(running)
        self.end("interrupted")
        self.running.clear()

    def say(self, text: str) -> None:
        """Tell the user something."""
        self._listener.say(text)

    def snapshot(self, state: str = "searching", message: str | None = None) -> Snapshot:
        """Where the search stands."""
        finished = len(self._ledger.records)
        return Snapshot(
            state=state,
            message=message,
            elapsed=self.elapsed,
            remaining=self._remaining(finished),
            finished=finished,
            trials=self.settings.trials,
            running=[self._running_trial(running) for running in self.running.values()],
            front=self._front,
            hypervolume=self._hypervolume,
        )

    def close(self) -> None:
        """Bring everything that is derived from the ledger up to date."""
        proposal = self._proposer.close()
        if proposal is not None:
            self._waiting.append(Running(proposal))
        self._report.close(self._ledger.records, self._unfinished())

    def end(self, state: str, message: str | None = None) -> None:
        """Tell how the search ended; what only lacks confirmation is recorded first."""
        self._waiting += [running for running in self.running.values() if running.confirmed]
        self.running = {key: running for key, running in self.running.items() if not running.confirmed}
        self._settle()
        if message is None and self.exhausted and self.finished < self.settings.trials:
            message = "every network of the space has been tried"
        self._listener.update(snapshot := self.snapshot(state, message))
        self._report.write_status(snapshot)

    def _next(self) -> Proposal | None:
        """A new proposal, on disk, so that it is not lost; None if the space is exhausted or the disk full."""
        try:
            proposal = self._proposer.next(self.finished)
        except OSError as error:
            self._fail(f"{self.run.proposals_file} can't be written: {error.strerror}")
            return None
        self.exhausted = proposal is None
        return proposal

    def _is_unsure(self, running: Running) -> bool:
        """Whether a trial that would be on the front is to be trained again, by another seed, before it is."""
        if len(running.confirmed) > self.settings.confirm or self.late:
            return False
        beaten_by = best_under(self._front, running.proposal.cost.parameters)
        return beaten_by is None or running.accuracy > beaten_by["accuracy"]

    def _settle(self) -> None:
        """Record the trials that only wait for confirmation as they stand."""
        settled = [running for running in self._waiting if running.confirmed]
        for running in settled:
            self._waiting.remove(running)
            self._record(running)

    def _record(self, running: Running, reason: str | None = None) -> None:
        """Write how a trial ended into the ledger, then tell everyone."""
        try:
            record = self._ledger.append(
                describe(running, reason, full=self._epochs, seed=self.settings.seed, elapsed=self.elapsed)
            )
        except OSError as error:  # a full disk, say: what is not on disk is not finished
            self._waiting.append(running)
            self._fail(f"{self.run.trials_file} can't be written: {error.strerror}")
            return
        self._proposer.tell(running.proposal, record)
        if record["state"] == "COMPLETE":
            self._front = front_of([*self._front, record])
            self._hypervolume = self._scale.hypervolume(self._front)
        self._checkpoints.drop(running.key)
        self._watch_failures()
        self._listener.finished(record)
        self._tell()
        self._refresh()

    def _fail(self, message: str) -> None:
        self.failure = self.failure or message

    def _tell(self) -> None:
        self._listener.update(snapshot := self.snapshot())
        self._report.write_status(snapshot)

    def _refresh(self) -> None:
        self._report.refresh(self._ledger.records, self._unfinished())

    def _unfinished(self) -> list[tuple[Proposal, bool]]:
        """What was proposed and has not ended, each with whether it's being trained."""
        running = [(running.proposal, True) for running in self.running.values()]
        return sorted(running + [(waiting.proposal, False) for waiting in self._waiting], key=lambda p: p[0].trial)

    def _watch_failures(self) -> None:
        latest = self._ledger.records[-SAME_FAILURES:]
        causes = {_cause(record["reason"]) for record in latest if record["state"] == "FAIL"}
        if len(latest) == SAME_FAILURES and len(causes) == 1 and all(r["state"] == "FAIL" for r in latest):
            self._fail(f"{SAME_FAILURES} trials in a row failed for one reason: {latest[-1]['reason']}")

    def _remaining(self, finished: int) -> float | None:
        """Estimated seconds to the end, from the pace of this session."""
        done = finished - self._finished_before
        if not done:
            return None
        pace = (time.monotonic() - self._begun) / done
        left = max(0, self.settings.trials - finished) * pace
        return left if self.settings.time_budget is None else min(left, self.settings.time_budget - self.elapsed)

    def _running_trial(self, running: Running) -> RunningTrial:
        last = running.epochs[-1] if running.epochs else {}
        return RunningTrial(
            trial=running.proposal.trial,
            fingerprint=running.proposal.architecture.fingerprint,
            parameters=running.proposal.cost.parameters,
            epoch=len(running.epochs),
            epochs=self._epochs,
            accuracy=last.get("validation_accuracy"),
        )


def _cause(reason: str) -> str:
    """A reason without the figures in which two failures for that reason differ: epochs, losses, bytes."""
    return re.sub(r"(\bnan|-?\binf|[\d.]+( [kMGT]?B)?)\b", "#", reason)
