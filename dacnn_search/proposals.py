"""What to train next: an Optuna study proposes, what is infeasible or known is turned away before it costs anything."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from dacnn_search.architecture import Architecture
from dacnn_search.cost import Cost
from dacnn_search.samplers import distribution_of, make_sampler, quiet_optuna
from dacnn_search.space import SearchSpace

__all__ = ["Proposal", "Proposals", "frozen_trial"]

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)  # accuracy, parameters
MOST_REJECTIONS = 64  # in a row, before we stop asking the sampler and draw by ourselves


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

    records: what earlier sessions of the search finished, as in the ledger. The sampler's seed depends on how many
    there are, so that a resumed search does not repeat its first random draws. With one worker, the same seed and
    records give the same proposals.
    """

    def __init__(self, space: SearchSpace, sampler: str, seed: int, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self.space = space
        with quiet_optuna():
            self._study = optuna.create_study(directions=DIRECTIONS)
        self._known: set[str] = set()
        self._open: dict[int, optuna.Trial] = {}
        self._next_trial = 0
        for record in records:
            self._study.add_trial(frozen_trial(space, record))
            self._known.add(record["fingerprint"])
            self._next_trial = max(self._next_trial, record["trial"] + 1)
        generator = random.Random(f"{seed} {len(self._known)}")
        self._study.sampler = make_sampler(sampler, generator.getrandbits(32))
        self._generator = generator

    def propose(self) -> Proposal | None:
        """The next network; None if every network of the space that meets the constraints is known."""
        duplicates = 0
        for _ in range(MOST_REJECTIONS):
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
        self._study.enqueue_trial(choices)
        trial = self._study.ask()
        self.space.suggest(trial)
        return self._accept(trial, architecture, choices, duplicates)

    def tell(self, proposal: Proposal, state: str, accuracy: float | None) -> None:
        """Report how a trial ended: COMPLETE with its accuracy, PRUNED or FAIL."""
        trial = self._open.pop(proposal.trial)
        if accuracy is not None and state == "COMPLETE":
            self._study.tell(trial, (accuracy, proposal.cost.parameters))
        else:
            self._study.tell(trial, state=TrialState[state])

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
        for _ in range(MOST_REJECTIONS):
            architecture, choices = self.space.draw(self._generator)
            if architecture.fingerprint not in self._known:
                return architecture, choices
        return next(self.space.networks(self._known), None)


def frozen_trial(space: SearchSpace, record: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    """A ledger's record as a finished Optuna trial, with its curve and identity as user attributes."""
    _, asked = space.replay(record["choices"])
    complete = record["state"] == "COMPLETE"
    attributes = ("trial", "fingerprint", "parameters", "macs", "accuracy", "epochs", "seconds", "reason")
    return optuna.trial.create_trial(
        state=TrialState[record["state"]],
        values=(record["accuracy"], record["parameters"]) if complete else None,
        params=record["choices"],
        distributions={name: distribution_of(options) for name, options in asked.items()},
        user_attrs={name: record[name] for name in attributes},
    )
