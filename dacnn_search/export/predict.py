"""Classify image files with a trained network."""

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
    """Return the files among `paths`, and the images in and below the folders among them, sorted.

    Raises DataError for a path that does not exist and for a folder without images.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_EXTENSIONS and file.is_file())
        if not found:
            raise DataError(f"{path}: the folder must hold images ({' '.join(IMAGE_EXTENSIONS)}), but has none")
        files += found
    return files


def classify(model: "Classifier", files: Sequence[Path], top: int = 1) -> tuple[list[dict[str, Any]], list[str]]:
    """Classify images, which are resized and cropped as a folder of training images is.

    Returns `{"file", "classes": [{"name", "probability"}, ...]}` per image, the `top` likeliest classes first, and a
    message per file that can't be read. Raises InputError if the network is not for grey or colour images.
    """
    channels, height, width = model.input.shape
    if channels not in (1, 3):
        raise InputError(f"image files have 1 or 3 channels, but the network is for {channels}")
    results: list[dict[str, Any]] = []
    problems: list[str] = []
    for start in range(0, len(files), BATCH):
        batch: Sequence[Path] = files[start : start + BATCH]
        try:
            images = read_images(batch, (height, width), channels)
        except DataError:
            batch, images = _read_singly(batch, (height, width), channels, problems)
        results += _likeliest(batch, model.logits(images), model.classes, top)
    return results, problems


def _read_singly(
    files: Sequence[Path], size: tuple[int, int], channels: int, problems: list[str]
) -> tuple[list[Path], np.ndarray]:
    """Return the files that can be read and their images; add a message to `problems` for each of the others."""
    readable, images = [], [np.empty((0, *size, channels), np.uint8)]
    for file in files:
        try:
            images.append(read_images([file], size, channels))
            readable.append(file)
        except DataError as error:
            problems.append(str(error))
    return readable, np.concatenate(images)


def _likeliest(files: Sequence[Path], logits: np.ndarray, names: Sequence[str], top: int) -> Iterator[dict[str, Any]]:
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    for file, row in zip(files, probabilities, strict=True):
        best = np.argsort(-row, kind="stable")[:top]
        classes = [{"name": names[i], "probability": round(float(row[i]), 6)} for i in best]
        yield {"file": str(file), "classes": classes}
