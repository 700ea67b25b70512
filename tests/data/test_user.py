"""Folders of images and .npz files: what is read, and what is refused."""

import io
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dacnn_search.common.errors import DataError
from dacnn_search.data import user as user_datasets
from dacnn_search.data.user import open_folder, open_npz


def save(path: Path, colour: tuple[int, ...] | int, size: tuple[int, int] = (8, 8), **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path, **options)


def read_all(source, pool: str = "train") -> np.ndarray:
    return source.read(pool, np.arange(len(source.labels[pool])))


# ---- folders


def test_flat_folder(tmp_path: Path):
    save(tmp_path / "bee" / "b.png", (200, 100, 50))
    save(tmp_path / "ant" / "2.JPG", (10, 10, 10), (20, 30))
    save(tmp_path / "ant" / "deeper" / "1.png", 77)
    save(tmp_path / "ant" / ".hidden.png", 1)
    save(tmp_path / ".cache" / "x.png", 1)
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "list.csv").write_text("not a class")
    source = open_folder(tmp_path, 8, 3)
    assert source.name == tmp_path.name
    assert source.class_names == ("ant", "bee")
    assert source.input_shape == (3, 8, 8)
    assert source.labels["train"].tolist() == [0, 0, 1]
    images = read_all(source)
    assert images.shape == (3, 8, 8, 3)
    assert images[0, 0, 0].tolist() == [10, 10, 10]
    assert images[1, 3, 3].tolist() == [77, 77, 77]
    assert images[2, 7, 7].tolist() == [200, 100, 50]
    assert source.read("train", np.array([2])).tolist() == images[2:].tolist()


def test_grey(tmp_path: Path):
    save(tmp_path / "a" / "1.png", (255, 0, 0))
    save(tmp_path / "b" / "1.png", 9)
    images = read_all(open_folder(tmp_path, 8, 1))
    assert images.shape == (2, 8, 8, 1)
    assert images[:, 0, 0, 0].tolist() == [76, 9]  # the luma of red


@pytest.mark.parametrize("validation", ["val", "validation", None])
def test_folder_with_parts(tmp_path: Path, validation: str | None):
    for folder, pool in {"train": "train", validation: "validation", "test": "test"}.items():
        if folder:
            save(tmp_path / folder / "a" / "1.png", len(pool))
            save(tmp_path / folder / "b" / "1.png", len(pool) * 2)
    source = open_folder(tmp_path, 8, 1)
    assert set(source.labels) == {"train", "test"} | ({"validation"} if validation else set())
    for pool in source.labels:
        assert read_all(source, pool)[:, 0, 0, 0].tolist() == [len(pool), len(pool) * 2]


def test_a_class_may_be_named_train(tmp_path: Path):
    save(tmp_path / "car" / "1.png", 1)
    save(tmp_path / "train" / "1.png", 1)
    assert open_folder(tmp_path, 8, 3).class_names == ("car", "train")


def test_shorter_side_is_resized_and_the_centre_cropped(tmp_path: Path):
    wide = Image.new("L", (64, 16), 0)
    wide.paste(250, (23, 0, 41, 16))  # the central square and one column on each side
    for name in "ab":
        (tmp_path / name).mkdir()
        wide.save(tmp_path / name / "1.png")
    assert (read_all(open_folder(tmp_path, 8, 1)) == 250).all()


def test_exif_orientation_is_honoured(tmp_path: Path):
    image = Image.new("L", (8, 8), 0)
    image.paste(200, (0, 0, 8, 4))  # bright above
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    for name in "ab":
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "1.png", exif=exif)
    images = read_all(open_folder(tmp_path, 8, 1))
    assert images[0, :, 0, 0].tolist() == [0] * 4 + [200] * 4


def tree(root: Path, *files: str) -> Path:
    for file in files:
        save(root / file, 5)
    return root


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "the folder of images must exist, but does not"),
        (["a/1.png"], "at least 2 class folders are needed, but there are 1"),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/1.png"],
            "train and test must have the same classes, .* in b",
        ),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"], "train and validation .* in b, c"),
        (
            ["train/a/1.png", "train/b/1.png", "val/a/1.png", "validation/a/1.png"],
            "only one of the folders val",
        ),
        (["train/1.png", "test/1.png"], "a folder train with one folder per class, but there is test, train"),
        (["test/a/1.png", "test/b/1.png"], "a folder train with one folder per class, but there is test"),
    ],
)
def test_folder_refuses(tmp_path: Path, files: list[str], message: str):
    root = tree(tmp_path / "images", *files)
    with pytest.raises(DataError, match=f"^{re.escape(str(root))}: .*{message}"):
        open_folder(root, 8, 3)


def test_class_without_images(tmp_path: Path):
    tree(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match=r"a class folder must hold images, but .*/c has none"):
        open_folder(tmp_path, 8, 3)


def png(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds no pixels."""
    chunks = {b"IHDR": struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0), b"IDAT": b"", b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "UnidentifiedImageError"),
        (b"not an image", "UnidentifiedImageError"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "UnidentifiedImageError"),
        (png(8, 8), "Error"),
        (png(12_000, 12_000), "DecompressionBombWarning"),
        (png(60_000, 60_000), "DecompressionBombError"),
    ],
)
def test_broken_image_is_named(tmp_path: Path, content: bytes, message: str):
    tree(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "b" / "2.png").write_bytes(content)
    source = open_folder(tmp_path, 8, 3)
    with pytest.raises(DataError, match=rf"^{re.escape(str(tmp_path))}/b/2.png can't be read: .*{message}"):
        read_all(source)


def test_truncated_image_is_named(tmp_path: Path):
    rng = np.random.default_rng(0)
    tree(tmp_path, "a/1.png", "b/1.png")
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file, "JPEG")
    (tmp_path / "b" / "2.jpg").write_bytes(file.getvalue()[:-500])
    with pytest.raises(DataError, match=r"b/2.jpg can't be read"):
        read_all(open_folder(tmp_path, 8, 3))


def test_sixteen_bit_images_are_not_clipped(tmp_path: Path):
    tree(tmp_path, "a/1.png", "b/1.png")
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(tmp_path / "b" / "2.png")
    with pytest.raises(DataError, match=r"b/2.png: an image must have 8 bits per channel, but has PIL's mode I"):
        read_all(open_folder(tmp_path, 8, 1))


def test_images_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(user_datasets, "MAX_BYTES", 300)
    source = open_folder(tree(tmp_path, "a/1.png", "b/1.png"), 8, 3)
    with pytest.raises(DataError, match="at most 300 bytes, but 2 of 8 x 8 x 3 take 384"):
        read_all(source)


def test_palette_images_warn_nobody(tmp_path: Path):
    tree(tmp_path, "a/1.png")
    (tmp_path / "b").mkdir()
    image = Image.new("P", (8, 8))
    image.putpalette([3, 2, 1] * 3)
    image.save(tmp_path / "b" / "1.png", transparency=b"\x0a\x14\x1e")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_all(open_folder(tmp_path, 8, 3))[1, 0, 0].tolist() == [3, 2, 1]


# ---- .npz files

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def npz(path: Path, **arrays) -> Path:
    """A sound file, with arrays replaced; None removes one."""
    arrays = {"train_images": IMAGES, "train_labels": LABELS} | arrays
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return path


def test_npz(tmp_path: Path):
    source = open_npz(npz(tmp_path / "my_set.npz"))
    assert (source.name, source.input_shape, source.class_names) == ("my_set", (3, 4, 5), ("0", "1", "2"))
    assert source.labels["train"].tolist() == LABELS.tolist()
    np.testing.assert_array_equal(source.read("train", np.array([4, 1])), IMAGES[[4, 1]])


@pytest.mark.parametrize("dtype", ["u1", ">i4", "i8", "u8"])
def test_npz_labels_of_any_integer_type(tmp_path: Path, dtype: str):
    source = open_npz(npz(tmp_path / "a.npz", train_labels=LABELS.astype(dtype)[:, None]))
    assert source.labels["train"].dtype == np.int64
    assert source.labels["train"].tolist() == LABELS.tolist()


def test_npz_grey_images_in_fortran_order(tmp_path: Path):
    images = np.asfortranarray(IMAGES[..., 0])
    source = open_npz(npz(tmp_path / "a.npz", train_images=images))
    assert source.input_shape == (1, 4, 5)
    np.testing.assert_array_equal(read_all(source)[..., 0], images)


def test_npz_compressed_with_parts_and_names(tmp_path: Path):
    path = tmp_path / "a.npz"
    np.savez_compressed(
        path,
        train_images=IMAGES, train_labels=LABELS, val_images=IMAGES[:2], val_labels=LABELS[:2],
        test_images=IMAGES[3:], test_labels=LABELS[3:], class_names=np.array(["Ä", "b", "c d"]),
    )  # fmt: skip
    source = open_npz(path)
    assert source.class_names == ("Ä", "b", "c d")
    assert {pool: len(labels) for pool, labels in source.labels.items()} == {
        "train": 6,
        "validation": 2,
        "test": 3,
    }
    np.testing.assert_array_equal(read_all(source, "test"), IMAGES[3:])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_images": None}, "the key train_images must be there, but the keys are: train_labels"),
        ({"train_labels": None}, "the key train_labels must be there"),
        ({"test_images": IMAGES}, "the key test_labels must be there"),
        ({"val_labels": LABELS}, "the key val_images must be there"),
        ({"train_images": IMAGES.astype(float)}, "train_images must be uint8, but is float64"),
        ({"train_images": IMAGES[0]}, r"train_labels must have the shape \(4,\) .* but has \(6,\)"),
        ({"train_images": IMAGES[0, 0]}, r"train_images must have the shape .* but has \(5, 3\)"),
        ({"train_images": np.zeros((6, 3, 32, 32), np.uint8)}, r"C at most 16 .* but has \(6, 3, 32, 32\)"),
        ({"train_images": IMAGES[:0]}, r"none of them 0, but has \(0, 4, 5, 3\)"),
        ({"train_labels": LABELS[:5]}, r"train_labels must have the shape \(6,\) or \(6, 1\) .* has \(5,\)"),
        ({"train_labels": np.eye(6, dtype=int)}, r"but has \(6, 6\)"),
        ({"train_labels": LABELS * 0.5}, "train_labels must be integers, but are float64"),
        ({"train_labels": LABELS > 0}, "train_labels must be integers, but are bool"),
        ({"train_labels": LABELS - 1}, "train_labels must lie in .* but range from -1 to 1"),
        ({"train_labels": LABELS.astype("u8") + 2**63}, "train_labels must lie in"),
        ({"train_labels": LABELS * 0}, "at least 2 classes are needed"),
        ({"train_labels": LABELS + 1}, "every class from 0 to 3, .* but 0 is not"),
        ({"train_labels": LABELS * 10**12}, "every class from 0 to 2000000000000, .* but 1 is not"),
        ({"test_images": IMAGES, "test_labels": LABELS + 1}, "every class from 0 to 3, .* but 3 is not"),
        ({"test_images": IMAGES[:, :3], "test_labels": LABELS}, r"one shape .* test_images \(3, 5, 3\)"),
        ({"train_images": np.array([None] * 6)}, r"train_images must .* holds Python objects \(a pickle\)"),
        ({"train_labels": LABELS.astype(object)}, r"holds Python objects \(a pickle\)"),
        ({"class_names": np.array(["a", "b"])}, r"class_names must be text of .* but is <U1 of \(2,\)"),
        ({"class_names": np.array([1, 2, 3])}, "class_names must be text .* but is int64"),
        ({"class_names": np.array(["a", "b", None])}, "Python objects"),
    ],
)  # fmt: skip
def test_npz_refuses(tmp_path: Path, arrays: dict, message: str):
    path = npz(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: .*({message})"):
        open_npz(path)


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"\x93NUMPY\x01\x00", b"PK\x05\x06" + bytes(17)])
def test_npz_that_is_no_zip(tmp_path: Path, content: bytes):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a.npz can't be read: BadZipFile"):
        open_npz(path)


def test_npz_that_does_not_exist(tmp_path: Path):
    with pytest.raises(DataError, match=r"a.npz can't be read: FileNotFoundError"):
        open_npz(tmp_path / "a.npz")


def npz_of_bytes(path: Path, images: bytes) -> Path:
    """A file whose train_images.npy holds any bytes."""
    labels = io.BytesIO()
    np.save(labels, LABELS)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_images.npy", images)
        archive.writestr("train_labels.npy", labels.getvalue())
    return path


def npy_header(header: str, version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text


def npy_shape(shape: object) -> bytes:
    return npy_header(str({"descr": "|u1", "fortran_order": False, "shape": shape}))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (b"", "can't be read: ValueError"),
        (b"\x93NUMPY", "can't be read: ValueError"),
        (npy_header("__import__('os').abort()"), "can't be read: ValueError"),
        (npy_header("(" * 9000), "can't be read"),
        (npy_header("-" * 9000 + "1"), "can't be read"),
        (npy_header("{" + " " * 20000 + "}"), "can't be read: ValueError"),
        (npy_header("{}", b"\x03\x00"), "must be of version 1.0 or 2.0"),
        (npy_shape((6, 4, 5, 3)) + bytes(10), r"must unpack to \d+ bytes, as its header says, but has"),
        (npy_shape((6, 4, 5, 3)) + bytes(400), r"must unpack to \d+ bytes"),
        (npy_shape((2**20, 2**10, 2**10, 3)), f"must take at most {8 * 2**30} bytes"),
        (npy_shape((10**30, 10**30, 10**30)), "must take at most"),
        (npy_shape((-6, -4, 5)), "must take at most"),
    ],
)
@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")
def test_npz_with_hostile_array(tmp_path: Path, images: bytes, message: str):
    with pytest.raises(DataError, match=message):
        open_npz(npz_of_bytes(tmp_path / "a.npz", images))


def test_npz_that_is_a_zip_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(user_datasets, "MOST_UNCHECKED_BYTES", 2**20)
    images = np.zeros((6, 512, 1024, 1), np.uint8)  # of 3 MB, in 3 kB
    path = npz_of_bytes(tmp_path / "a.npz", npy_shape(images.shape) + images.tobytes())
    with pytest.raises(DataError, match=r"train_images must be compressed at most 100:1, but is \d+:1"):
        open_npz(path)


def test_npz_whose_directory_lies_about_the_size(tmp_path: Path):
    """The zip's directory promises what the header promises, but the data are fewer."""
    whole = npy_shape(IMAGES.shape) + IMAGES.tobytes()
    path = npz_of_bytes(tmp_path / "a.npz", whole[:-100])
    raw = path.read_bytes()
    true_size, false_size = struct.pack("<I", len(whole) - 100), struct.pack("<I", len(whole))
    assert raw.count(true_size) == 2
    path.write_bytes(raw.replace(true_size, false_size))
    source = open_npz(path)
    with pytest.raises(DataError, match="can't be read"):
        read_all(source)


def test_npz_with_a_flipped_bit_in_the_images(tmp_path: Path):
    path = npz(tmp_path / "a.npz")
    raw = bytearray(path.read_bytes())
    raw[raw.index(IMAGES.tobytes()) + 50] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a.npz can't be read: BadZipFile: Bad CRC-32"):
        read_all(open_npz(path))
