"""Classify images: `python -m dacnn_search.predict --model results/digits/best/01-3214 image.png folder/`."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from dacnn_search.common.command import PATH, at_least, command
from dacnn_search.common.errors import DataError, InputError
from dacnn_search.data.user import IMAGE_EXTENSIONS, read_images

if TYPE_CHECKING:
    from dacnn_search.export.classifier import Classifier

BATCH = 256


@command()
@click.option("--model", type=PATH, required=True, metavar="FOLDER", help="folder of an exported network")
@click.option("--top", type=at_least(1), default=1, help="show this many of the likeliest classes")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
@click.argument("images", type=PATH, nargs=-1, required=True)
def main(model: Path, top: int, as_json: bool, images: tuple[Path, ...]) -> int:
    """Classify IMAGES, which are image files and folders of them, with an exported network.

    The exit code is 2 if an image can't be read; the others are classified nevertheless.
    """
    files = [file for path in images for file in _find_images(path)]

    from dacnn_search.export.classifier import load_model

    problems: list[str] = []
    results = list(_classify(load_model(model), files, top, problems))
    if as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        widest = max((len(result["file"]) for result in results), default=0)
        for result in results:
            classes = "   ".join(f"{of['name']} {of['probability']:.1%}" for of in result["classes"])
            print(f"{result['file']:<{widest}}  {classes}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return InputError.exit_code if problems else 0


def _find_images(path: Path) -> list[Path]:
    """Return a file itself, of a folder the images in and below it, sorted."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_EXTENSIONS and file.is_file())
    if not found:
        raise DataError(f"{path}: the folder must hold images ({' '.join(IMAGE_EXTENSIONS)}), but has none")
    return found


def _classify(model: "Classifier", files: Sequence[Path], top: int, problems: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the `top` likeliest classes of each image; add a message to `problems` for each that can't be read.

    Images are resized and cropped as a folder of training images is.
    """
    channels, height, width = model.input.shape
    if channels not in (1, 3):
        raise InputError(f"image files have 1 or 3 channels, but the network is for {channels}")
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        try:
            logits = model.logits(read_images(batch, (height, width), channels))
        except DataError as error:
            if len(batch) == 1:
                problems.append(str(error))
            else:  # one by one, to leave out only those that can't be read
                for file in batch:
                    yield from _classify(model, [file], top, problems)
            continue
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        for file, row in zip(batch, probabilities, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            classes = [{"name": model.classes[i], "probability": round(float(row[i]), 6)} for i in best]
            yield {"file": str(file), "classes": classes}


if __name__ == "__main__":
    main()
