import pytest
import torch

from dacnn_search.common.errors import ArchitectureError
from dacnn_search.network.cost import count_parameters, estimate_cost, tensor_shapes
from dacnn_search.network.model import build
from dacnn_search.network.zoo import get, names

CIFAR = (3, 32, 32)
PLAIN = (3, 5, 7, 9, 11, 14, 18, 24, 34)


def kernels(name):
    return ["*".join(layer.kernels) for block in get(name).blocks for layer in block.layers]


def regulators(name):
    """How many regulators each section has."""
    architecture = get(name)
    return [
        sum(layer.regulator for block in architecture.blocks if block.section == i for layer in block.layers)
        for i in range(len(architecture.sections))
    ]


def test_the_zoo_is_complete():
    expected = {name for n in PLAIN for name in (f"dacnn{n}", f"dacnn{n}-no-bn", f"free{n}")}
    expected |= {f"dacnn{n}-reg" for n in (18, 24, 34)}
    expected |= {f"dacnn18-reg-{which}" for which in ("none", "all", *(f"section{i}" for i in (1, 2, 3, 4)))}
    expected |= {f"dacnn{n}-mix" for n in (14, 18, 34)} | {f"dacnn{n}-mix-reg" for n in (18, 34)}
    expected |= {"vgg", "resnet18", "resnet34", "resnet8", "resnet20", "sharesnet20", "sharesnet34"}
    assert set(names()) == expected | {
        "swrn28-10-1",
        "swrn28-10-2",
        "thriftynet",
        "thriftynet-h5",
        "thriftynet-separable",
    }


@pytest.mark.parametrize("name", names())
def test_closed_form_equals_the_built_network(name):
    with torch.device("meta"):
        model = build(name, num_classes=100)
        assert model(torch.empty(2, *CIFAR)).shape == (2, 100)
    built = {key: tuple(p.shape) for key, p in model.named_parameters()}
    assert built == dict(tensor_shapes(get(name), 3, 100))
    assert count_parameters(get(name), 3, 100) == sum(p.numel() for p in model.parameters())


def test_networks_are_different():
    assert len({get(name).fingerprint for name in names()}) == len(names())


def test_unknown_name():
    with pytest.raises(ArchitectureError, match="is 'dacnn18-mixreg'; did you mean dacnn18-mix-reg or "):
        get("dacnn18-mixreg")
    with pytest.raises(ArchitectureError, match="is 'x'; they are dacnn3, dacnn5, "):
        build("x", 10)


@pytest.mark.parametrize("n", PLAIN)
def test_plain_networks_and_their_twins(n):
    plain, bare, free = get(f"dacnn{n}"), get(f"dacnn{n}-no-bn"), get(f"free{n}")
    assert {s.width for s in plain.sections} == {128}
    assert plain.depth == n
    assert kernels(f"dacnn{n}") == ["anchor1"] * n
    assert len(set(kernels(f"free{n}"))) == n
    shortcuts = "block" if n > 17 else "none"
    assert plain.decided_shortcuts == bare.decided_shortcuts == free.decided_shortcuts == shortcuts
    assert [plain.batch_norm, free.batch_norm, bare.batch_norm] == [True, True, False]
    assert len({estimate_cost(network, CIFAR, 100).macs for network in (plain, bare, free)}) == 1
    # each further layer costs a plain network its scale and shift, a free one a kernel as well
    assert count_parameters(plain, 3, 100) == 163_812 + 2 * 128 * (n + 1)
    extra_kernels = (n - 1) * 9 * 128**2
    assert count_parameters(free, 3, 100) - count_parameters(plain, 3, 100) == extra_kernels


def test_plain_residual_networks_have_whole_blocks():
    for n in (18, 24, 34):
        assert {len(block.layers) for block in get(f"dacnn{n}").blocks} == {2}


@pytest.mark.parametrize(
    ("name", "convolutions", "residual"),
    [("dacnn14-mix", 13, False), ("dacnn18-mix", 17, True), ("dacnn34-mix", 33, True)],
)
def test_mixed_networks_have_one_kernel_per_section_and_per_widening(name, convolutions, residual):
    assert 1 + len(kernels(name)) == convolutions
    assert (get(name).decided_shortcuts == "block") == residual
    anchors, transitions = {f"anchor{i}" for i in (1, 2, 3, 4)}, {f"transition{i}" for i in (2, 3, 4)}
    assert set(kernels(name)) == anchors | transitions
    assert [s.width for s in get(name).sections] == [64, 128, 256, 512]


def test_templates_are_the_known_networks():
    assert [sum(len(b.layers) for b in get("vgg").blocks if b.section == i) for i in range(5)] == [
        1,
        2,
        3,
        3,
        3,
    ]
    for name, blocks in (("resnet18", [2, 2, 2, 2]), ("resnet34", [3, 4, 6, 3])):
        unfolded = get(name).blocks
        assert [sum(block.section == i for block in unfolded) for i in range(4)] == blocks
        assert {len(block.layers) for block in unfolded} == {2}
    # the counts of the usual CIFAR-10 versions of ResNet-18 and ResNet-34
    assert count_parameters(get("resnet18"), 3, 10) == 11_173_962
    assert count_parameters(get("resnet34"), 3, 10) == 21_282_122
    # and their multiply-accumulates, and those of VGG-16, at 32x32
    for name, macs in (("resnet18", 0.556e9), ("resnet34", 1.16e9), ("vgg", 0.313e9)):
        assert estimate_cost(get(name), CIFAR, 10).macs == pytest.approx(macs, rel=0.005)


def test_regulators_stand_where_the_tables_say():
    assert regulators("dacnn18-reg") == [4, 4, 4, 6]  # one per layer
    assert sum(regulators("dacnn34-reg")) == 34
    assert regulators("dacnn18-reg-none") == [0, 0, 0, 0]
    assert regulators("dacnn18-reg-section3") == [0, 0, 2, 0]  # one per block
    assert regulators("dacnn18-reg-all") == [2, 2, 2, 2]
    assert regulators("dacnn18-mix-reg") == [2, 2, 2, 2]
    assert regulators("dacnn34-mix-reg") == [3, 4, 6, 3]
    assert regulators("dacnn34-mix") == [0, 0, 0, 0]
    assert kernels("dacnn18-reg-section1") == kernels("dacnn18-reg-none") == ["anchor1"] * 16


def parameters(name, classes=10):
    return count_parameters(get(name), 3, classes)


def test_networks_of_other_papers_have_their_counts_but_for_the_differences_that_the_zoo_tells():
    # torchvision's ResNet-34 for 1,000 classes; ShaResNet-34: 13.6 million in its paper. Both have a stem of 7x7.
    larger_stem = 64 * 3 * (7 * 7 - 3 * 3)
    assert parameters("resnet34", 1000) + larger_stem == 21_797_672
    assert parameters("sharesnet34", 1000) + larger_stem == 13_613_864
    # ResNet-20 as He et al. count, 0.27 million: its shortcuts have no weights.
    projections = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert parameters("resnet20") - projections == 269_722
    # MLPerf Tiny's ResNet-8 has 78,186 trainable parameters, and 480 statistics in its count of 78,666.
    biases, norms_of_projections = 3 * (16 + 32 + 64), 2 * (32 + 64)
    assert parameters("resnet8") + biases - norms_of_projections == 78_186
    assert estimate_cost(get("resnet8"), CIFAR, 10).macs == 12_501_632
    # ThriftyNet: a kernel of 9 f^2, 2 f + h + 1 for each of T iterations, and the classifier.
    stem = 3 * 3 * 3 + 2
    assert parameters("thriftynet") - 64 * stem + 14 == 39_334
    missing_history = 4 + 3 + 2 + 1
    assert parameters("thriftynet-h5") - 62 * stem + 30 + missing_history == 39_126
    # With f^2 + 9 f in place of the kernel.
    assert parameters("thriftynet-separable") - 163 * stem + 30 + missing_history == 39_636
    # Shared WRN-28-10: 12.29 and 17.13 million, of which each anchor of a section takes 9 w^2.
    one_per_section = sum(9 * width**2 for width in (160, 320, 640))
    assert parameters("swrn28-10-2") - parameters("swrn28-10-1") == one_per_section + 2 * (8 + 7 + 7)
    assert parameters("swrn28-10-2") + one_per_section == pytest.approx(17.13e6, rel=2e-3)
