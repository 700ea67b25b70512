import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from strategies import architectures

from dacnn_search.architecture import Architecture, Section
from dacnn_search.model import build


def randomised(architecture, channels=3, classes=4):
    model = build(architecture, classes, channels)
    with torch.no_grad():
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return model.eval()


@given(architectures())
@settings(max_examples=30)
def test_any_architecture_maps_images_to_logits(architecture):
    model = build(architecture, 7, 1)
    assert model(torch.randn(2, 1, 9, 12)).shape == (2, 7)


def test_a_shared_kernel_is_one_parameter_that_gathers_all_gradients():
    model = build(Architecture((Section(5, 8),)), 3)
    assert len([name for name, _ in model.named_parameters() if name.startswith("kernels.")]) == 2
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    assert model.kernels["anchor1"].grad.abs().sum() > 0


def test_plain_network_is_equation_3():
    """X_l = ReLU(BN_l(W_G * X_{l-1})), with max pooling between sections."""
    model = randomised(Architecture((Section(2, 8), Section(1, 8)), "network"))
    images = torch.randn(2, 3, 8, 8)
    kernel = model.kernels["anchor1"]
    x = F.relu(model.stem_norm(F.conv2d(images, model.kernels["stem"], padding=1)))
    for layer in model.blocks[0].layers:
        x = F.relu(layer.norm(F.conv2d(x, kernel, padding=1)))
    x = F.max_pool2d(x, 2)
    x = F.relu(model.blocks[1].layers[0].norm(F.conv2d(x, kernel, padding=1)))
    torch.testing.assert_close(model(images), model.classifier(x.mean((2, 3))))


def test_residual_block_with_transition_and_regulators_is_figures_2_and_3():
    sections = (Section(1, 4), Section(1, 6, "layer"))
    model = randomised(Architecture(sections, "section", residual=True))
    images = torch.randn(2, 3, 8, 8)
    x = F.relu(model.stem_norm(F.conv2d(images, model.kernels["stem"], padding=1)))
    first = model.blocks[0].layers[0]
    x = F.relu(first.norm(F.conv2d(x, model.kernels["anchor1"], padding=1)) + x)
    x = F.max_pool2d(x, 2)
    one, two = model.blocks[1].layers
    y = F.relu(one.norm(F.conv2d(x, model.kernels["transition2"], padding=1)))
    y = F.relu(one.regulator(y))
    y = two.norm(F.conv2d(y, model.kernels["anchor2"], padding=1)) + model.blocks[1].projection(x)
    y = F.relu(two.regulator(F.relu(y)))
    torch.testing.assert_close(model(images), model.classifier(y.mean((2, 3))))


def test_free_weights_with_one_anchor_copied_are_the_shared_network():
    sections = (Section(3, 8), Section(2, 8))
    shared = randomised(Architecture(sections, "network"))
    free = build(Architecture(sections, "none"), 4).eval()
    state = shared.state_dict()
    anchors = [name for name in free.state_dict() if name.startswith("kernels.anchor")]
    free.load_state_dict(state | dict.fromkeys(anchors, state["kernels.anchor1"]))
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(free(images), shared(images))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_without_batch_norm_there_is_no_norm_anywhere(batch_norm):
    sections = (Section(3, 8, "layer"), Section(2, 12, "block"))
    model = build(Architecture(sections, residual=True, batch_norm=batch_norm), 4)
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()) == batch_norm
