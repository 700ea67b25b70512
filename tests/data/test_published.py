"""The published sets, read from small files in their own formats."""

import hashlib
import pickle
import shutil
import socket
import struct
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from dacnn_search.common.errors import DataError
from dacnn_search.data.dataset import DataConfig, load
from dacnn_search.data.published import KNOWN_SETS, open_known

SHARED = Path(__file__).parents[3] / "shared" / "data"
COUNTS = {"train": 20, "test": 10}  # images of the small files


def small_images(pool: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) and labels (N,) with every label in turn."""
    images = np.random.default_rng(len(pool)).integers(0, 256, (COUNTS[pool], *shape), dtype=np.uint8)
    return images, np.arange(COUNTS[pool]) % 10


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(kind: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    cls = getattr(datasets, kind.upper())
    folder = root / cls.base_folder
    folder.mkdir()
    key = "labels" if kind == "cifar10" else "fine_labels"
    for pool, attribute in (("train", "train_list"), ("test", "test_list")):
        images, labels = small_images(pool, (32, 32, 3))
        names = [name for name, _ in getattr(cls, attribute)]
        for name, rows in zip(names, np.array_split(np.arange(len(labels)), len(names)), strict=True):
            planes = images[rows].transpose(0, 3, 1, 2).reshape(len(rows), -1)
            (folder / name).write_bytes(pickle.dumps({"data": planes, key: labels[rows].tolist()}))
        monkeypatch.setattr(cls, attribute, [[name, md5(folder / name)] for name in names])
    names = [f"class {label}" for label in range(len(KNOWN_SETS[kind].train_counts))]
    meta = folder / cls.meta["filename"]
    meta.write_bytes(pickle.dumps({cls.meta["key"]: names}))
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": md5(meta)})


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    split_list = dict(SVHN.split_list)
    for pool in ("train", "test"):
        images, labels = small_images(pool, (32, 32, 3))
        path = root / f"{pool}_32x32.mat"
        savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels)[:, None]})
        split_list[pool] = ["http://localhost", path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", split_list)


def write_fashion_mnist(root: Path) -> Path:
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for pool, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = small_images(pool, (28, 28, 1))
        header = struct.pack(">4i", 0x803, len(images), 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">2i", 0x801, len(labels))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())
    return raw


def write_set(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "svhn":
        write_svhn(root, monkeypatch)
    elif name == "fashion_mnist":
        write_fashion_mnist(root)
    else:
        write_cifar(name, root, monkeypatch)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Every request fails; the list gets the timeout that was set when it was made."""
    timeouts: list[float | None] = []

    def refuse(*args: object, **kwargs: object) -> None:
        timeouts.append(socket.getdefaulttimeout())
        print("progress", file=sys.stderr)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return timeouts


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "fashion_mnist"])
def test_images_and_labels_come_out_as_they_went_in(name: str, tmp_path: Path, monkeypatch, no_network):
    write_set(name, tmp_path, monkeypatch)
    source = open_known(name, tmp_path)
    channels, height, width = source.input_shape
    for pool, count in COUNTS.items():
        images, labels = small_images(pool, (height, width, channels))
        np.testing.assert_array_equal(source.read(pool, np.arange(count)), images)
        np.testing.assert_array_equal(source.labels[pool], labels)
        assert source.labels[pool].dtype == np.int64
    assert len(source.class_names) == len(KNOWN_SETS[name].train_counts)
    assert source.flip == (name != "svhn")
    assert no_network == []


def test_class_names(tmp_path: Path, monkeypatch):
    write_set("cifar10", tmp_path, monkeypatch)
    write_set("svhn", tmp_path, monkeypatch)
    write_set("fashion_mnist", tmp_path, monkeypatch)
    assert open_known("cifar10", tmp_path).class_names[:2] == ("class 0", "class 1")
    assert open_known("svhn", tmp_path).class_names == tuple("0123456789")
    assert open_known("fashion_mnist", tmp_path).class_names[-1] == "Ankle boot"


def test_a_published_set_is_divided(tmp_path: Path, monkeypatch):
    write_set("svhn", tmp_path, monkeypatch)
    loaded = load(DataConfig(name="svhn", root=str(tmp_path), validation=0.5))
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (10, 10, 10)
    assert loaded.train.images.flags.c_contiguous
    assert loaded.input_shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("cifar100", "cifar-100-python/train"),
        ("svhn", "train_32x32.mat"),
        ("fashion_mnist", "FashionMNIST/raw/t10k-labels-idx1-ubyte"),
    ],
)
def test_missing_files_without_network(name: str, file: str, tmp_path: Path, no_network, capfd):
    with pytest.raises(DataError) as caught:
        open_known(name, tmp_path / "data")
    message = str(caught.value)
    assert f"must be in the folder {tmp_path / 'data'} as the files" in message
    assert file in message
    assert "missing: all of them; the download failed: " in message
    assert "no network" in message
    assert "\n" not in message
    assert no_network
    assert None not in no_network
    assert socket.getdefaulttimeout() is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_damaged_files_without_network(name: str, tmp_path: Path, monkeypatch, no_network):
    write_set(name, tmp_path, monkeypatch)
    file = tmp_path / {"cifar10": "cifar-10-batches-py/data_batch_2", "svhn": "test_32x32.mat"}[name]
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(DataError, match=f"damaged, their checksum differs: .*{file.name}; the download failed"):
        open_known(name, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"\x00\x00\x08\x03" + bytes(12),
        struct.pack(">4i", 0x803, 21, 28, 28) + bytes(20 * 784),
        struct.pack(">4i", 0x803, 20, 28, 27) + bytes(20 * 28 * 27),
        struct.pack(">4i", 0x803, 19, 28, 28) + bytes(19 * 784),
        struct.pack(">2i", 0x801, 20) + bytes(20),
        struct.pack(">4i", 0xD03, 20, 28, 28) + bytes(20 * 784 * 4),
    ],
)
def test_broken_idx_images(content: bytes, tmp_path: Path, no_network):
    raw = write_fashion_mnist(tmp_path)
    (raw / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match="they are there but damaged"):
        open_known("fashion_mnist", tmp_path)


def test_labels_above_the_classes(tmp_path: Path, no_network):
    raw = write_fashion_mnist(tmp_path)
    labels = bytes(9) + b"\x0a"
    (raw / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, 10) + labels)
    with pytest.raises(DataError, match="damaged: ValueError: test labels must be below 10, but one is 10"):
        open_known("fashion_mnist", tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real files are not here")
def test_real_fashion_mnist(tmp_path: Path, no_network):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in SHARED.glob("*-ubyte.gz"):
        shutil.copy(file, raw)
    source = open_known("fashion_mnist", tmp_path)
    assert no_network == []
    known = KNOWN_SETS["fashion_mnist"]
    assert np.bincount(source.labels["train"]).tolist() == list(known.train_counts)
    assert np.bincount(source.labels["test"]).tolist() == list(known.test_counts)
    mean = source.read("train", np.arange(60000)).mean() / 255
    assert mean == pytest.approx(0.2860, abs=5e-5)  # as published
    assert source.class_names[source.labels["train"][0]] == "Ankle boot"


def test_digits_counts_are_those_of_scikit_learn(tmp_path: Path):
    source = open_known("digits", tmp_path)
    assert np.bincount(source.labels["train"]).tolist() == list(KNOWN_SETS["digits"].train_counts)
