"""Ask the sampler of a finished search again: `python -m dacnn_search.replay results/NAME`."""

from pathlib import Path

import click

from dacnn_search.common.command import PATH, command
from dacnn_search.search.sampler.replay import replay
from dacnn_search.storage.run_directory import RunDirectory

__all__ = ["main"]


@command()
@click.argument("run", type=PATH)
def main(run: Path) -> int:
    """Ask the sampler of the search in the run directory RUN again, in the order in which trials were proposed and
    finished, and confirm each proposal or say where it departs (exit code 1)."""
    confirmed, unknown, departure = replay(RunDirectory(run))
    print(f"{confirmed} proposals confirmed")
    if unknown:
        print(f"{unknown} proposals were not recorded, or made in a space that the run no longer has")
    if departure:
        print(
            f"departs at trial {departure.trial}: recorded is network {departure.recorded}, but the sampler proposes "
            f"{departure.proposed or 'none'}"
        )
    return 1 if departure else 0


if __name__ == "__main__":
    main()
