import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from strategies import architectures
from torch.utils.flop_counter import FlopCounterMode

from dacnn_search.common.errors import ArchitectureError
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import (
    costliest_section,
    count_parameters,
    estimate_cost,
    tensor_shapes,
    training_seconds,
)
from dacnn_search.network.model import build

SHAPES = st.tuples(st.sampled_from([1, 3]), st.integers(4, 13), st.integers(4, 13))


def products(*_, out_shape, **__):
    return 2 * math.prod(out_shape)


def on_meta(architecture, shape, classes):
    with torch.device("meta"):
        model = build(architecture, classes, shape[0]).eval()
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addcmul: products}) as counter:
            model(torch.empty(1, *shape))
    return model, counter.get_total_flops() // 2


@settings(max_examples=150)
@given(architectures(), SHAPES, st.integers(2, 12))
def test_closed_form_equals_the_built_network(architecture, shape, classes):
    model, macs = on_meta(architecture, shape, classes)
    cost = estimate_cost(architecture, shape, classes)
    shapes = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    assert shapes == list(tensor_shapes(architecture, shape[0], classes))
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.macs == macs


def test_mixed_18_at_cifar_size():
    mixed = Architecture((Section(4, 64), Section(3, 128), Section(3, 256), Section(3, 512)))
    model, macs = on_meta(mixed, (3, 32, 32), 100)
    assert count_parameters(mixed, 3, 100) == sum(p.numel() for p in model.parameters())
    assert estimate_cost(mixed, (3, 32, 32), 100).macs == macs
    assert count_parameters(mixed, 3, 100) == pytest.approx(
        4.90e6, rel=0.004
    )  # Table 3, which counts one weight per batch norm channel


@given(architectures(), SHAPES)
@settings(max_examples=40)
def test_activations_are_what_autograd_keeps(architecture, shape):
    model = build(architecture, 5, shape[0])
    weights = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor
        return tensor

    batch = 2
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.randn(batch, *shape))
    images = sum(t.nbytes for t in kept.values() if t.dim() > 1 and len(t) == batch) / 4 / batch
    estimate = estimate_cost(architecture, shape, 5).activations
    assert estimate == pytest.approx(images, rel=0.25)


@given(architectures())
@settings(max_examples=40)
def test_file_bytes_are_those_of_a_safetensors_file(architecture):
    model = build(architecture, 10, 1)
    size = len(save({name: p.detach() for name, p in model.named_parameters()}))
    assert estimate_cost(architecture, (1, 8, 8), 10).file_bytes == size


def test_training_time_grows_with_macs_and_images():
    def seconds(width, images, rate=1e11):
        return training_seconds(Architecture((Section(4, width),)), (3, 32, 32), 10, images, 128, rate)

    assert seconds(8, 1000) < seconds(64, 1000) < seconds(64, 2000) == 2 * seconds(64, 1000)
    assert seconds(8, 1000, 2e11) == seconds(8, 1000) / 2


def test_the_costliest_section_has_the_most_arithmetic():
    assert costliest_section(Architecture((Section(4, 64), Section(3, 128), Section(3, 256))), (3, 32, 32)) == (64, 32)
    assert costliest_section(Architecture((Section(1, 8), Section(6, 32))), (1, 8, 12)) == (32, 4)


def test_images_too_small_for_the_poolings():
    with pytest.raises(ArchitectureError, match="halvings"):
        estimate_cost(Architecture((Section(1, 4),) * 4), (1, 4, 4), 10)
