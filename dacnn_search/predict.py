"""Classify images: `python -m dacnn_search.predict --model results/digits/best/01-3214 image.png folder/`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dacnn_search.common.command import command, whole
from dacnn_search.common.errors import InputError
from dacnn_search.export.predict import classify, find_images

__all__ = ["main"]


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, classify, print. The exit code is 2 if an image can't be read; the others are done."""
    options = _parser().parse_args(arguments)
    files = find_images(options.images)

    from dacnn_search.export.classifier import load_model

    results, problems = classify(load_model(options.model), files, options.top)
    if options.json:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dacnn_search.predict", description="Classify images with an exported network."
    )
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="folder of an exported network")
    parser.add_argument("images", type=Path, nargs="+", help="image files, and folders of them")
    parser.add_argument("--top", type=whole(1), default=1, help="show this many of the likeliest classes (1)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


if __name__ == "__main__":
    main()
