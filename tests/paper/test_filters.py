"""Pictures of filters: what they show, for which layers, as which files."""

import numpy as np
import pytest
import torch
from PIL import Image

from dacnn_search.common.errors import InputError
from dacnn_search.export.best import write_best
from dacnn_search.export.classifier import as_classifier
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.model import build
from dacnn_search.paper.__main__ import main
from dacnn_search.paper.filters import filter_figure, visualise, write_png


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return as_classifier(build(Architecture((Section(2, 6), Section(1, 6)), "network"), 10), input_shape=(3, 16, 16))


def test_every_layer_of_a_shared_kernel_has_a_row(classifier):
    pictures = visualise(classifier, filters=4, steps=5)
    assert [row.layer for row in pictures] == [
        "stem",
        "layer 1, section 1, anchor1",
        "layer 2, section 1, anchor1",
        "layer 3, section 2, anchor1",
    ]
    assert {row.filters for row in pictures} == {(0, 2, 3, 5)}
    assert {row.images.shape for row in pictures} == {(4, 16, 16, 3)}
    assert pictures[0].images.dtype == np.uint8
    assert not np.array_equal(pictures[1].images, pictures[2].images)


def test_filters_respond_more_to_their_picture_than_to_the_noise_before(classifier):
    pictures = visualise(classifier, steps=30)
    assert all((row.responses > row.before).all() for row in pictures)
    # and the response told is that to the picture, before ReLU, but for its rounding to 256 levels
    outputs = []
    with classifier.network.stem_norm.register_forward_hook(lambda *given: outputs.append(given[2].clone())):
        classifier.logits(pictures[0].images)
    means = outputs[0].mean(dim=(2, 3))[range(5), list(pictures[0].filters)]
    np.testing.assert_allclose(means.numpy(), pictures[0].responses, atol=0.02)


def test_the_seed_decides_and_the_network_stays_as_it_was(classifier):
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    seeds = (0, 0, 1)
    (first,), (again,), (other,) = (
        visualise(classifier, layers=[2], filters=[1], steps=3, seed=seed) for seed in seeds
    )
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_layers_and_filters_that_are_not_there(classifier):
    with pytest.raises(InputError, match=r"layers must lie between 0, the stem, and 3, but are \[4\]"):
        visualise(classifier, layers=[4])
    with pytest.raises(InputError, match=r"filters of stem must lie between 0 and 5, but are \[6\]"):
        visualise(classifier, filters=[6])


def test_grid(classifier, tmp_path):
    pictures = visualise(classifier, layers=[0, 3], filters=[1, 5], steps=2)
    write_png(pictures, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        grid = np.asarray(image.convert("RGB"))
    enlarged = pictures[1].images[0].repeat(6, 0).repeat(6, 1)  # 16 pixels become 96
    found = [
        (y, x)
        for y in range(grid.shape[0] - 95)
        for x in range(200, 240)
        if np.array_equal(grid[y, x : x + 96], enlarged[0]) and np.array_equal(grid[y : y + 96, x : x + 96], enlarged)
    ]
    assert len(found) == 1
    texts = filter_figure(pictures, "network").data[1].text
    assert [text.split("<br>")[0] for text in texts] == [
        "stem, filter 1",
        "stem, filter 5",
        "layer 3, section 2, anchor1, filter 1",
        "layer 3, section 2, anchor1, filter 5",
    ]


def test_command_pictures_any_trained_network(small_run, tmp_path):
    folder = write_best(small_run)[0]  # grey images of 8x8 pixels
    arguments = ["--filters", str(folder), "--layers", "1", "2", "--channels", "0", "3", "--results", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    out = tmp_path / "filters" / folder.name
    page = (out / "filters.html").read_text(encoding="utf-8")
    assert f"Filters of {folder.name}" in page
    assert "layer 2, section 1, anchor1, filter 3" in page
    with Image.open(out / "filters.png") as image:
        assert image.size[1] > 2 * 90
