"""The user's own data sets: a folder of images, or an .npz file.

Files are data, never code: .npz files are read without pickles, images only by the decoders of the formats below.
Opening a set reads labels, names and headers. Images are read by `Source.read`.
"""

import contextlib
import functools
import math
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dacnn_search.common.errors import DataError
from dacnn_search.data.published import Source, describe_error

MAX_BYTES = 8 * 2**30  # of one array in memory
MAX_CHANNELS = 16
MOST_COMPRESSION, MOST_UNCHECKED_BYTES = 100, 2**28  # of a large array in a zip; photographs reach about 2
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
IMAGE_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")  # PIL's names; others run programs (EPS)
POOLS_BY_FOLDER = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
KEYS_BY_POOL = {"train": "train", "validation": "val", "test": "test"}


def open_folder(root: Path, image_size: int, channels: int) -> Source:
    """Open `root/<class>/*.png`, or such folders in `root/train`, `root/test` and `root/val` (or validation).

    Images of any size become `image_size` squares (shorter side resized, centre cropped), grey for 1 channel, RGB for
    3. Classes are sorted by name, hidden files are ignored. Raises DataError for a tree that breaks a rule.
    """
    with _reading(root):
        pools = {pool: _list_classes(folder) for pool, folder in _pool_folders(root).items()}
        class_names = tuple(pools["train"])
        if len(class_names) < 2:
            raise DataError(f"at least 2 class folders are needed, but there are {len(class_names)}")
        for pool, classes in pools.items():
            if tuple(classes) != class_names:
                differing = ", ".join(sorted(set(classes) ^ set(class_names)))
                raise DataError(f"train and {pool} must have the same classes, but differ in {differing}")
    files = {pool: [file for group in classes.values() for file in group] for pool, classes in pools.items()}
    return Source(
        name=root.resolve().name,
        class_names=class_names,
        input_shape=(channels, image_size, image_size),
        flip=True,
        labels={
            pool: np.repeat(np.arange(len(classes)), [len(group) for group in classes.values()])
            for pool, classes in pools.items()
        },
        read=lambda pool, indices: read_images([files[pool][i] for i in indices], (image_size, image_size), channels),
    )


def open_npz(path: Path) -> Source:
    """Open an .npz file with MedMNIST's keys: train_images, train_labels; val_* and test_* are optional.

    Images are uint8 (N, H, W) or (N, H, W, C), labels integers (N,) or (N, 1) that count from 0. The optional key
    class_names is an array of text. Sizes are checked before anything is unpacked. Raises DataError for a file that
    breaks a rule.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    labels: dict[str, np.ndarray] = {}
    with _reading(path), zipfile.ZipFile(path) as archive:
        for pool, key in KEYS_BY_POOL.items():
            if pool == "train" or {f"{key}_images.npy", f"{key}_labels.npy"} & set(archive.namelist()):
                shapes[pool] = _image_shape(archive, f"{key}_images")
                labels[pool] = _read_labels(archive, f"{key}_labels", shapes[pool][0])
        if len({shape[1:] for shape in shapes.values()}) > 1:
            sizes = ", ".join(f"{KEYS_BY_POOL[pool]}_images {shape[1:]}" for pool, shape in shapes.items())
            raise DataError(f"all images must have one shape (H, W, C), but have {sizes}")
        class_names = _class_names(archive, labels)

    @functools.cache
    def images(pool: str) -> np.ndarray:
        with _reading(path), zipfile.ZipFile(path) as archive:
            return _read_array(archive, f"{KEYS_BY_POOL[pool]}_images").reshape(shapes[pool])

    height, width, channels = shapes["train"][1:]
    return Source(
        name=path.stem,
        class_names=class_names,
        input_shape=(channels, height, width),
        flip=True,
        labels=labels,
        read=lambda pool, indices: images(pool)[indices],
    )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise every error inside as a DataError that names the file."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # hostile files raise nearly every kind
        raise DataError(f"{path} can't be read: {describe_error(error)}") from error


def _pool_folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise DataError("the folder of images must exist, but does not")
    names = [folder.name for folder in _visible_folders(root)]
    if "train" in names and _visible_folders(root / "train"):  # else a class of that name
        if {"val", "validation"} <= set(names):
            raise DataError("only one of the folders val and validation may be there, but both are")
        return {pool: root / name for name, pool in POOLS_BY_FOLDER.items() if name in names}
    if names and set(names) <= set(POOLS_BY_FOLDER):
        raise DataError(f"there must be a folder train with one folder per class, but there is {', '.join(names)}")
    return {"train": root}


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_classes(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of each class, both sorted."""
    classes = {}
    for class_folder in _visible_folders(folder):
        files = [
            path
            for path in sorted(class_folder.rglob("*"))
            if path.suffix.lower() in IMAGE_EXTENSIONS
            and not any(name.startswith(".") for name in path.relative_to(class_folder).parts)
            and path.is_file()
        ]
        if not files:
            raise DataError(f"a class folder must hold images, but {class_folder} has none")
        classes[class_folder.name] = files
    return classes


def read_images(files: Sequence[Path], size: tuple[int, int], channels: int) -> np.ndarray:
    """Read images (N, H, W, channels) uint8, resized and centre cropped to (H, W), grey for 1 channel and RGB for 3.

    Raises DataError with the name of the first file that can't be read.
    """
    from PIL import Image, ImageOps

    height, width = size
    total = len(files) * height * width * channels
    if total > MAX_BYTES:
        raise DataError(
            f"images must take at most {MAX_BYTES} bytes, but {len(files)} of {height} x {width} x {channels} "
            f"take {total}; choose a smaller data.image_size or data.subset"
        )
    images = np.empty((len(files), height, width, channels), dtype=np.uint8)

    def read(index: int) -> None:
        with _reading(files[index]), Image.open(files[index], formats=IMAGE_FORMATS) as image:
            if image.mode[0] in "IF":  # PIL would clip these to 255
                raise DataError(f"an image must have 8 bits per channel, but has PIL's mode {image.mode}")
            upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
            fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
            images[index] = np.asarray(fitted).reshape(height, width, channels)

    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        list(pool.map(read, range(len(files))))  # raises the first error and cancels the rest
    return images


def _image_shape(archive: zipfile.ZipFile, key: str) -> tuple[int, ...]:
    shape, dtype = _read_header(archive, key)
    if dtype != np.uint8:
        raise DataError(f"{key} must be uint8, but is {dtype}")
    full = (*shape, 1) if len(shape) == 3 else shape
    if len(full) != 4 or 0 in full or full[3] > MAX_CHANNELS:
        rule = f"(N, H, W) or (N, H, W, C) with C at most {MAX_CHANNELS} and none of them 0"
        raise DataError(f"{key} must have the shape {rule}, but has {shape}")
    return full


def _read_labels(archive: zipfile.ZipFile, key: str, count: int) -> np.ndarray:
    shape, dtype = _read_header(archive, key)
    if dtype.kind not in "iu":
        raise DataError(f"{key} must be integers, but are {dtype}")
    if shape not in ((count,), (count, 1)):
        raise DataError(f"{key} must have the shape ({count},) or ({count}, 1) like its images, but has {shape}")
    labels = _read_array(archive, key).reshape(count)
    if labels.min() < 0 or labels.max() > np.iinfo(np.int64).max:
        raise DataError(f"{key} must lie in [0, 2**63), but range from {labels.min()} to {labels.max()}")
    return labels.astype(np.int64)


def _class_names(archive: zipfile.ZipFile, labels: dict[str, np.ndarray]) -> tuple[str, ...]:
    count = max(int(part.max()) for part in labels.values()) + 1
    if count < 2:
        raise DataError("at least 2 classes are needed, but all labels are 0")
    trained = set(np.unique(labels["train"]).tolist())
    if len(trained) < count:
        absent = next(label for label in range(count) if label not in trained)
        raise DataError(
            f"every class from 0 to {count - 1}, the highest label, must be in train_labels, but {absent} is not"
        )
    if "class_names.npy" not in archive.namelist():
        return tuple(str(label) for label in range(count))
    shape, dtype = _read_header(archive, "class_names")
    if dtype.kind != "U" or shape != (count,):
        raise DataError(f"class_names must be text of the shape ({count},), but is {dtype} of {shape}")
    return tuple(str(name) for name in _read_array(archive, "class_names"))


def _read_header(archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype of an array, after checking that it is no pickle and as large as the zip says."""
    if f"{key}.npy" not in archive.namelist():
        keys = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:20])
        raise DataError(f"the key {key} must be there, but the keys are: {keys or 'none'}")
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise DataError(f"{key} must be of version 1.0 or 2.0 of the .npy format, but is of {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        header_size = file.tell()
    if dtype.hasobject:
        raise DataError(f"{key} must be an array of numbers or text, but holds Python objects (a pickle)")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size > MAX_BYTES:
        raise DataError(f"{key} must take at most {MAX_BYTES} bytes, but has the shape {shape} of {dtype}")
    if header_size + size != info.file_size:
        expected = f"{header_size + size} bytes, as its header says"
        raise DataError(f"{key} must unpack to {expected}, but has {info.file_size}")
    if info.file_size > MOST_UNCHECKED_BYTES and info.file_size > MOST_COMPRESSION * info.compress_size:
        ratio = info.file_size // max(1, info.compress_size)
        raise DataError(f"{key} must be compressed at most {MOST_COMPRESSION}:1, but is {ratio}:1, like a zip bomb")
    return shape, dtype


def _read_array(archive: zipfile.ZipFile, key: str) -> np.ndarray:
    with archive.open(f"{key}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)
