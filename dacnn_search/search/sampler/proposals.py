"""What to train next: an Optuna study proposes, what is infeasible or known is turned away before it costs anything."""

import datetime
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import Cost
from dacnn_search.search.sampler.domain import distribution_of
from dacnn_search.search.sampler.registry import SamplerFactory, make_sampler, quiet_optuna
from dacnn_search.search.sampler.surrogate import ESTIMATE
from dacnn_search.space.search_space import SearchSpace

__all__ = ["ATTRIBUTES", "DIRECTIONS", "Proposal", "Proposals", "frozen_trial", "open_trial"]

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)  # accuracy, parameters
ATTRIBUTES = ("trial", "fingerprint", "parameters", "macs", "accuracy", "epochs", "seconds", "reason")
MOST_ASKED = 16  # proposals turned away in a row, before we stop asking the sampler and draw by ourselves
MOST_DRAWN = 64  # known networks drawn in a row, before we go through the space in its order


@dataclass(frozen=True)
class Proposal:
    """A network to be trained as trial number `trial`; `duplicates` known ones were proposed since the last."""

    trial: int
    architecture: Architecture
    choices: dict[str, Any]
    cost: Cost
    duplicates: int


class Proposals:
    """Proposes networks that meet the constraints, each at most once.

    records: what earlier sessions of the search finished, as in the ledger; proposed: what they proposed. What they
    did not finish is in `reopened`, under its old number. The sampler's seed depends on how many trials there were
    before this session, so that a resumed search does not repeat its first random draws. The same arguments and the
    same order of `propose` and `tell` give the same proposals.
    """

    def __init__(
        self,
        space: SearchSpace,
        sampler: str | SamplerFactory,
        seed: int,
        records: Sequence[Mapping[str, Any]] = (),
        proposed: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.space = space
        self.first_trial = max((line["trial"] + 1 for line in (*records, *proposed)), default=0)
        with quiet_optuna():
            self._study = optuna.create_study(directions=DIRECTIONS)
        self._open: dict[int, optuna.Trial] = {}
        self._next_trial = self.first_trial
        self._generator = random.Random(f"{seed} {self.first_trial}")
        self._study.sampler = make_sampler(sampler, self._generator.getrandbits(32), space)
        for record in records:
            self._study.add_trial(frozen_trial(space, record))
        self._known = {record["fingerprint"] for record in records}
        finished = {record["trial"] for record in records}
        self.reopened = [self._reopen(line) for line in proposed if line["trial"] not in finished]

    def propose(self) -> Proposal | None:
        """The next network; None if every network of the space that meets the constraints is known."""
        duplicates = 0
        for _ in range(MOST_ASKED):
            trial = self._study.ask()
            architecture = self.space.suggest(trial)
            if architecture.fingerprint in self._known:
                duplicates += 1
            elif self.space.meets_constraints(architecture):
                return self._accept(trial, architecture, trial.params, duplicates)
            self._study.tell(trial, state=TrialState.FAIL)
        unknown = self._find_unknown()
        if unknown is None:
            return None
        architecture, choices = unknown
        return self._accept(self._ask_for(choices), architecture, choices, duplicates)

    def tell(
        self, proposal: Proposal, state: str, accuracy: float | None = None, estimate: float | None = None
    ) -> None:
        """Report how a trial ended: COMPLETE with its accuracy, PRUNED, perhaps with an estimate of what it would have
        reached, or FAIL."""
        trial = self._open.pop(proposal.trial)
        for name, value in _estimate(estimate).items():
            trial.set_user_attr(name, value)
        if accuracy is not None and state == "COMPLETE":
            self._study.tell(trial, (accuracy, proposal.cost.parameters))
        else:
            self._study.tell(trial, state=TrialState[state])

    def _reopen(self, line: Mapping[str, Any]) -> Proposal:
        """A proposal of an earlier session as one of this session."""
        choices = dict(line["choices"])
        architecture, _ = self.space.replay(choices)
        self._known.add(architecture.fingerprint)
        self._open[line["trial"]] = self._ask_for(choices)
        return Proposal(line["trial"], architecture, choices, self.space.cost(architecture), line["duplicates"])

    def _ask_for(self, choices: dict[str, Any]) -> optuna.Trial:
        """A running trial of the study with these choices."""
        self._study.enqueue_trial(choices)
        trial = self._study.ask()
        self.space.suggest(trial)
        return trial

    def _accept(
        self, trial: optuna.Trial, architecture: Architecture, choices: dict[str, Any], duplicates: int
    ) -> Proposal:
        proposal = Proposal(self._next_trial, architecture, choices, self.space.cost(architecture), duplicates)
        self._known.add(architecture.fingerprint)
        self._open[proposal.trial] = trial
        self._next_trial += 1
        return proposal

    def _find_unknown(self) -> tuple[Architecture, dict[str, Any]] | None:
        """A random network that is not known, or, where those are rare, the first in the order of the space."""
        for _ in range(MOST_DRAWN):
            architecture, choices = self.space.draw(self._generator)
            if architecture.fingerprint not in self._known:
                return architecture, choices
        return next(self.space.networks(self._known), None)


def frozen_trial(space: SearchSpace, record: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    """A ledger's record as a finished Optuna trial, with its figures and identity as user attributes."""
    complete = record["state"] == "COMPLETE"
    trial = optuna.trial.create_trial(
        state=TrialState[record["state"]],
        values=(record["accuracy"], record["parameters"]) if complete else None,
        user_attrs={name: record[name] for name in ATTRIBUTES} | _estimate(record.get("estimate")),
        **_parameters(space, record["choices"]),
    )
    end = datetime.datetime.fromisoformat(record["time"]).astimezone().replace(tzinfo=None)  # local, as Optuna's are
    trial.datetime_start = end - datetime.timedelta(seconds=record["finished"] - record["started"])
    trial.datetime_complete = end
    return trial


def open_trial(space: SearchSpace, proposal: Proposal, state: TrialState) -> optuna.trial.FrozenTrial:
    """A proposal as an Optuna trial that has not ended: RUNNING, or WAITING to be run again."""
    return optuna.trial.create_trial(
        state=state,
        user_attrs={
            "trial": proposal.trial,
            "fingerprint": proposal.architecture.fingerprint,
            "parameters": proposal.cost.parameters,
            "macs": proposal.cost.macs,
        },
        **_parameters(space, proposal.choices),
    )


def _estimate(value: float | None) -> dict[str, float]:
    """The user attribute of a trial that was stopped early and has a forecast."""
    return {} if value is None else {ESTIMATE: value}


def _parameters(space: SearchSpace, choices: Mapping[str, Any]) -> dict[str, Any]:
    """Choices, with what they were chosen from, as Optuna takes them."""
    _, asked = space.replay(choices)
    return {
        "params": {name: choices[name] for name in asked},
        "distributions": {name: distribution_of(options) for name, options in asked.items()},
    }
