"""The C code on Arm cores: its size by GCC, its scores in QEMU. `.ci/run` installs both."""

import dataclasses
import shutil
import subprocess

import numpy as np
import pytest
from c_networks import integer_network, random_images, write_c

from dacnn_search.export.c.compiler import QEMU_TOOLS, TARGETS, measure_size, run_in_qemu
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import estimate_cost

pytestmark = [
    pytest.mark.mcu,
    pytest.mark.skipif(not all(map(shutil.which, QEMU_TOOLS)), reason=f"needs {', '.join(QEMU_TOOLS)}"),
]

PLAIN = Architecture(tuple(Section(6, 32) for _ in range(3)), "network", shortcuts="none")  # 18 layers share a kernel
NETWORKS = {
    "projection": (Architecture((Section(2, 6), Section(3, 10)), "section", shortcuts="block"), (3, 10, 9)),
    "shared": (Architecture((Section(3, 8), Section(2, 8)), "network", 2, shortcuts="block"), (1, 9, 8)),
    "regulators": (Architecture((Section(2, 5, "layer"), Section(2, 8, "block")), "none"), (3, 8, 8)),
    "history": (
        Architecture((Section(4, 6, "layer"), Section(3, 10)), "second", shortcuts="history", history=3),
        (3, 10, 9),
    ),
    "mixes": (Architecture((Section(3, 6), Section(4, 8)), "section", 2, "block", mixing="learned"), (1, 9, 8)),
    "separable": (Architecture((Section(3, 6), Section(4, 8)), "none", convolutions="separable"), (3, 9, 8)),
    "separable mixes": (
        Architecture((Section(3, 5), Section(4, 7)), "section", 2, mixing="learned", convolutions="separable"),
        (3, 9, 8),
    ),
}
LARGE = {
    "plain": PLAIN,
    "history": dataclasses.replace(PLAIN, shortcuts="history"),
    "mixes": dataclasses.replace(PLAIN, anchors=3, mixing="learned"),
    "history and mixes": dataclasses.replace(PLAIN, shortcuts="history", anchors=3, mixing="learned"),
    "separable": dataclasses.replace(PLAIN, convolutions="separable"),
    "separable mixes": dataclasses.replace(PLAIN, anchors=3, mixing="learned", convolutions="separable"),
    "separable, history": dataclasses.replace(PLAIN, shortcuts="history", convolutions="separable"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    network = integer_network(PLAIN, (3, 32, 32), 10)
    return network, write_c(tmp_path_factory.mktemp("plain") / "c", network)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_cores_compute_what_the_reference_computes(tmp_path, name, target):
    architecture, shape = NETWORKS[name]
    network, images = integer_network(architecture, shape, 4), random_images(12, shape)
    scores, classes, instructions = run_in_qemu(write_c(tmp_path / "c", network), target, images)
    expected_scores, expected_classes = network.scores(images)
    np.testing.assert_array_equal(scores, expected_scores)
    np.testing.assert_array_equal(classes, expected_classes)
    assert 1 < instructions / estimate_cost(architecture, shape, 4).macs < 60


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LARGE)
def test_size_is_what_the_plan_promises(tmp_path, name, target):
    network = integer_network(LARGE[name], (3, 32, 32), 10)
    size = measure_size(write_c(tmp_path / "c", network), target)
    assert size["flash"] == pytest.approx(network.plan.flash, rel=0.05)
    assert size["ram"] == pytest.approx(network.plan.ram, abs=8)


def test_18_layers_of_32_channels_take_less_than_15_kilobytes(plain):
    network, folder = plain
    assert network.plan.weight_bytes + network.plan.table_bytes < 15_000
    assert measure_size(folder, "cortex-m4")["flash"] < 17_000  # with its code


def test_an_old_core_without_those_instructions_takes_the_code(plain):
    _, folder = plain
    command = ["arm-none-eabi-gcc", "-mcpu=arm926ej-s", "-std=c99", "-c", "-o", "old.o", "network.c"]
    subprocess.run(command, cwd=folder, check=True)
