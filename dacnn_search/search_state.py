"""`Search`: where a search stands, what to train next, when to end, what to record and tell. It knows nothing of Ray.

A trial is in the ledger, on disk, before anyone else hears of it.
"""

import hashlib
import itertools
import math
import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dacnn_search.architecture import Architecture
from dacnn_search.checkpoints import Checkpoints
from dacnn_search.derived import Derived
from dacnn_search.extension import space_id
from dacnn_search.ledger import Ledger
from dacnn_search.pareto import front_of
from dacnn_search.progress import Listener, RunningTrial, Snapshot
from dacnn_search.proposals import Proposal, Proposals
from dacnn_search.proposer import Proposer
from dacnn_search.run_directory import RunDirectory, now
from dacnn_search.settings import SearchSettings
from dacnn_search.space import SearchSpace
from dacnn_search.stopping import NoStopping, Progress, make_stopping

__all__ = ["Search"]

SAME_FAILURES = 5  # in a row, without a success between: the cause is not the networks
ATTEMPTS = 3  # at a trial whose worker dies


@dataclass
class Running:
    """A trial that a worker has, or is about to get."""

    proposal: Proposal
    started: float = 0.0
    epochs: list[dict[str, Any]] = field(default_factory=list)
    attempts: int = 1
    stopped: bool = False  # early, by the stopping rule
    estimate: float | None = None  # of the final accuracy, once it is stopped early


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
                "space": space_id(space),
            },
        )
        self._checkpoints = Checkpoints(run.checkpoints)
        self._derived = Derived(run, space, listener)
        self._scale = run.scale
        self._epochs = space.settings.recipe.epochs
        self._rule = make_stopping(settings.stopping, self._epochs)
        for record in ledger.records:
            self._rule.follow(_progress(record, Architecture.from_dict(record["architecture"]), record["curve"]))
        self._front = front_of(ledger.records)
        self._hypervolume = self._scale.hypervolume(self._front)
        self._begun = time.monotonic()
        self._elapsed_before = max((record["finished"] for record in ledger.records), default=0.0)
        self._finished_before = len(ledger.records)
        listener.update(self.snapshot())

    @property
    def elapsed(self) -> float:
        return self._elapsed_before + time.monotonic() - self._begun

    @property
    def finished(self) -> int:
        """How many trials have ended."""
        return len(self._ledger.records)

    @property
    def largest(self) -> str:
        """The key of the running trial that takes most memory."""
        return max(self.running, key=lambda key: self.running[key].proposal.cost.activations)

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
        checkpoint = self._checkpoints.load(running.proposal.architecture.fingerprint)
        return {
            "trial": running.proposal.trial,
            "choices": running.proposal.choices,
            "parameters": running.proposal.cost.parameters,
            "architecture": running.proposal.architecture.to_dict(),
            "seed": training_seed(self.settings.seed, running.proposal.architecture.fingerprint),
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
            curve = {name: [epoch[f"validation_{name}"] for epoch in running.epochs] for name in ("accuracy", "loss")}
            proposal = running.proposal
            costs = {"trial": proposal.trial, "parameters": proposal.cost.parameters, "macs": proposal.cost.macs}
            progress = _progress(costs, proposal.architecture, curve)
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
                self._checkpoints.save(running.proposal.architecture.fingerprint, len(running.epochs), checkpoint)
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
        self._record(running, None if running.stopped else result.get("failure"), result)

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
            self._record(running, f"{reason}{times}", {})

    def interrupt(self) -> None:
        """All that runs is given up for now; a resumed search trains it again."""
        for running in self.running.values():
            trial, epochs = running.proposal.trial, len(running.epochs)
            self._listener.say(f"trial {trial} interrupted after {epochs} of {self._epochs} epochs")
            self._waiting.append(running)
        self.end("interrupted")
        self.running.clear()

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
        self._derived.close(self._ledger.records, self._unfinished())

    def end(self, state: str, message: str | None = None) -> None:
        """Tell how the search ended."""
        if message is None and self.exhausted and self.finished < self.settings.trials:
            message = "every network of the space has been tried"
        self._listener.update(snapshot := self.snapshot(state, message))
        self._derived.write_status(snapshot)

    def _next(self) -> Proposal | None:
        """A new proposal, on disk, so that it is not lost; None if the space is exhausted or the disk full."""
        try:
            proposal = self._proposer.next(self.finished)
        except OSError as error:
            self._fail(f"{self.run.proposals_file} can't be written: {error.strerror}")
            return None
        self.exhausted = proposal is None
        return proposal

    def _record(self, running: Running, reason: str | None, result: Mapping[str, Any]) -> None:
        """Write how a trial ended into the ledger, then tell everyone."""
        try:
            record = self._ledger.append(self._line(running, reason, result))
        except OSError as error:  # a full disk, say: what is not on disk is not finished
            self._waiting.append(running)
            self._fail(f"{self.run.trials_file} can't be written: {error.strerror}")
            return
        self._proposer.tell(running.proposal, record)
        if record["state"] == "COMPLETE":
            self._front = front_of([*self._front, record])
            self._hypervolume = self._scale.hypervolume(self._front)
        self._checkpoints.drop(record["fingerprint"])
        self._watch_failures()
        self._listener.finished(record)
        self._tell()
        self._refresh()

    def _fail(self, message: str) -> None:
        self.failure = self.failure or message

    def _tell(self) -> None:
        self._listener.update(snapshot := self.snapshot())
        self._derived.write_status(snapshot)

    def _refresh(self) -> None:
        self._derived.refresh(self._ledger.records, self._unfinished())

    def _unfinished(self) -> list[tuple[Proposal, bool]]:
        """What was proposed and has not ended, each with whether it's being trained."""
        running = [(running.proposal, True) for running in self.running.values()]
        return sorted(running + [(waiting.proposal, False) for waiting in self._waiting], key=lambda p: p[0].trial)

    def _line(self, running: Running, reason: str | None, result: Mapping[str, Any]) -> dict[str, Any]:
        proposal, epochs = running.proposal, running.epochs
        last = epochs[-1] if epochs else {}
        accuracy = last.get("validation_accuracy")
        if reason is None:
            reason = _missing(last)
        state = "FAIL" if reason else "COMPLETE" if len(epochs) == self._epochs else "PRUNED"
        return {
            "trial": proposal.trial,
            "state": state,
            "fingerprint": proposal.architecture.fingerprint,
            "architecture": proposal.architecture.to_dict(),
            "choices": proposal.choices,
            "parameters": proposal.cost.parameters,
            "macs": proposal.cost.macs,
            "accuracy": _finite(accuracy),
            "loss": _finite(last.get("validation_loss")),
            "estimate": running.estimate if state == "PRUNED" else None,
            "epochs": len(epochs),
            "seconds": round(sum(epoch["seconds"] for epoch in epochs), 4),
            "reason": reason or ("stopped early" if state == "PRUNED" else None),
            "curve": {
                "accuracy": [_rounded(epoch["validation_accuracy"]) for epoch in epochs],
                "loss": [_rounded(epoch["validation_loss"]) for epoch in epochs],
                "train_loss": [_rounded(epoch["train_loss"]) for epoch in epochs],
            },
            "seed": training_seed(self.settings.seed, proposal.architecture.fingerprint),
            "started": round(running.started, 3),
            "finished": round(self.elapsed, 3),
            "time": now(),
            "worker": result.get("worker"),
            "peak_bytes": result.get("peak_bytes"),
            "recomputes": result.get("recomputes", False),
            "duplicates": proposal.duplicates,
        }

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


def training_seed(seed: int, fingerprint: str) -> int:
    """A trial's seed: the same for a network whenever it is trained in this search."""
    return int.from_bytes(hashlib.sha256(f"{seed} {fingerprint}".encode()).digest()[:4])


def _progress(
    of: Mapping[str, Any], architecture: Architecture, curve: Mapping[str, Sequence[float | None]]
) -> Progress:
    """What a stopping rule judges a trial by: its curve up to the first value that is missing or not finite."""
    points = zip(curve["accuracy"], curve["loss"], strict=True)
    whole = list(itertools.takewhile(lambda point: None not in map(_finite, point), points))
    accuracy, loss = zip(*whole, strict=True) if whole else ((), ())
    return Progress(of["trial"], of["parameters"], of["macs"], architecture.depth, accuracy, loss)


def _missing(epoch: Mapping[str, Any]) -> str | None:
    """What a trial lacks that ended with this epoch, if anything."""
    if not epoch:
        return "it ended without an epoch"
    for name in ("validation_accuracy", "validation_loss"):
        if _finite(epoch[name]) is None:
            return f"{name.replace('_', ' ')} is {epoch[name]} in epoch {epoch['epoch']}"
    return None


def _cause(reason: str) -> str:
    """A reason without the figures in which two failures for that reason differ: epochs, losses, bytes."""
    return re.sub(r"(\bnan|-?\binf|[\d.]+( [kMGT]?B)?)\b", "#", reason)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _rounded(value: float | None) -> float | None:
    return None if _finite(value) is None else round(value, 5)  # type: ignore[arg-type]
