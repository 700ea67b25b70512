"""Ask the sampler of a finished search again, in the order of events, and compare its proposals with those on record.

python -m dacnn_search.replay results/NAME
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.storage.run_directory import RunDirectory

__all__ = ["Departure", "replay"]


@dataclass(frozen=True)
class Departure:
    """The first trial for which the sampler, asked again, proposes another network.

    recorded, proposed: fingerprints; `proposed` is None if the sampler has nothing to propose.
    """

    trial: int
    recorded: str
    proposed: str | None


def replay(run: RunDirectory) -> tuple[int, int, Departure | None]:
    """Ask again for every proposal of a run. Takes as long as the sampler took in the search.

    Returns how many proposals were confirmed, how many could not be asked for (made in a space that the run no longer
    has, or before proposals were recorded), and the first departure, at which it ends.
    """
    from dacnn_search.storage.resume import check_nothing_lost, space_id

    space, lines, records = run.space, run.proposals, run.records
    check_nothing_lost(run, records, lines)
    current = space_id(space.settings)
    confirmed = unknown = 0
    for first, group in itertools.groupby(lines, key=lambda line: line["first_trial"]):
        session = list(group)
        if any(line["space"] != current for line in session):
            unknown += len(session)
            continue
        departure = _replay_session(space, session, [line for line in lines if line["trial"] < first], records)
        if departure:
            return confirmed + departure.trial - first, unknown, departure
        confirmed += len(session)
    return confirmed, unknown + len({r["trial"] for r in records} - {line["trial"] for line in lines}), None


def _replay_session(
    space: Any, session: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]], records: Sequence[Any]
) -> Departure | None:
    """Ask for the proposals of one session, reporting the ends of trials in between as the search did."""
    from dacnn_search.search.sampler.proposals import Proposals

    settings = session[0]
    reported = settings["session"]
    proposals = Proposals(space, settings["sampler"], settings["seed"], records[:reported], earlier)
    open_trials = {proposal.trial: proposal for proposal in proposals.reopened}
    for line in session:
        for record in records[reported : line["finished"]]:
            if record["trial"] not in open_trials:
                raise RunDirectoryError(
                    f"a ledger must have a line for every trial, but trial {record['trial']} ends in it before it is "
                    "proposed: lines are missing"
                )
            proposals.tell(
                open_trials.pop(record["trial"]), record["state"], record["accuracy"], record.get("estimate")
            )
        reported = line["finished"]
        asked = proposals.propose()
        if asked is None or asked.architecture.fingerprint != line["fingerprint"]:
            proposed = None if asked is None else asked.architecture.fingerprint
            return Departure(line["trial"], line["fingerprint"], proposed)
        open_trials[asked.trial] = asked
    return None
