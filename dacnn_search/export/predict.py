"""Classify images: `python -m dacnn_search.predict --model results/digits/best/01-3214 image.png folder/`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dacnn_search.common.errors import DataError, InputError
from dacnn_search.data.user import IMAGE_EXTENSIONS, read_images

if TYPE_CHECKING:
    from dacnn_search.export.classifier import Classifier

__all__ = ["classify", "find_images"]

BATCH = 256


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and the images in and below the folders among them, sorted.

    Raises DataError for a path that does not exist and for a folder without images.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            if not path.exists():
                raise DataError(f"{path}: no such file or folder")
            files.append(path)
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_EXTENSIONS and file.is_file())
        if not found:
            raise DataError(f"{path}: the folder must hold images ({' '.join(IMAGE_EXTENSIONS)}), but has none")
        files += found
    return files


def classify(model: "Classifier", files: Sequence[Path], top: int = 1) -> tuple[list[dict[str, Any]], list[str]]:
    """For each image `{"file", "classes": [{"name", "probability"}, ...]}`, the `top` likeliest classes first, and a
    message for each file that can't be read.

    Images are resized and cropped as a folder of training images is. Raises InputError if the network is not for grey
    or colour images.
    """
    channels, height, width = model.input.shape
    if channels not in (1, 3):
        raise InputError(f"image files have 1 or 3 channels, but the network is for {channels}")
    results: list[dict[str, Any]] = []
    problems: list[str] = []
    for start in range(0, len(files), BATCH):
        chosen, images = _read(files[start : start + BATCH], (height, width), channels, problems)
        if chosen:
            results += _likeliest(chosen, model.logits(images), model.classes, top)
    return results, problems


def _read(
    files: Sequence[Path], size: tuple[int, int], channels: int, problems: list[str]
) -> tuple[list[Path], np.ndarray]:
    """The files that can be read, and their images."""
    try:
        return list(files), read_images(files, size, channels)
    except DataError:  # one of them; find out which
        readable, images = [], []
        for file in files:
            try:
                images.append(read_images([file], size, channels))
                readable.append(file)
            except DataError as error:
                problems.append(str(error))
        return readable, np.concatenate(images) if images else np.empty((0, *size, channels), np.uint8)


def _likeliest(files: Sequence[Path], logits: np.ndarray, names: Sequence[str], top: int) -> Iterator[dict[str, Any]]:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    for file, row in zip(files, shares, strict=True):
        best = np.argsort(-row, kind="stable")[:top]
        classes = [{"name": names[i], "probability": round(float(row[i]), 6)} for i in best]
        yield {"file": str(file), "classes": classes}
