import numpy as np
import pytest
import torch
from c_networks import random_classifier, random_images
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import architectures

from dacnn_search import Architecture, build, load_model
from dacnn_search.common.errors import ExportError, InputError
from dacnn_search.data.dataset import load
from dacnn_search.export.best import write_best
from dacnn_search.export.c import quantization
from dacnn_search.export.c.quantization import Scaling, quantize
from dacnn_search.export.classifier import Classifier, as_classifier
from dacnn_search.network.architecture import Section
from dacnn_search.network.cost import tensor_shapes


@settings(max_examples=30)
@given(architectures().filter(lambda a: a.batch_norm), st.sampled_from([1, 3]), st.integers(4, 9), st.integers(4, 9))
def test_integers_compute_nearly_what_floats_do(architecture, channels, height, width):
    shape = (channels, height, width)
    model, images = random_classifier(architecture, shape), random_images(24, shape)
    network = quantize(model, images)
    logits, (scores, classes) = model.logits(images), network.scores(images)
    assert scores.dtype == np.int8
    assert np.abs(scores * network.score_step - logits).max() <= 0.1 * np.abs(logits).max()
    assert (scores[np.arange(len(images)), classes] == scores.max(axis=1)).all()


def test_a_trained_network_answers_as_in_floats(run_copy):
    folder = write_best(run_copy)[1]
    data = load(run_copy.space.settings.data)
    model = load_model(folder)
    network = quantize(model, data.validation.images)
    scores, classes = network.scores(data.test.images)
    logits = model.logits(data.test.images)
    assert (classes == logits.argmax(axis=1)).mean() >= 0.98
    assert np.abs((scores * network.score_step - logits).mean(axis=0)).max() <= network.score_step / 2  # no bias


@pytest.mark.parametrize("anchors", [1, 3])
def test_a_shared_kernel_is_kept_once(anchors):
    sections = Section(9, 8), Section(9, 8, "block")
    architecture = Architecture(sections, "network", anchors, shortcuts="block", mixing="learned")
    network = quantize(random_classifier(architecture, (3, 8, 8)), random_images(24, (3, 8, 8)))
    weights = {name: shape for name, shape in tensor_shapes(architecture, 3, 5) if len(shape) == 4}
    assert {name: kernel.size for name, kernel in network.kernels.items()} == {
        name: np.prod(shape) for name, shape in weights.items()
    }
    names = tuple(f"kernels.anchor{number}" for number in range(1, anchors + 1))
    assert sum(c.kernels == names for c in network.plan.convolutions) == 18


def test_a_channel_of_zeros_and_a_constant_image_are_no_special_case():
    model = random_classifier(Architecture((Section(2, 4), Section(2, 6)), shortcuts="block"), (1, 6, 6))
    with torch.no_grad():
        model.network.kernels["anchor1"][2] = 0
        model.network.blocks[0].layers[0].norm.weight[1] = 0
    black, white = np.zeros((1, 6, 6, 1), np.uint8), np.full((1, 6, 6, 1), 255, np.uint8)
    network = quantize(model, black)
    assert np.abs(network.scores(black)[0] * network.score_step - model.logits(black)).max() < 0.1
    assert network.scores(np.concatenate([black, white]))[0].shape == (2, 3)


def test_scalars_of_zero_leave_out_an_anchor_and_an_earlier_input():
    sections, shape = (Section(4, 4), Section(2, 4)), (1, 8, 8)
    families = {"shortcuts": "history", "mixing": "learned"}
    mixed = random_classifier(Architecture(sections, "network", 2, history=3, **families), shape)
    with torch.no_grad():
        for layer in (layer for block in mixed.network.blocks for layer in block.layers):
            layer.mixing[:] = torch.tensor([1, 0])
            layer.history[1:] = 0
    plain = random_classifier(Architecture(sections, "network", history=1, **families), shape)
    weights = {name: mixed.weights[name][: len(tensor)] for name, tensor in plain.weights.items()}
    plain = Classifier(plain.architecture, weights, plain.input)
    images = random_images(24, shape)
    scores = [quantize(model, images).scores(images)[0] for model in (mixed, plain)]
    np.testing.assert_array_equal(*scores)


def test_a_block_that_is_silent_after_large_activations():
    model = random_classifier(Architecture((Section(2, 4),), shortcuts="block"), (1, 6, 6))
    with torch.no_grad():
        model.network.stem_norm.bias[:] = 1e13
        model.network.blocks[0].layers[1].norm.bias[:] = -1e16
    assert quantize(model, random_images(24, (1, 6, 6))).scalings[-1].identity == 2**31 - 1


def test_the_last_inputs_are_subtracted_where_their_scalars_are_negative():
    model = random_classifier(Architecture((Section(3, 4),), shortcuts="history"), (1, 6, 6))
    with torch.no_grad():
        scalars = model.network.blocks[1].layers[0].history
        scalars[:] = torch.tensor([-0.5, 2.0, -1e9])
        model.network.blocks[0].layers[0].norm.bias[:] = 1e6
    newest, middle, oldest = quantize(model, random_images(24, (1, 6, 6))).scalings[-1].history
    assert oldest < newest <= 0 <= middle
    assert 255 * (abs(oldest) + abs(newest) + middle) < 2**31


def test_the_sum_of_the_last_inputs_keeps_nine_bits_of_both_its_multipliers():
    model = random_classifier(Architecture((Section(6, 8), Section(6, 8)), shortcuts="history"), (1, 12, 12))
    scalings = [s for s in quantize(model, random_images(24, (1, 12, 12))).scalings if s.history]
    assert min(max(map(abs, s.history)) for s in scalings) >= 2**9
    assert min(np.abs(s.multipliers[-1].astype(int)).max() for s in scalings) >= 2**9


def test_last_inputs_with_scalars_of_0_take_no_bits_of_the_kernels_multipliers():
    model = random_classifier(Architecture((Section(3, 4),), shortcuts="history"), (1, 6, 6))
    with torch.no_grad():
        for block in model.network.blocks:
            for layer in block.layers:
                layer.history[:] = 0
    scalings = [s for s in quantize(model, random_images(24, (1, 6, 6))).scalings if s.history]
    assert min(np.abs(s.multipliers[0].astype(int)).max() for s in scalings) >= 2**9


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "tensor",
    [
        "kernels.anchor1",
        "stem_norm.bias",
        "blocks.0.layers.1.norm.weight",
        "blocks.1.layers.0.mixing",
        "blocks.1.layers.0.history",
        "classifier.bias",
    ],
)
def test_numbers_that_are_not_finite_are_refused(tensor, value):
    architecture = Architecture((Section(3, 4),), anchors=2, shortcuts="history", mixing="learned")
    model = random_classifier(architecture, (1, 6, 6))
    with torch.no_grad():
        model.network.get_parameter(tensor).view(-1)[0] = value
    with pytest.raises(ExportError, match="finite weights and activations"):
        quantize(model, random_images(24, (1, 6, 6)))


@pytest.mark.parametrize("part", ["depthwise", "pointwise"])
def test_parts_of_separable_kernels_that_are_not_finite_are_refused(part):
    model = random_classifier(Architecture((Section(2, 4),), convolutions="separable"), (1, 6, 6))
    with torch.no_grad():
        model.network.get_parameter(f"kernels.anchor1_{part}").view(-1)[0] = np.nan
    with pytest.raises(ExportError, match="finite weights and activations"):
        quantize(model, random_images(24, (1, 6, 6)))


def test_a_channel_that_a_separable_kernel_does_not_use_leaves_the_others_their_precision():
    model = random_classifier(Architecture((Section(2, 4),), convolutions="separable"), (1, 6, 6))
    with torch.no_grad():
        model.network.get_parameter("kernels.anchor1_depthwise")[0] = 0
    whole = quantize(model, random_images(24, (1, 6, 6))).kernels["kernels.anchor1_pointwise"]
    assert (whole[..., 0] == 0).all()
    assert (np.abs(whole).max(axis=(1, 2, 3)) == 127).all()


def test_the_number_of_images_at_once_does_not_change_scores(monkeypatch):
    shape = (1, 6, 6)
    network = quantize(random_classifier(Architecture((Section(2, 4),)), shape), random_images(24, shape))
    images = random_images(24, shape)
    expected = network.scores(images)[0]
    monkeypatch.setattr(quantization, "MOST_VALUES", 5 * 6 * 6 * 4)
    sizes = []
    run = quantization.IntegerNetwork._values
    monkeypatch.setattr(
        quantization.IntegerNetwork, "_values", lambda self, batch: (sizes.append(len(batch)), run(self, batch))[1]
    )
    np.testing.assert_array_equal(network.scores(images)[0], expected)
    assert sizes == [5, 5, 5, 5, 4]


def test_values_are_rounded_to_the_nearest_and_halves_up():
    scaling = Scaling(np.array([[1]], np.int16), np.array([-3], np.int16), shift=2, offset_shift=1)
    values = scaling.apply([np.array([[4], [7], [8], [9], [12]])])
    assert values.ravel().tolist() == [-2, 1, 2, 3, 6]
    assert scaling.round(values, -5, 1).ravel().tolist() == [0, 0, 1, 1, 1]  # of -0.5, 0.25, 0.5, 0.75, 1.5
    assert scaling.outputs([np.array([[1020]])], []).item() == 254
    assert scaling.outputs([np.array([[2000]])], []).item() == 255


def test_what_can_not_be_integers():
    plain = Architecture((Section(1, 4),))
    with pytest.raises(InputError, match="needs a network with batch norm"):
        quantize(
            as_classifier(build(Architecture((Section(1, 4),), batch_norm=False), 5, 1)), random_images(24, (1, 32, 32))
        )
    with pytest.raises(InputError, match="at least 1 validation image"):
        quantize(random_classifier(plain, (1, 8, 8)), random_images(24, (1, 8, 8))[:0])
    with torch.device("meta"):  # without the memory for its weights
        separable = random_classifier(Architecture((Section(1, 1856),), convolutions="separable"), (1, 2, 2))
        wide = random_classifier(Architecture((Section(1, 1), Section(1, 4200))), (1, 2, 2))
    with pytest.raises(ExportError, match="fewer than 1,856 channels under a separable kernel"):
        quantize(separable, random_images(2, (1, 2, 2)))
    with pytest.raises(
        ExportError, match="fewer than 4,144 channels before the classifier, but this network has 4,200"
    ):
        quantize(wide, random_images(24, (1, 2, 2)))
    mixes = Architecture((Section(257, 1),), "network", 256, mixing="learned")
    with torch.device("meta"):
        many = random_classifier(mixes, (1, 2, 2))
    with pytest.raises(ExportError, match="fewer than 256 anchors in a mix, but this network has 256"):
        quantize(many, random_images(2, (1, 2, 2)))
    with pytest.raises(ExportError, match="fewer than 65,536 pixels in a row or a column, but this network has 70,000"):
        quantize(random_classifier(plain, (1, 1, 70_000)), random_images(2, (1, 1, 70_000)))
