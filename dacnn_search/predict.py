"""Classify images: `python -m dacnn_search.predict --model results/digits/best/01-3214 image.png folder/`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dacnn_search.common.command import PATH, at_least, command
from dacnn_search.common.errors import InputError
from dacnn_search.export.predict import classify, find_images

__all__ = ["main"]


@command()
@click.option("--model", type=PATH, required=True, metavar="FOLDER", help="folder of an exported network")
@click.option("--top", type=at_least(1), default=1, help="show this many of the likeliest classes")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
@click.argument("images", type=PATH, nargs=-1, required=True)
def main(model: Path, top: int, as_json: bool, images: tuple[Path, ...]) -> int:
    """Classify IMAGES, which are image files and folders of them, with an exported network.

    The exit code is 2 if an image can't be read; the others are classified nevertheless.
    """
    files = find_images(images)

    from dacnn_search.export.classifier import load_model

    results, problems = classify(load_model(model), files, top)
    if as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        _print_table(results)
    for problem in problems:
        print(problem, file=sys.stderr)
    return InputError.exit_code if problems else 0


def _print_table(results: Sequence[dict[str, Any]]) -> None:
    widest = max((len(result["file"]) for result in results), default=0)
    for result in results:
        classes = "   ".join(f"{of['name']} {of['probability']:.1%}" for of in result["classes"])
        print(f"{result['file']:<{widest}}  {classes}")


if __name__ == "__main__":
    main()
