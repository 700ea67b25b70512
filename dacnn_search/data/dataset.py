"""A data set in memory, divided into train, validation and test.

Images are uint8 arrays (N, H, W, C), labels int64 arrays (N,). The division is stratified and depends only on the
labels and the config. A search sees train and validation. Test is for the final training alone.
"""

from collections.abc import Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dacnn_search.common.errors import DataError
from dacnn_search.data.published import KNOWN_SETS, KnownSet, Source, open_known
from dacnn_search.data.user import open_folder, open_npz

Share = Annotated[float, Field(ge=0, le=0.9)]


class DataConfig(BaseModel):
    """The part `data:` of a search space: the data set and how it is divided."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    name: Literal["digits", "cifar10", "cifar100", "svhn", "fashion_mnist", "folder", "npz"] = Field(
        description="The data set; 'folder' is a tree of image files, 'npz' a file with MedMNIST's keys."
    )
    root: str | None = Field(
        default=None,
        min_length=1,
        description="Where the data are: the tree of images for folder, the file for npz, and for cifar10, "
        "cifar100, svhn and fashion_mnist the folder of their files (default 'data'). Not for digits.",
    )
    image_size: int | None = Field(
        default=None,
        ge=8,
        le=256,
        description="Only for folder, required there: images are resized and cropped to this square size.",
    )
    channels: Literal[1, 3] = Field(default=3, description="Only for folder: 1 reads images as grey, 3 as colour.")
    validation: Share = Field(
        default=0.2, description="Share of the training images held out for validation, unless the set brings its own."
    )
    test: Share = Field(
        default=0.2, description="Share of all images held out for the test, unless the set brings its own."
    )
    split_seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="Seed of the draw of the subset, validation and test images."
    )
    subset: int | None = Field(
        default=None,
        ge=1,
        description="For quick trials: keep only this many training images, before validation is held out.",
    )

    @model_validator(mode="after")
    def _check_name(self) -> "DataConfig":
        required = {"folder": ("root", "image_size"), "npz": ("root",)}.get(self.name, ())
        broken = [f"{key} is required for data set '{self.name}'" for key in required if getattr(self, key) is None]
        if self.root is not None and self.name == "digits":
            broken.append(f"root is not allowed for data set 'digits', but is '{self.root}'")
        for key in ("image_size", "channels"):
            value = getattr(self, key)
            if self.name != "folder" and key in self.model_fields_set and value is not None:
                broken.append(f"{key} is only allowed for data set 'folder', but is {value} for '{self.name}'")
        if broken:
            raise ValueError("; ".join(broken))
        return self


Array = TypeVar("Array", bound=Sized)


@dataclass(frozen=True)
class Split(Generic[Array]):
    """One part of a data set, as arrays or tensors: images (N, H, W, C) uint8, C-contiguous, labels (N,) int64."""

    images: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageData:
    """A data set in memory. Validation and test may be empty."""

    name: str  # of the data set; of the file or folder where it is the user's own
    class_names: tuple[str, ...]
    train: Split[np.ndarray]
    validation: Split[np.ndarray]
    test: Split[np.ndarray]
    mean: tuple[float, ...]  # per channel, of the training images scaled to [0, 1]
    std: tuple[float, ...]  # per channel, at least 1/255
    flip: bool  # a mirrored image keeps its label

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        height, width, channels = self.train.images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return sum(split.images.nbytes for split in (self.train, self.validation, self.test))

    def without_test(self) -> "ImageData":
        """Return what a search may see."""
        return replace(self, test=Split(self.test.images[:0], self.test.labels[:0]))

    def with_validation_in_train(self) -> "ImageData":
        """Join train and validation, for the final training. Mean and std stay."""
        joined = Split(
            np.concatenate([self.train.images, self.validation.images]),
            np.concatenate([self.train.labels, self.validation.labels]),
        )
        return replace(self, train=joined, validation=Split(self.validation.images[:0], self.validation.labels[:0]))


@dataclass(frozen=True)
class DataSummary:
    """Shape and sizes of a data set, known without reading its images."""

    input_shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int
    train_size: int  # after validation images are held out
    validation_size: int
    test_size: int


def load(config: DataConfig) -> ImageData:
    """Read a data set into memory and divide it.

    Missing files of cifar10, cifar100, svhn and fashion_mnist are downloaded. Raises DataError for files that are
    missing or damaged, and for classes too small to be divided.
    """
    source = _open(config)
    parts = {
        part: Split(np.ascontiguousarray(source.read(pool, indices)), source.labels[pool][indices])
        for part, (pool, indices) in _divide(config, source).items()
    }
    mean, std = _statistics(parts["train"].images)
    return ImageData(source.name, source.class_names, **parts, mean=mean, std=std, flip=source.flip)


def summarise(config: DataConfig) -> DataSummary:
    """Return the shape and sizes of what `load` returns, without reading images or importing torch.

    The published sets need no files. Raises DataError for the files of a folder or npz set that break a rule.
    """
    source = KNOWN_SETS.get(config.name) or _open(config)
    sizes = {f"{part}_size": len(indices) for part, (_, indices) in _divide(config, source).items()}
    return DataSummary(source.input_shape, len(source.class_names), **sizes)


def _open(config: DataConfig) -> Source:
    try:
        root = Path(config.root or "data").expanduser()
    except RuntimeError as error:  # ~name of nobody
        raise DataError(f"data.root must be a path, but is {config.root}: {error}") from error
    if config.name == "npz":
        return open_npz(root)
    if config.name == "folder":
        assert config.image_size is not None  # checked by DataConfig
        return open_folder(root, config.image_size, config.channels)
    return open_known(config.name, root)


def _divide(config: DataConfig, source: Source | KnownSet) -> dict[str, tuple[str, np.ndarray]]:
    """Return for each part the pool it comes from and the sorted indices of its images there.

    Validation and test stay as they are if the set has them. Otherwise they are held out of the pool "train", the test
    first, so that neither `subset` nor `validation` changes it.
    """
    labels = source.labels
    divided = {pool: (pool, np.arange(len(pool_labels))) for pool, pool_labels in labels.items()}
    train = np.arange(len(labels["train"]))
    if "test" not in labels:
        train, test = _hold_out("test", config, train, source)
        divided["test"] = ("train", test)
    if config.subset is not None:
        each = 2 if config.validation > 0 and "validation" not in labels else 1
        least = int(np.minimum(np.bincount(labels["train"][train]), each).sum())
        if not least <= config.subset <= len(train):
            raise DataError(
                f"data.subset must lie between {least}, {each} of each class, and {len(train)}, "
                f"all training images, but is {config.subset}"
            )
        train = train[_draw(labels["train"][train], config.subset, each, config.split_seed)]
    if "validation" not in labels:
        train, validation = _hold_out("validation", config, train, source)
        divided["validation"] = ("train", validation)
    return divided | {"train": ("train", train)}


def _hold_out(
    part: str, config: DataConfig, train: np.ndarray, source: Source | KnownSet
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices that stay in train, at least one of every class, and those held out."""
    share, names = getattr(config, part), source.class_names
    if share == 0:
        return train, train[:0]
    labels = source.labels["train"][train]
    counts = np.bincount(labels, minlength=len(names))
    if counts.min() < 2:
        raise DataError(
            f"every class needs at least 2 images for data.{part} to hold out {share} of them, "
            f"but class '{names[int(counts.argmin())]}' has {counts.min()}"
        )
    held_out = max(1, round(share * len(train)))
    kept = _draw(labels, max(len(train) - held_out, len(counts)), 1, config.split_seed)
    return train[kept], train[~kept]


def _draw(labels: np.ndarray, count: int, each: int, seed: int) -> np.ndarray:
    """Draw `count` images, stratified, at least `each` of every class, and return a mask (N,) bool.

    The n images of a class, in random order, stand at the heights 0.5/n, 1.5/n, ... The lowest of all classes are drawn
    (Webster's apportionment).
    """
    # RandomState draws the same numbers in all versions of numpy. The order also settles ties between classes.
    order = np.random.RandomState(seed).permutation(len(labels))
    shuffled = labels[order]
    counts = np.bincount(labels)
    rank = np.empty(len(labels), dtype=np.int64)  # of an image within its class
    rank[np.argsort(shuffled, kind="stable")] = np.concatenate([np.arange(n) for n in counts])
    height = np.where(rank < each, -1.0, (rank + 0.5) / counts[shuffled])
    drawn = np.zeros(len(labels), dtype=bool)
    drawn[order[np.argsort(height, kind="stable")[:count]]] = True
    return drawn


def _statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of images (N, H, W, C), scaled to [0, 1]."""
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[3]):
        chunks = (images[start : start + 1024, :, :, channel] for start in range(0, len(images), 1024))
        histogram = sum(np.bincount(chunk.ravel(), minlength=256) for chunk in chunks)
        weights = histogram / np.sum(histogram)
        mean = float(weights @ levels)
        means.append(mean)
        deviations.append(max(float(np.sqrt(weights @ (levels - mean) ** 2)), 1 / 255))
    return tuple(means), tuple(deviations)
