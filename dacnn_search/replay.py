"""Ask the sampler of a finished search again: `python -m dacnn_search.replay results/NAME`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dacnn_search.common.command import command
from dacnn_search.search.sampler.replay import replay
from dacnn_search.storage.run_directory import RunDirectory

__all__ = ["main"]


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, replay and report."""
    parser = argparse.ArgumentParser(
        prog="python -m dacnn_search.replay",
        description="Ask the sampler of a search again, in the order in which trials were proposed and finished, and "
        "confirm each proposal or say where it departs (exit code 1).",
    )
    parser.add_argument("run", type=Path, help="a run directory, results/NAME")
    confirmed, unknown, departure = replay(RunDirectory(parser.parse_args(arguments).run))
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
