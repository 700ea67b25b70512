"""The images that stand for the paper's data sets."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dacnn_search.data.dataset import DataConfig, ImageData, load
from dacnn_search.data.published import KNOWN_SETS

__all__ = ["PaperData", "load_data"]


@dataclass(frozen=True, eq=False)
class PaperData:
    """A data set in memory, without a validation part.

    Args:
        dataset: The name of the data set in the paper.
        config: Where the images were read from.
        digest: The identity of all images and labels, wherever they were read from: 16 hex digits.
    """

    dataset: str
    config: DataConfig
    images: ImageData
    digest: str

    @property
    def is_whole(self) -> bool:
        """True if there are as many images and classes as in the published data set."""
        known, images = KNOWN_SETS[self.dataset], self.images
        published = (len(known.train_counts), sum(known.train_counts), sum(known.test_counts))
        return (images.num_classes, len(images.train), len(images.test)) == published

    @property
    def note(self) -> str:
        """The sizes, and how uncertain an error on these test images is."""
        images, known = self.images, KNOWN_SETS[self.dataset]
        origin = "" if images.name == self.dataset else f" (from {Path(self.config.root or '').name})"
        deviation = 50 / len(images.test) ** 0.5  # points: the largest standard error of a share of so many images
        note = (
            f"{self.dataset}{origin}: {len(images.train):,} training and {len(images.test):,} test images, "
            f"{images.num_classes} classes. The test images alone give an error a standard error of up to "
            f"{deviation:.2f} points, a difference of two {2**0.5 * deviation:.2f}; the seed adds to that."
        )
        if not self.is_whole:
            train, test, classes = sum(known.train_counts), sum(known.test_counts), len(known.train_counts)
            note += f" The published set has {train:,} and {test:,} images of {classes}."
        return note


def load_data(dataset: str, path: str, subset: int | None) -> PaperData:
    """Load a data set from an .npz file, or a folder to which it is downloaded. Raises DataError."""
    name = "npz" if path.endswith(".npz") else dataset
    config = DataConfig(name=name, root=path, validation=0.0, subset=subset)  # type: ignore[arg-type]
    images = load(config).with_validation_in_train()
    digest = hashlib.sha256(str(images.num_classes).encode())
    for split in (images.train, images.test):
        digest.update(str(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return PaperData(dataset, config, images, digest.hexdigest()[:16])
