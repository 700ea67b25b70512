"""The published data sets: their shapes and class counts, and the reading of their files.

Digits come with scikit-learn, the others through torchvision, which is imported only when images are read. torchvision
unpickles CIFAR's files, but only after it has checked their md5.
"""

import contextlib
import functools
import io
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dacnn_search.common.errors import DataError

DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer


@dataclass(frozen=True)
class Source:
    """An opened data set that is not divided yet. Its labels are read, its images are read by `read`.

    `labels` has the pool "train", and "validation" and "test" if the set has them. `read` takes a pool and indices (M,)
    and returns images (M, H, W, C) uint8. It raises DataError for damaged ones.
    """

    name: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]  # (C, H, W)
    flip: bool  # a mirrored image keeps its label
    labels: dict[str, np.ndarray]  # pool -> (N,) int64
    read: Callable[[str, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class KnownSet:
    """The facts of a published data set that are known without its files."""

    train_counts: tuple[int, ...]  # images of each class
    test_counts: tuple[int, ...]  # empty if the set has no test part
    input_shape: tuple[int, int, int]  # (C, H, W)
    flip: bool  # a mirrored image keeps its label

    @property
    def class_names(self) -> tuple[str, ...]:
        """Numbers in place of the names that stand in the files."""
        return tuple(map(str, range(len(self.train_counts))))

    @functools.cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """Labels (N,) int64 of each pool, ordered by class and not as in the files."""
        pools = {"train": self.train_counts, "test": self.test_counts}
        return {pool: np.repeat(np.arange(len(counts)), counts) for pool, counts in pools.items() if counts}


KNOWN_SETS = {
    "digits": KnownSet((178, 182, 177, 183, 181, 182, 181, 179, 174, 180), (), (1, 8, 8), False),
    "cifar10": KnownSet((5000,) * 10, (1000,) * 10, (3, 32, 32), True),
    "cifar100": KnownSet((500,) * 100, (100,) * 100, (3, 32, 32), True),
    "svhn": KnownSet(
        (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
        (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
        (3, 32, 32),
        False,
    ),
    "fashion_mnist": KnownSet((6000,) * 10, (1000,) * 10, (1, 28, 28), True),
}


def open_known(name: str, root: Path) -> Source:
    """Read one of `KNOWN_SETS`, downloading it to `root` if its files are missing (digits need none).

    Raises DataError when the files are missing or damaged and can't be downloaded.
    """
    known = KNOWN_SETS[name]
    class_names, pools = _read_digits() if name == "digits" else _read_torchvision(name, root)
    return Source(
        name=name,
        class_names=class_names or known.class_names,
        input_shape=known.input_shape,
        flip=known.flip,
        labels={pool: labels for pool, (_, labels) in pools.items()},
        read=lambda pool, indices: pools[pool][0][indices],
    )


def describe_error(error: Exception) -> str:
    """Return kind and message of an error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


Pools = dict[str, tuple[np.ndarray, np.ndarray]]  # pool -> images (N, H, W, C) uint8, labels (N,) int64


def _read_digits() -> tuple[tuple[str, ...], Pools]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return (), {"train": (images, digits.target.astype(np.int64))}


def _read_torchvision(name: str, root: Path) -> tuple[tuple[str, ...], Pools]:
    """Return class names, unless they are numbers, and pools. Without progress bars or endless waits for an answer."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                return _build_torchvision(name, root, download=False)
            except RuntimeError:  # files are missing or fail their checksum
                return _build_torchvision(name, root, download=True)
    except Exception as error:  # torchvision raises nearly every kind, down to AssertionError and KeyError
        raise DataError(_explain_missing(name, root, error)) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _build_torchvision(name: str, root: Path, download: bool) -> tuple[tuple[str, ...], Pools]:
    kind, known, pools = _torchvision_class(name), KNOWN_SETS[name], Pools()
    channels, height, width = known.input_shape
    for pool in ("train", "test"):
        chosen: dict[str, Any] = {"split": pool} if name == "svhn" else {"train": pool == "train"}
        part = kind(root, **chosen, download=download)
        images, labels = np.asarray(part.data), np.asarray(part.labels if name == "svhn" else part.targets, np.int64)
        images = images.transpose(0, 2, 3, 1) if name == "svhn" else images.reshape(*images.shape[:3], -1)
        expected = (len(labels), height, width, channels)
        if images.shape != expected or images.dtype != np.uint8:
            found = f"{images.dtype} {images.shape}"
            raise ValueError(f"{pool} images must be uint8 {expected}, but are {found}")
        wrong = sorted(set(np.unique(labels).tolist()) - set(range(len(known.class_names))))
        if wrong:
            raise ValueError(f"{pool} labels must be below {len(known.class_names)}, but one is {wrong[0]}")
        pools[pool] = images, labels
    return tuple(getattr(part, "classes", ())), pools


def _torchvision_class(name: str) -> Any:
    from torchvision import datasets

    kinds = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "svhn": "SVHN", "fashion_mnist": "FashionMNIST"}
    return getattr(datasets, kinds[name])


def _explain_missing(name: str, root: Path, error: Exception) -> str:
    from torchvision.datasets.utils import check_integrity

    files = _expected_files(name)
    missing = [file for file in files if not (root / file).is_file()]
    damaged = [file for file, md5 in files.items() if file not in missing and not check_integrity(root / file, md5)]
    facts = [f"data set '{name}' must be in the folder {root} as the files {', '.join(files)}"]
    if missing:
        facts.append(f"missing: {'all of them' if len(missing) == len(files) else ', '.join(missing)}")
    if damaged:
        facts.append(f"damaged, their checksum differs: {', '.join(damaged)}")
    problem = "the download failed" if missing or damaged else "they are there but damaged"
    return "; ".join([*facts, f"{problem}: {describe_error(error)}"])


def _expected_files(name: str) -> dict[str, str | None]:
    """Return the paths of a set's files below the root, with the md5 if torchvision checks it."""
    kind = _torchvision_class(name)
    if name == "svhn":
        return {file: md5 for _, file, md5 in (kind.split_list[pool] for pool in ("train", "test"))}
    if name == "fashion_mnist":
        return {f"FashionMNIST/raw/{file.removesuffix('.gz')}": None for file, _ in kind.resources}
    meta = (kind.meta["filename"], kind.meta["md5"])
    return {f"{kind.base_folder}/{file}": md5 for file, md5 in (*kind.train_list, *kind.test_list, meta)}
