"""`Proposer`: proposals on disk before anyone gets them and, if wanted, made ahead while workers train."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from dacnn_search.search.sampler.proposals import Proposal, Proposals
from dacnn_search.storage.ledger import Ledger

__all__ = ["Proposer"]


class Proposer:
    """Asks `Proposals` and records each answer, with how many trials had finished when it was asked for.

    One proposal can be made ahead, in a thread of its own, so that no worker waits for the sampler. What the sampler
    is told reaches it just before it is asked the next time: proposals follow from the order of calls alone, never
    from how long anything took. facts: what else a recorded proposal tells.
    """

    def __init__(self, proposals: Proposals, ledger: Ledger, facts: Mapping[str, Any]) -> None:
        self._proposals = proposals
        self._ledger = ledger
        self._facts = facts
        self._untold: list[tuple[Proposal, Mapping[str, Any]]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="proposer")
        self._ahead: Future[Proposal | None] | None = None

    def tell(self, proposal: Proposal, record: Mapping[str, Any]) -> None:
        """Report how a trial ended, as the ledger has it."""
        self._untold.append((proposal, record))

    def look_ahead(self, finished: int) -> None:
        """Have the next proposal made meanwhile, if it is not being made already."""
        if self._ahead is None:
            self._ahead = self._thread.submit(self._ask, finished, self._take_untold())

    def next(self, finished: int) -> Proposal | None:
        """The next proposal, on disk; None if the space is exhausted. Raises OSError if it can't be written."""
        if self._ahead is None:
            return self._ask(finished, self._take_untold())
        ahead, self._ahead = self._ahead, None
        return ahead.result()

    def close(self) -> Proposal | None:
        """End the thread; the proposal that was made ahead, if nobody got it."""
        self._thread.shutdown()
        ahead, self._ahead = self._ahead, None
        return ahead.result() if ahead is not None and ahead.exception() is None else None

    def _take_untold(self) -> list[tuple[Proposal, Mapping[str, Any]]]:
        untold, self._untold = self._untold, []
        return untold

    def _ask(self, finished: int, untold: list[tuple[Proposal, Mapping[str, Any]]]) -> Proposal | None:
        self._tell(untold)
        proposal = self._proposals.propose()
        if proposal is not None:
            self._ledger.append(
                {
                    "trial": proposal.trial,
                    "fingerprint": proposal.architecture.fingerprint,
                    "choices": proposal.choices,
                    "duplicates": proposal.duplicates,
                    "finished": finished,
                    "first_trial": self._proposals.first_trial,
                    **self._facts,
                }
            )
        return proposal

    def _tell(self, untold: list[tuple[Proposal, Mapping[str, Any]]]) -> None:
        for proposal, record in untold:
            self._proposals.tell(proposal, record["state"], record["accuracy"], record["estimate"])
