import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save_file
from strategies import architectures

from dacnn_search.common.errors import InputError
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import count_parameters, estimate_cost
from dacnn_search.network.model import build
from dacnn_search.training.weights import load_weights, read_weights, trained_weights


def trained(architecture):
    """A network whose batch norm has seen data."""
    model = build(architecture, 4, 1)
    for _ in range(3):
        model(torch.randn(8, 1, 8, 8) * 3 + 1)
    return model.eval()


@given(architectures())
@settings(max_examples=30)
def test_stored_weights_are_the_parameters_and_give_the_same_logits(architecture):
    model = trained(architecture)
    tensors = trained_weights(model)
    assert sum(t.numel() for t in tensors.values()) == count_parameters(architecture, 1, 4)
    restored = load_weights(build(architecture, 4, 1), tensors)
    images = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(restored(images), model(images), rtol=1e-4, atol=1e-4)


def test_file_of_a_deep_plain_network_is_as_small_as_promised(tmp_path):
    architecture = Architecture((Section(9, 32), Section(9, 32), Section(16, 32)), "network")
    path = tmp_path / "weights.safetensors"
    save_file(trained_weights(trained(architecture)), path)
    cost = estimate_cost(architecture, (1, 8, 8), 4)
    assert path.stat().st_size == cost.file_bytes < 4 * cost.parameters + 64_000
    assert read_weights(path).keys() == dict(build(architecture, 4, 1).named_parameters()).keys()


def test_weights_of_another_network_are_refused():
    tensors = trained_weights(trained(Architecture((Section(2, 4),))))
    with pytest.raises(InputError, match=r"blocks.0.layers.0.norm.bias must have shape \[5\], but has \[4\]"):
        load_weights(build(Architecture((Section(2, 5),)), 4, 1), tensors)
    with pytest.raises(InputError, match=r"blocks\.1\.layers\.0\.norm\.bias is missing"):
        load_weights(build(Architecture((Section(3, 4),)), 4, 1), tensors)
    with pytest.raises(InputError, match=r"blocks\.0\.layers\.1\.norm\.bias is not a part of this network"):
        load_weights(build(Architecture((Section(1, 4),)), 4, 1), tensors)


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_weights(tmp_path / "none.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickle.safetensors")
    with pytest.raises(InputError, match="must be a safetensors file"):
        read_weights(tmp_path / "pickle.safetensors")
