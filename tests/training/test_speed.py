"""The precision follows what is measured, and what is measured is kept; what pays is compiled."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dacnn_search.data.dataset import ImageData, Split
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.training import speed
from dacnn_search.training.device_data import ResidentData
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.speed import Speed, choose_precision, measure_speed, should_compile, speed_for
from dacnn_search.training.trainer import Training, build_seeded

CPU = torch.device("cpu")
NETWORKS = [Architecture((Section(2, width),)) for width in (8, 16, 32)]
SHAPE = (3, 32, 32)


@pytest.fixture
def measured(monkeypatch):
    """Replaces the measurement: returns the list of what was measured, and a function that says what is found."""
    sizes, found = [], [Speed(float32=1e10, bfloat16=2e10)]

    def measure(*size):
        sizes.append(size)
        return found[-1]

    monkeypatch.setattr(speed, "measure_speed", measure)
    return sizes, found


@pytest.mark.parametrize(
    ("float32", "bfloat16", "precision", "rate"),
    [(1e10, 2e10, "bfloat16", 2e10), (1e10, 0.6e10, "float32", 1e10), (1e10, 1.05e10, "float32", 1e10)],
)
def test_auto_is_the_precision_that_was_measured_to_be_clearly_faster(float32, bfloat16, precision, rate, measured):
    found = Speed(float32=float32, bfloat16=bfloat16)
    measured[1].append(found)
    assert found.precision == precision
    assert found.rate() == rate
    assert (found.rate("float32"), found.rate("bfloat16")) == (float32, bfloat16)
    assert choose_precision(Recipe(batch_size=64), NETWORKS, SHAPE, 10, CPU) == precision
    assert measured[0] == [(16, 32, 64)]


def test_a_precision_that_is_given_stays_and_nothing_is_measured(measured):
    for precision in ("float32", "bfloat16"):
        assert choose_precision(Recipe(precision=precision), NETWORKS, SHAPE, 10, CPU) == precision
    assert measured[0] == []


@pytest.mark.parametrize(("supported", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_is_asked_and_not_measured(supported, precision, measured, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert choose_precision(Recipe(), NETWORKS, SHAPE, 10, torch.device("cuda")) == precision
    assert measured[0] == []


@pytest.mark.parametrize("bfloat16", [0.5e10, 2e10])
def test_a_training_computes_in_the_faster_precision(bfloat16, measured):
    measured[1].append(Speed(float32=1e10, bfloat16=bfloat16))
    images = Split(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 0, 1]))
    data = ImageData("two", ("a", "b"), images, images, images, (0.5,), (0.2,), flip=False)
    training = Training(build_seeded(Architecture((Section(1, 4),)), 2, 1, 0), ResidentData(data, "cpu"), Recipe())
    assert training.precision == ("bfloat16" if bfloat16 > 1e10 else "float32")


def test_a_measurement_leaves_threads_and_random_numbers_alone():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    found = measure_speed.__wrapped__(8, 8, 4)
    assert found.float32 > 0
    assert found.bfloat16 > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def remembered_speed(networks, batch_size=32):
    return speed_for(networks, SHAPE, 10, batch_size, remembered=True)


def test_speeds_are_remembered_by_machine_and_rounded_size(measured, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sizes, found = measured
    first = remembered_speed([Architecture((Section(2, 17),))], 30)
    found.append(Speed(float32=1, bfloat16=1))
    assert remembered_speed([Architecture((Section(2, 15),))]) == first
    assert sizes == [(16, 32, 32)]
    (key,) = json.loads((tmp_path / "dacnn_search" / "speed.json").read_text())
    assert f"torch {torch.__version__.split('+')[0]}," in key
    monkeypatch.setattr(speed, "processor_name", lambda: "another")
    assert remembered_speed([Architecture((Section(2, 16),))]) == found[-1]


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"a": 1}', '{"a": {"float32": -1, "bfloat16": 1}}'])
def test_a_damaged_cache_or_one_that_cannot_be_written_is_no_error(damage, measured, monkeypatch, tmp_path):
    path = tmp_path / "dacnn_search" / "speed.json"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path.parent.mkdir()
    path.write_text(damage)
    assert remembered_speed(NETWORKS) == measured[1][0]
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # a file, no directory
    assert remembered_speed(NETWORKS) == measured[1][0]


def test_only_a_long_training_on_a_gpu_is_compiled_unless_the_recipe_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", "gcc")
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    large = Architecture((Section(8, 256), Section(8, 512)))
    tiny = Architecture((Section(1, 4),))

    def compiles(recipe: Recipe, network: Architecture, gpu: bool) -> bool:
        return should_compile(recipe, network, SHAPE, 10, 2000, gpu)

    long, short = Recipe(epochs=10_000), Recipe(epochs=2)
    assert compiles(long, large, True)
    assert not compiles(short, large, True)
    assert not compiles(long, large, False)
    for compiled in (True, False):
        recipe = long.model_copy(update={"compiled": compiled})
        assert compiles(recipe, large, False) is compiles(recipe, tiny, True) is compiled
    monkeypatch.delenv("CC")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert not compiles(long, large, True)  # torch needs a C compiler
    monkeypatch.setenv("CC", "gcc")
    (tmp_path / "Python.h").unlink()
    assert not compiles(long, large, True)  # and Python's headers
