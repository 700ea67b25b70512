"""Ask the sampler of a finished search again: `python -m dacnn_search.replay results/NAME`."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from dacnn_search.common.command import PATH, command
from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.storage.run_directory import RunDirectory


@command()
@click.argument("run", type=PATH)
def main(run: Path) -> int:
    """Ask the sampler of the search in the run directory RUN again, in the order in which trials were proposed and
    finished, and confirm each proposal or say where it departs (exit code 1)."""
    confirmed, unknown, departure = replay(RunDirectory(run))
    print(f"{confirmed} proposals confirmed")
    if unknown:
        print(f"{unknown} proposals can't be asked for: they were not recorded, or are of another space or version")
    if departure:
        print(f"departs at {departure}")
    return 1 if departure else 0


def replay(run: RunDirectory) -> tuple[int, int, str | None]:
    """Ask again for every proposal of a run. Takes as long as the sampler took in the search.

    Returns how many proposals were confirmed, how many could not be asked for (made in a space that the run no longer
    has, by a sampler that an older version had, or before proposals were recorded), and the first departure in words,
    at which it ends.
    """
    from dacnn_search.storage.resume import check_nothing_lost, space_id

    space, lines, records = run.space, run.proposals, run.records
    check_nothing_lost(run, records, lines)
    current = space_id(space.settings)
    confirmed = unknown = 0
    for first, group in itertools.groupby(lines, key=lambda line: line["first_trial"]):
        session = list(group)
        if any(line["space"] != current or _is_of_older_sampler(line) for line in session):
            unknown += len(session)
            continue
        earlier = [line for line in lines if line["trial"] < first]
        for line, proposed in zip(session, _ask_again(space, run.objective, session, earlier, records), strict=True):
            trial, recorded = line["trial"], line["fingerprint"]
            if proposed != recorded:
                departure = f"trial {trial}: recorded is network {recorded}, but the sampler proposes {proposed}"
                return confirmed, unknown, departure
            confirmed += 1
    return confirmed, unknown + len({r["trial"] for r in records} - {line["trial"] for line in lines}), None


def _is_of_older_sampler(line: Mapping[str, Any]) -> bool:
    """Return whether a proposal was made by the sampler `surrogate` when it had no prior."""
    return line["sampler"] in ("auto", "surrogate") and "prior" not in line


def _ask_again(
    space: Any,
    objective: str,
    session: Sequence[Mapping[str, Any]],
    earlier: Sequence[Mapping[str, Any]],
    records: Sequence[Any],
) -> Iterator[str]:
    """Yield the fingerprint (or "none") of each proposal of a session, reporting the ends of trials in between as the
    search did."""
    from dacnn_search.search.sampler.proposals import Proposals, SamplerOptions

    settings = session[0]
    reported = settings["session"]
    proposals = Proposals(
        space,
        settings["sampler"],
        settings["seed"],
        records[:reported],
        earlier,
        SamplerOptions(
            objective, settings.get("prior", "none"), settings.get("first_cycle", 0) / space.settings.recipe.epochs
        ),
    )
    open_trials = {proposal.trial: proposal for proposal in proposals.reopened}
    for line in session:
        for record in records[reported : line["finished"]]:
            trial = record["trial"]
            if trial not in open_trials:
                raise RunDirectoryError(
                    f"a ledger must have a line for every trial, but trial {trial} ends in it before it is "
                    "proposed: lines are missing"
                )
            if record.get("short") is not None:
                proposals.tell_short(trial, record["short"])
            proposals.tell(open_trials.pop(trial), record["state"], record["accuracy"], record.get("estimate"))
        for trial, accuracy in line.get("shorts", ()):
            proposals.tell_short(trial, accuracy)
        reported = line["finished"]
        asked = proposals.propose()
        yield asked.architecture.fingerprint if asked else "none"
        if asked:
            open_trials[asked.trial] = asked


if __name__ == "__main__":
    main()
