import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from strategies import architectures

from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.model import build
from dacnn_search.training.memory import step_bytes
from dacnn_search.training.recipe import Recipe


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
    free = build(Architecture((Section(5, 8),), "none"), 3)
    state = model.state_dict()
    anchors = [name for name in free.state_dict() if name.startswith("kernels.anchor")]
    free.load_state_dict(state | dict.fromkeys(anchors, state["kernels.anchor1"]))
    images = torch.randn(4, 3, 8, 8)
    for network in (model, free):
        network(images).square().sum().backward()
    gathered = sum(free.get_parameter(name).grad for name in anchors)
    torch.testing.assert_close(model.kernels["anchor1"].grad, gathered)


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


def test_history_adds_the_last_inputs_with_scalars_and_begins_anew_where_the_width_changes():
    """x_{t+1} = ReLU(BN_t(W * x_t + sum_i a_{t,i} x_{t-i})), with max pooling of all x_{t-i} between sections."""
    sections = (Section(2, 4), Section(2, 4), Section(2, 6))
    model = randomised(Architecture(sections, "section", shortcuts="history", history=2))
    layers = [layer for block in model.blocks for layer in block.layers]
    lengths = [0 if layer.history is None else len(layer.history) for layer in layers]
    assert lengths == [1, 2, 2, 2, 0, 1, 2]
    with torch.no_grad():
        for layer, length in zip(layers, lengths, strict=True):
            layer.history = torch.nn.Parameter(torch.randn(length)) if length else None
    images = torch.randn(2, 3, 8, 8)
    inputs = [F.relu(model.stem_norm(F.conv2d(images, model.kernels["stem"], padding=1)))]
    for number, layer in enumerate(layers):
        if number in (2, 4):
            inputs = [F.max_pool2d(x, 2) for x in inputs]
        x = F.conv2d(inputs[0], model.kernels[layer.kernels[0]], padding=1)
        for i in range(lengths[number]):
            x = x + layer.history[i] * inputs[i]
        inputs = [F.relu(layer.norm(x)), *inputs]
    expected, logits = model.classifier(inputs[0].mean((2, 3))), model(images)
    torch.testing.assert_close(logits, expected)
    gradients = [torch.autograd.grad(x.square().sum(), list(model.parameters())) for x in (logits, expected)]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected)


def test_a_mixed_kernel_is_the_sum_of_its_anchors_times_scalars_of_the_layer():
    architecture = Architecture((Section(3, 4),), "network", 2, mixing="learned")
    model = randomised(architecture)
    free = build(Architecture(architecture.sections, "none"), 4).eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if "anchor" not in name}
    for number, layer in enumerate(layer for block in model.blocks for layer in block.layers):
        one, two = (model.kernels[name] for name in ("anchor1", "anchor2"))
        state[f"kernels.anchor{number + 1}"] = layer.mixing[0] * one + layer.mixing[1] * two
    free.load_state_dict({name: tensor for name, tensor in state.items() if not name.endswith("mixing")})
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(free(images), model(images))


@pytest.mark.parametrize("mixing", ["turn", "learned"])
def test_a_separable_kernel_is_a_full_one_of_products(mixing):
    sections = (Section(3, 4), Section(2, 6))
    model = randomised(Architecture(sections, "section", 2, mixing=mixing, convolutions="separable"))
    full = build(Architecture(sections, "section", 2, mixing=mixing), 4).eval()
    state = model.state_dict()
    products = {}
    for name, pointwise in state.items():
        if name.endswith("_pointwise"):
            depthwise = state[name.replace("pointwise", "depthwise")]
            products[name.removesuffix("_pointwise")] = pointwise * depthwise.transpose(0, 1)
    assert products.keys() == {"kernels.transition2", *(f"kernels.anchor{number}" for number in (1, 2, 3, 4))}
    full.load_state_dict({name: w for name, w in state.items() if not name.endswith("wise")} | products)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(full(images), model(images))


def test_residual_block_with_transition_and_regulators_is_figures_2_and_3():
    sections = (Section(1, 4), Section(1, 6, "layer"))
    model = randomised(Architecture(sections, "section", shortcuts="block"))
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
    model = build(Architecture(sections, shortcuts="block", batch_norm=batch_norm), 4)
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()) == batch_norm


@given(architectures())
@settings(max_examples=30)
def test_sections_computed_again_give_the_same_step(architecture):
    """Gradients, logits and statistics: of all of them, those of running means are the easiest to count twice."""
    images = torch.randn(3, 3, 9, 8)
    kept, again = (build(architecture, 4) for _ in range(2))
    again.load_state_dict(kept.state_dict())
    again.recomputes = True
    results = []
    for model in (kept, again):
        logits = model(images)
        logits.square().mean().backward()
        results.append((logits.detach(), {name: p.grad for name, p in model.named_parameters()}))
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=0, atol=0)
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in kept.state_dict().items())


def test_sections_computed_again_take_the_memory_that_is_estimated():
    architecture = Architecture((Section(1, 16), Section(4, 32), Section(4, 64)))
    kept = {}
    for recomputes in (False, True):
        model = build(architecture, 4)
        model.recomputes = recomputes
        held = {}

        def pack(tensor, held=held):
            held[tensor.data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits = model(torch.randn(8, 3, 16, 16))
        kept[recomputes] = sum(tensor.nbytes for tensor in held.values())
        logits.sum().backward()
    recipe = Recipe(batch_size=256)
    estimates = [step_bytes(architecture, (3, 16, 16), 4, recipe, recomputes=again) for again in (False, True)]
    assert kept[True] < kept[False] / 5  # after the forward pass: the backward pass adds one section
    assert estimates[1] < 0.75 * estimates[0]
