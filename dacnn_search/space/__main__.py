"""Preview a search space: `python -m dacnn_search.space search_spaces/default.yaml`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from dacnn_search.common.command import command
from dacnn_search.space.preview import preview
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SpaceSettings


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Preview a search space."""
    parser = argparse.ArgumentParser(
        prog="python -m dacnn_search.space",
        description="Check a search space and show what it holds, without training anything.",
    )
    parser.add_argument("space", nargs="?", type=Path, help="YAML file, such as search_spaces/default.yaml")
    parser.add_argument("--seed", type=int, default=0, help="of the networks drawn (default 0)")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of search spaces for editors")
    options = parser.parse_args(arguments)
    if options.schema:
        print(json.dumps(SpaceSettings.model_json_schema(), indent=2))
    elif options.space is None:
        parser.error("a YAML file is needed, such as search_spaces/default.yaml")
    else:
        print(preview(SearchSpace.from_yaml(options.space), options.seed))


if __name__ == "__main__":
    main()
