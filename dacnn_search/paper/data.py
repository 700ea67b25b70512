"""The images that stand for the paper's data sets."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dacnn_search.data.dataset import DataConfig, ImageData, load
from dacnn_search.data.published import KNOWN_SETS
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import Cost, estimate_cost

__all__ = ["PaperData", "load_data"]


@dataclass(frozen=True, eq=False)
class PaperData:
    """A data set in memory, without a validation part."""

    dataset: str  # its name in the paper
    config: DataConfig  # where the images were read from
    images: ImageData
    digest: str  # the identity of all images and labels, wherever they were read from: 16 hex digits

    def cost(self, architecture: Architecture) -> Cost:
        """Return the size of a network for these images."""
        return estimate_cost(architecture, self.images.input_shape, self.images.num_classes)

    @property
    def is_whole(self) -> bool:
        """True if there are as many images and classes as in the published data set."""
        return (len(self.images.train), len(self.images.test), self.images.num_classes) == self._published_sizes

    @property
    def _published_sizes(self) -> tuple[int, int, int]:
        known = KNOWN_SETS[self.dataset]
        return sum(known.train_counts), sum(known.test_counts), len(known.train_counts)

    @property
    def note(self) -> str:
        """The sizes, and how uncertain an error on these test images is."""
        images, (train, test, classes) = self.images, self._published_sizes
        origin = "" if images.name == self.dataset else f" (from {Path(self.config.root or '').name})"
        deviation = 50 / len(images.test) ** 0.5  # points: the largest standard error of a share of so many images
        whole = f" The published set has {train:,} and {test:,} images of {classes}."
        return (
            f"{self.dataset}{origin}: {len(images.train):,} training and {len(images.test):,} test images, "
            f"{images.num_classes} classes. The test images alone give an error a standard error of up to "
            f"{deviation:.2f} points, a difference of two {2**0.5 * deviation:.2f}; the seed adds to that."
            f"{'' if self.is_whole else whole}"
        )


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
