"""The config, the division into parts, and what every data set promises, whatever its format."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dacnn_search.common.errors import DataError
from dacnn_search.data import dataset as data
from dacnn_search.data.dataset import DataConfig, DataSummary, ImageData, load, summarise


def write_npz(path: Path, counts: list[int], parts: tuple[str, ...] = ("train",), shape=(6, 5, 3)) -> Path:
    """An .npz file with `counts` images of each class in every part; no two images are alike."""
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(len(counts)), counts)
    arrays = {}
    for part in parts:
        arrays[f"{part}_images"] = rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
        arrays[f"{part}_labels"] = rng.permutation(labels)
    np.savez(path, **arrays)
    return path


def write_folder(root: Path, counts: dict[str, int], seed: int = 2) -> Path:
    from PIL import Image

    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, 256, (9 + index % 3, 12, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / name / f"{index}.png")
    return root


def make_config(kind: str, folder: Path) -> DataConfig:
    if kind == "digits":
        return DataConfig(name="digits")
    if kind == "digits without test":
        return DataConfig(name="digits", test=0, validation=0.25, subset=1000)
    if kind == "npz":
        root = write_npz(folder / "mine.npz", [30, 20, 7])
        return DataConfig(name="npz", root=str(root), validation=0.3, test=0.1)
    if kind == "npz with parts":
        root = write_npz(folder / "mine.npz", [9, 8], ("train", "val", "test"), (4, 4))
        return DataConfig(name="npz", root=str(root), subset=6)
    if kind == "folder":
        root = write_folder(folder / "mine", {"cat": 9, "ant": 5, "bee": 6})
        return DataConfig(name="folder", root=str(root), image_size=8, channels=1)
    for part, count in {"train": 5, "val": 2, "test": 3}.items():
        write_folder(folder / "mine" / part, {"ant": count, "bee": count}, seed=count)
    return DataConfig(name="folder", root=str(folder / "mine"), image_size=8)


@pytest.fixture(params=["digits", "digits without test", "npz", "npz with parts", "folder", "folder with parts"])
def config(request, tmp_path: Path) -> DataConfig:
    return make_config(request.param, tmp_path)


def all_parts(loaded: ImageData) -> dict[str, data.Split]:
    return {"train": loaded.train, "validation": loaded.validation, "test": loaded.test}


# ---- what every data set promises


def test_arrays_have_the_promised_types(config: DataConfig):
    loaded = load(config)
    channels, height, width = loaded.input_shape
    for split in all_parts(loaded).values():
        assert split.images.dtype == np.uint8
        assert split.images.flags.c_contiguous
        assert split.images.shape == (len(split), height, width, channels)
        assert split.labels.dtype == np.int64
        assert split.labels.shape == (len(split),)
    assert set(loaded.train.labels.tolist()) == set(range(loaded.num_classes))


def test_summary_is_that_of_the_loaded_data(config: DataConfig):
    loaded = load(config)
    sizes = {f"{part}_size": len(split) for part, split in all_parts(loaded).items()}
    assert summarise(config) == DataSummary(loaded.input_shape, loaded.num_classes, **sizes)


def test_loading_twice_gives_the_same(config: DataConfig):
    first, second = load(config), load(config)
    for part, split in all_parts(first).items():
        np.testing.assert_array_equal(split.images, all_parts(second)[part].images)
        np.testing.assert_array_equal(split.labels, all_parts(second)[part].labels)


def test_parts_share_no_image(config: DataConfig):
    loaded = load(config)
    images = np.concatenate([split.images for split in all_parts(loaded).values()])
    duplicates = len(images) - len({image.tobytes() for image in images})
    assert duplicates == 0


def test_statistics_are_those_of_the_training_images(config: DataConfig):
    loaded = load(config)
    scaled = loaded.train.images / 255
    np.testing.assert_allclose(loaded.mean, scaled.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(loaded.std, scaled.std(axis=(0, 1, 2)))


# ---- single facts


def test_digits():
    loaded = load(DataConfig(name="digits"))
    assert (loaded.name, loaded.input_shape, loaded.flip) == ("digits", (1, 8, 8), False)
    assert loaded.class_names == tuple("0123456789")
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (1150, 288, 359)
    assert loaded.train.images.max() == 255
    shares = np.bincount(loaded.test.labels) / np.bincount(
        np.concatenate([split.labels for split in all_parts(loaded).values()])
    )
    assert np.all(np.abs(shares - 0.2) < 0.01)


def test_constant_channel_has_a_usable_deviation(tmp_path: Path):
    images = np.zeros((8, 4, 4, 2), dtype=np.uint8)
    images[:4, ..., 1] = 200
    np.savez(tmp_path / "flat.npz", train_images=images, train_labels=[0, 1] * 4)
    loaded = load(DataConfig(name="npz", root=str(tmp_path / "flat.npz"), test=0, validation=0))
    assert loaded.mean == (0, pytest.approx(100 / 255))
    assert loaded.std == (1 / 255, pytest.approx(100 / 255))


def test_the_search_gets_no_test_images():
    loaded = load(DataConfig(name="digits", subset=100))
    hidden = loaded.without_test()
    assert len(loaded.test) > 0
    assert len(hidden.test) == 0
    assert hidden.test.images.shape[1:] == (8, 8, 1)
    assert hidden.train is loaded.train


def test_final_training_joins_validation_to_train():
    loaded = load(DataConfig(name="digits", subset=100))
    joined = loaded.with_validation_in_train()
    assert (len(joined.train), len(joined.validation)) == (100, 0)
    assert joined.test is loaded.test
    assert joined.mean == loaded.mean
    np.testing.assert_array_equal(joined.train.images[80:], loaded.validation.images)
    np.testing.assert_array_equal(joined.train.labels[80:], loaded.validation.labels)


def test_images_stay_with_their_labels(tmp_path: Path):
    labels = np.repeat(np.arange(4), 10)
    images = np.broadcast_to((labels * 60).astype(np.uint8)[:, None, None], (40, 3, 3))
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels)
    loaded = load(DataConfig(name="npz", root=str(tmp_path / "a.npz"), subset=24))
    for split in all_parts(loaded).values():
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], split.labels * 60)


def test_another_seed_draws_other_images_of_the_same_number():
    first, second = (load(DataConfig(name="digits", split_seed=seed)).test for seed in (0, 1))
    assert len(first) == len(second)
    assert not np.array_equal(first.images, second.images)


def test_subset_and_validation_do_not_change_the_test_part():
    whole = load(DataConfig(name="digits")).test
    quick = load(DataConfig(name="digits", subset=50, validation=0.5)).test
    np.testing.assert_array_equal(whole.images, quick.images)


def test_parts_that_the_set_brings_stay_as_they_are(tmp_path: Path):
    path = write_npz(tmp_path / "a.npz", [6, 4], ("train", "val", "test"))
    loaded = load(DataConfig(name="npz", root=str(path), validation=0.5, test=0.5))
    with np.load(path) as arrays:
        np.testing.assert_array_equal(loaded.train.images, arrays["train_images"])
        np.testing.assert_array_equal(loaded.validation.images, arrays["val_images"])
        np.testing.assert_array_equal(loaded.test.labels, arrays["test_labels"])


def test_fewer_validation_images_than_classes():
    summary = summarise(DataConfig(name="cifar100", subset=200))
    assert (summary.train_size, summary.validation_size) == (160, 40)


@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0, 1),
)
def test_draws_are_stratified(counts: list[int], seed: int, share: float):
    labels = np.random.RandomState(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    count = max(len(counts), round(share * len(labels)))
    drawn = np.bincount(labels[data._draw(labels, count, 1, seed)], minlength=len(counts))
    assert drawn.sum() == count
    assert drawn.min() >= 1
    assert np.all(drawn <= counts)
    share_left = (count - len(counts)) / len(labels)  # once every class has its first image
    assert np.all(drawn >= np.floor(share_left * np.array(counts)))


def test_the_draw_never_changes():
    labels = np.arange(12) % 3
    drawn = np.flatnonzero(data._draw(labels, 6, 1, 7)).tolist()
    assert drawn == [0, 2, 3, 5, 7, 10]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10", DataSummary((3, 32, 32), 10, 40000, 10000, 10000)),
        ("cifar100", DataSummary((3, 32, 32), 100, 40000, 10000, 10000)),
        ("svhn", DataSummary((3, 32, 32), 10, 58606, 14651, 26032)),
        ("fashion_mnist", DataSummary((1, 28, 28), 10, 48000, 12000, 10000)),
    ],
)
def test_published_sets_are_summarised_without_files(name, expected):
    assert summarise(DataConfig(name=name, root="/nonexistent")) == expected


# ---- what is refused


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_class_with_one_image_is_not_divided(tmp_path: Path, part: str):
    path = write_npz(tmp_path / "a.npz", [5, 1])
    shares = {"test": 0, "validation": 0} | {part: 0.2}
    config = DataConfig(name="npz", root=str(path), **shares)
    for function in (load, summarise):
        with pytest.raises(DataError, match=f"at least 2 images for data.{part} .* class '1' has 1"):
            function(config)


@pytest.mark.parametrize(("subset", "least"), [(19, 20), (1439, 20)])
def test_a_subset_out_of_range(subset: int, least: int):
    with pytest.raises(DataError, match=f"between {least}, 2 of each class, and 1438, .*but is {subset}"):
        summarise(DataConfig(name="digits", subset=subset))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "folder", "image_size": 32}, "root is required for data set 'folder'"),
        ({"name": "npz"}, "root is required for data set 'npz'"),
        ({"name": "folder", "root": "x"}, "image_size is required for data set 'folder'"),
        ({"name": "folder"}, "root is required for data set 'folder'; image_size is required"),
        ({"name": "digits", "root": "x"}, "root is not allowed for data set 'digits', but is 'x'"),
        ({"name": "svhn", "image_size": 32}, "image_size is only allowed for data set 'folder', but is 32"),
        ({"name": "svhn", "channels": 3}, "channels is only allowed for data set 'folder', but is 3"),
        ({"name": "digits", "validation": 1.5}, "less than or equal to 0.9"),
        ({"name": "digits", "test": -0.1}, "greater than or equal to 0"),
        ({"name": "digits", "test": float("nan")}, "finite"),
        ({"name": "digits", "test": "0.2"}, "valid number"),
        ({"name": "digits", "subset": 0}, "greater than or equal to 1"),
        ({"name": "digits", "split_seed": -1}, "greater than or equal to 0"),
        ({"name": "digits", "seed": 0}, "Extra inputs"),
        ({"name": "folder", "root": "x", "image_size": 7}, "greater than or equal to 8"),
        ({"name": "folder", "root": "x", "image_size": 8, "channels": 2}, "1 or 3"),
        ({"name": "mnist"}, "'digits'"),
    ],
)
def test_config_refuses(fields: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        DataConfig(**fields)


def test_every_field_is_described():
    for name, field in DataConfig.model_json_schema()["properties"].items():
        assert field.get("description"), name


def test_home_of_nobody():
    with pytest.raises(DataError, match=r"data.root must be a path, but is ~no-such-user/x"):
        summarise(DataConfig(name="npz", root="~no-such-user/x"))


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_npz(tmp_path / "a.npz", [5, 5])
    assert summarise(DataConfig(name="npz", root="~/a.npz")).num_classes == 2


def test_summaries_import_nothing_heavy(tmp_path: Path):
    path = write_npz(tmp_path / "a.npz", [5, 5])
    code = (
        "import sys; from dacnn_search.data.dataset import DataConfig, summarise\n"
        f"summarise(DataConfig(name='npz', root={str(path)!r})); summarise(DataConfig(name='svhn'))\n"
        "print([name for name in ('torch', 'torchvision', 'ray', 'sklearn', 'PIL') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
