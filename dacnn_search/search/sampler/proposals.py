"""Propose what to train next: an Optuna sampler proposes; infeasible and known networks are turned away untrained."""

import contextlib
import datetime
import itertools
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from dacnn_search.common.errors import RunDirectoryError, SpaceError
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import COSTS, Cost
from dacnn_search.search.sampler.domain import distribution_of
from dacnn_search.search.sampler.prior import Prior
from dacnn_search.search.sampler.surrogate import DIRECTIONS, ESTIMATE, SHORT, SurrogateSampler
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SearchSettings
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.resume import space_id

ATTRIBUTES = ("trial", "fingerprint", *COSTS, "accuracy", "epochs", "seconds", "reason", ESTIMATE, SHORT)
MOST_ASKED = 16  # proposals turned away in a row, before we stop asking the sampler and draw by ourselves
MOST_DRAWN = 64  # known networks drawn in a row, before we go through the space in its order


@dataclass(frozen=True)
class SamplerOptions:
    """What a sampler is made with, beside a seed and the space."""

    objective: str = "parameters"
    prior: str | Prior = "auto"
    first_share: float = 0.0  # of the epochs of a trial, that its first cycle takes; 0 without one


SamplerFactory = Callable[[int, SearchSpace, SamplerOptions], BaseSampler]


def _surrogate(seed: int, space: SearchSpace, options: SamplerOptions) -> SurrogateSampler:
    return SurrogateSampler(seed, space, options.objective, options.prior, options.first_share)


SAMPLERS: dict[str, SamplerFactory] = {
    "auto": _surrogate,
    # Choices that are asked together are modelled together. Running trials count as bad ones: workers do not flock.
    "tpe": lambda seed, *_: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True),
    "nsga2": lambda seed, *_: optuna.samplers.NSGAIISampler(seed=seed),
    "nsga3": lambda seed, *_: optuna.samplers.NSGAIIISampler(seed=seed),
    "gp": lambda seed, *_: optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False),
    "random": lambda seed, *_: optuna.samplers.RandomSampler(seed=seed),
    "surrogate": _surrogate,
    "qmc": lambda seed, *_: optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False),
}


@dataclass(frozen=True)
class Proposal:
    """A network to be trained as trial number `trial`. duplicates: known networks proposed since the last proposal."""

    trial: int
    architecture: Architecture
    choices: dict[str, Any]
    cost: Cost
    duplicates: int


class Proposer:
    """Gets the proposals of a search and records each of them, in `proposed`, before anyone trains it.

    One proposal can be made ahead, in another thread, so that no worker waits for the sampler. The sampler hears how
    trials ended just before it is asked again: proposals follow from the order of calls, never from their timing.
    """

    def __init__(self, space: SearchSpace, settings: SearchSettings, ledger: Ledger, proposed: Ledger) -> None:
        first_cycle, epochs = settings.first_cycle(space.settings.recipe.epochs), space.settings.recipe.epochs
        options = SamplerOptions(settings.objective, settings.prior, first_cycle / epochs)
        self._proposals = Proposals(space, settings.sampler, settings.seed, ledger.records, proposed.records, options)
        self.reopened = self._proposals.reopened  # what earlier sessions proposed and did not finish
        self._proposed = proposed
        self._facts = {
            "first_trial": self._proposals.first_trial,
            "session": len(ledger.records),
            "sampler": settings.sampler,
            "seed": settings.seed,
            "prior": settings.prior,
            "first_cycle": first_cycle,
            "space": space_id(space.settings),
        }
        self._ended: list[tuple[Proposal, Mapping[str, Any]]] = []  # trials whose end the sampler has not heard of
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="proposer")
        self._ahead: Future[Proposal | None] | None = None

    def tell(self, proposal: Proposal, record: Mapping[str, Any]) -> None:
        """Report how a trial ended, as the ledger records it."""
        self._ended.append((proposal, record))

    def first_cycle_over(self, proposal: Proposal, accuracy: float, *, asks: bool) -> bool:
        """Report the accuracy of a running trial after its first cycle; return whether it is to be trained in full, if
        the sampler is asked for that."""

        def judge(ended: list[tuple[Proposal, Mapping[str, Any]]]) -> bool:
            self._tell(ended)
            self._proposals.tell_short(proposal.trial, accuracy)
            return not asks or self._proposals.is_worth_finishing(proposal.trial)

        judged = self._thread.submit(judge, self._ended)  # after a proposal that is being made
        self._ended = []
        return judged.result()

    def look_ahead(self, finished: int) -> "Future[Proposal | None]":
        """Start making the next proposal, unless that has been started."""
        if self._ahead is None:
            self._ahead = self._thread.submit(self._ask, finished, self._ended)
            self._ended = []
        return self._ahead

    def next(self, finished: int) -> Proposal | None:
        """Return the next proposal, or None if the space is exhausted. Raises OSError if it can't be recorded."""
        ahead, self._ahead = self.look_ahead(finished), None
        return ahead.result()

    def close(self) -> Proposal | None:
        """End the thread and return the proposal that was made ahead, if nobody got it."""
        self._thread.shutdown()
        ahead, self._ahead = self._ahead, None
        return ahead.result() if ahead is not None and ahead.exception() is None else None

    def _ask(self, finished: int, ended: list[tuple[Proposal, Mapping[str, Any]]]) -> Proposal | None:
        self._tell(ended)
        shorts = list(self._proposals.shorts.items())
        asked = self._proposals.propose()
        if asked is not None:
            line = {"trial": asked.trial, "fingerprint": asked.architecture.fingerprint, "choices": asked.choices}
            told = {"finished": finished, "shorts": shorts}
            self._proposed.append({**line, "duplicates": asked.duplicates, **told, **self._facts})
        return asked

    def _tell(self, ended: list[tuple[Proposal, Mapping[str, Any]]]) -> None:
        for proposal, record in ended:
            self._proposals.tell(proposal, record["state"], record["accuracy"], record["estimate"])


class Proposals:
    """Proposes networks that meet the constraints, each at most once.

    The same arguments and the same order of `propose` and `tell` give the same proposals. The seed of the sampler
    depends on how many trials there were before this session: a resumed search does not repeat its first draws.

    `records` and `proposed` are the lines of the two ledgers from earlier sessions. What did not finish is `reopened`,
    under its old number. Raises RunDirectoryError if a choice of such a line is not one of the space's.
    """

    def __init__(
        self,
        space: SearchSpace,
        sampler: str | SamplerFactory,  # a name of SAMPLERS, or what makes one
        seed: int,
        records: Sequence[Mapping[str, Any]] = (),
        proposed: Sequence[Mapping[str, Any]] = (),
        options: SamplerOptions = SamplerOptions(),
    ) -> None:
        self.space = space
        self._objective = options.objective
        self.first_trial = max((line["trial"] + 1 for line in (*records, *proposed)), default=0)
        self._open: dict[int, optuna.Trial] = {}
        self._numbers = itertools.count(self.first_trial)
        self._generator = random.Random(f"{seed} {self.first_trial}")
        make = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
        with quiet_optuna():
            self._sampler = make(self._generator.getrandbits(32), space, options)
            self._study = optuna.create_study(directions=DIRECTIONS, sampler=self._sampler)
        self._study.add_trials(frozen_trial(space, record, options.objective) for record in records)
        self._known = {record["fingerprint"] for record in records}
        finished = {record["trial"] for record in records}
        self.reopened = [self._reopen(line) for line in proposed if line["trial"] not in finished]

    def propose(self) -> Proposal | None:
        """Return the next network, or None if every network that meets the constraints is known."""
        duplicates = 0
        for _ in range(MOST_ASKED):
            trial = self._study.ask()
            architecture = self.space.suggest(trial)
            if architecture.fingerprint in self._known:
                duplicates += 1
            elif self.space.meets_constraints(architecture):
                return self._accept(next(self._numbers), trial, duplicates)
            self._study.tell(trial, state=TrialState.FAIL)
        drawn = (self.space.draw(self._generator) for _ in range(MOST_DRAWN))
        for architecture, choices in itertools.chain(drawn, self.space.networks(self._known)):
            if architecture.fingerprint not in self._known:
                return self._accept(next(self._numbers), self._ask_for(choices), duplicates)
        return None

    def tell_short(self, trial: int, accuracy: float) -> None:
        """Report the accuracy of a running trial after its first cycle."""
        self._open[trial].set_user_attr(SHORT, accuracy)

    @property
    def shorts(self) -> dict[int, float]:
        """The accuracies after the first cycle of the trials that run, by trial."""
        attributes = {number: trial.user_attrs for number, trial in self._open.items()}
        return {number: of[SHORT] for number, of in attributes.items() if SHORT in of}

    def is_worth_finishing(self, trial: int) -> bool:
        """Return whether a running trial whose first cycle is over is to be trained in full."""
        assert isinstance(self._sampler, SurrogateSampler)
        frozen = self._study.get_trials(deepcopy=False)[self._open[trial].number]
        return self._sampler.is_worth_finishing(self._study, frozen)

    def tell(
        self, proposal: Proposal, state: str, accuracy: float | None = None, estimate: float | None = None
    ) -> None:
        """Report how a trial ended: COMPLETE with its accuracy, PRUNED with an estimate of it if there is one, FAIL."""
        trial = self._open.pop(proposal.trial)
        trial.set_user_attr(ESTIMATE, estimate)
        size = getattr(proposal.cost, self._objective)
        values = (accuracy, size) if accuracy is not None and state == "COMPLETE" else None
        self._study.tell(trial, values, TrialState[state])

    def _reopen(self, line: Mapping[str, Any]) -> Proposal:
        try:
            self.space.replay(line["choices"])
        except SpaceError as error:
            raise RunDirectoryError(f"proposals.jsonl: trial {line['trial']} must be of the space: {error}") from None
        return self._accept(line["trial"], self._ask_for(line["choices"]), line["duplicates"])

    def _ask_for(self, choices: Mapping[str, Any]) -> optuna.Trial:
        self._study.enqueue_trial(dict(choices))
        return self._study.ask()

    def _accept(self, number: int, trial: optuna.Trial, duplicates: int) -> Proposal:
        architecture = self.space.suggest(trial)
        self._known.add(architecture.fingerprint)
        self._open[number] = trial
        return Proposal(number, architecture, trial.params, self.space.cost(architecture), duplicates)


def frozen_trial(space: SearchSpace, record: Mapping[str, Any], objective: str = "parameters") -> FrozenTrial:
    """Return a ledger record, or one of an unfinished trial, as an Optuna trial; its figures are user attributes."""
    _, asked = space.replay(record["choices"])
    trial = optuna.trial.create_trial(
        state=TrialState[record["state"]],
        values=(record["accuracy"], record[objective]) if record["state"] == "COMPLETE" else None,
        params={name: record["choices"][name] for name in asked},
        distributions={name: distribution_of(options) for name, options in asked.items()},
        user_attrs={name: record[name] for name in ATTRIBUTES if name in record},
    )
    if trial.state.is_finished():
        end = datetime.datetime.fromisoformat(record["time"]).astimezone().replace(tzinfo=None)  # local, as Optuna's
        trial.datetime_start = end - datetime.timedelta(seconds=record["finished"] - record["started"])
        trial.datetime_complete = end
    return trial


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's announcements of studies and its warnings that a feature is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
