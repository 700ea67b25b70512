import json

import numpy as np
import pytest
from commands import exit_code
from PIL import Image

from dacnn_search.data.dataset import load
from dacnn_search.export.best import write_best
from dacnn_search.predict import main


@pytest.fixture(scope="module")
def model(small_run):
    return write_best(small_run)[1]


@pytest.fixture
def images(small_run, tmp_path):
    """A folder with 20 test images as files, in two folders."""
    test = load(small_run.space.settings.data).test
    for number, (image, label) in enumerate(zip(test.images[:20], test.labels, strict=False)):
        folder = tmp_path / "images" / ("even" if label % 2 == 0 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{number:02d}-{label}.png")
    return tmp_path / "images"


def predict(capsys, *arguments, expected=0):
    code, printed = exit_code(main, *arguments), capsys.readouterr()
    assert code == expected, printed.err
    return printed


def test_images_are_classified_as_in_the_test(capsys, small_run, model, images):
    results = json.loads(predict(capsys, "--model", model, images, "--json", "--top", 3).out)
    assert len(results) == 20
    right = [result["classes"][0]["name"] == result["file"][-5] for result in results]
    assert np.mean(right) > 0.5
    for result in results:
        shares = [of["probability"] for of in result["classes"]]
        assert shares == sorted(shares, reverse=True)
        assert len(shares) == 3
        assert sum(shares) <= 1.00001


def test_table_has_a_line_per_image(capsys, model, images):
    file = next(images.rglob("*.png"))
    lines = predict(capsys, "--model", model, file, images, "--top", 2).out.splitlines()
    assert len(lines) == 21
    assert lines[0].startswith(str(file))
    assert lines[0].count("%") == 2


def test_colour_images_of_any_size_are_fitted(capsys, model, tmp_path):
    Image.new("RGB", (100, 37), "navy").save(tmp_path / "photo.jpg")
    assert json.loads(predict(capsys, "--model", model, tmp_path / "photo.jpg", "--json").out)[0]["classes"]


def test_files_that_are_no_images_are_named_and_the_others_done(capsys, model, images):
    (images / "broken.png").write_text("no image")
    printed = predict(capsys, "--model", model, images, expected=2)
    assert len(printed.out.splitlines()) == 20
    assert printed.err.count("\n") == 1
    assert "broken.png can't be read" in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "{model}", "none.png"], "none.png: no such file or folder"),
        (["--model", "{model}", "{empty}"], "the folder must hold images"),
        (["--model", "{empty}", "{image}"], "the folder of a trained network must hold metrics.json"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, model, images, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    names = {"model": model, "empty": tmp_path / "empty", "image": next(images.rglob("*.png"))}
    printed = predict(capsys, *(text.format(**names) for text in arguments), expected=2)
    assert message in printed.err
    assert printed.err.count("\n") == 1
