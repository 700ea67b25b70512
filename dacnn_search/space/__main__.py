"""Preview a search space: `python -m dacnn_search.space search_spaces/default.yaml`."""

import json
from pathlib import Path

import click

from dacnn_search.common.command import PATH, command
from dacnn_search.space.preview import preview
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SpaceSettings


@command()
@click.argument("space", type=PATH, required=False)
@click.option("--seed", type=int, default=0, help="seed of the networks drawn")
@click.option("--schema", is_flag=True, help="print the JSON Schema of search spaces for editors")
def main(space: Path | None, seed: int, schema: bool) -> None:
    """Check the search space in the YAML file SPACE, such as search_spaces/default.yaml, and show what it holds.

    Nothing is trained.
    """
    if schema:
        print(json.dumps(SpaceSettings.model_json_schema(), indent=2))
    elif space is None:
        raise click.UsageError("a YAML file is needed, such as search_spaces/default.yaml")
    else:
        print(preview(SearchSpace.from_yaml(space), seed))


if __name__ == "__main__":
    main()
