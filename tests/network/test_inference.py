"""What the C code of each family needs of flash and RAM. Its tests in `export/c` compile it."""

import dataclasses

import pytest

from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.inference import SEPARABLE_BYTES, SUMS_BYTES, plan_inference

SHAPE = (3, 10, 8)
PIXELS, WIDTH, CHANNELS = 80, 8, 6
ACTIVATIONS = PIXELS * CHANNELS
UNDER_THE_KERNEL, ROW = 9 * CHANNELS, WIDTH * CHANNELS


def plan(*depths, shape=SHAPE, width=CHANNELS, **settings):
    return plan_inference(Architecture(tuple(Section(d, width) for d in depths), **settings), shape, 10)


@pytest.mark.parametrize(("depth", "history", "kept"), [(2, 5, 2), (3, 5, 3), (9, 5, 5), (9, 2, 2), (3, 4, 3)])
def test_the_last_inputs_take_as_many_places_as_are_used(depth, history, kept):
    assert plan(depth, shortcuts="history", history=history).arena == kept * ACTIVATIONS + UNDER_THE_KERNEL


@pytest.mark.parametrize(("depth", "history"), [(1, 5), (9, 1)])
def test_a_history_of_one_input_works_in_place(depth, history):
    assert plan(depth, shortcuts="history", history=history).arena == ACTIVATIONS + UNDER_THE_KERNEL + ROW


def test_a_history_grows_into_the_next_section_where_activations_are_smaller():
    grown = plan(1, 9, sharing="network", shortcuts="history", history=5)
    assert grown.arena == 2 * ACTIVATIONS + UNDER_THE_KERNEL
    assert [c.history for c in grown.convolutions] == [0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5]
    smaller = ACTIVATIONS // 4
    assert [c.target // smaller for c in grown.convolutions[2:]] == [2, 3, 4, 0, 1, 2, 3, 4, 0]


def test_a_transition_begins_a_new_history():
    sections = Section(6, 4), Section(6, 5)
    new = plan_inference(Architecture(sections, shortcuts="history", history=3), SHAPE, 10).convolutions
    transition = new[7]
    assert transition.pool
    assert (transition.history, transition.target) == (0, 0)
    assert [c.history for c in new] == [0, 1, 2, 3, 3, 3, 3, 0, 1, 2, 3, 3, 3, 3]


def test_a_history_takes_four_bytes_of_flash_for_each_input_and_two_for_each_channel_but_none_for_shortcuts():
    shortest, longer = (plan(6, shortcuts="history", history=history) for history in (1, 3))
    assert longer.flash - shortest.flash == 4 * (1 + 2 * 4)
    layers = 1 + 6
    assert shortest.flash - plan(6).flash == 6 * (4 + 2 * CHANNELS) - layers * 10 + SUMS_BYTES


def test_a_mix_stores_its_anchors_once_and_two_bytes_for_each_further_one_and_channel():
    one, mixed = (plan(7, 7, sharing="network", anchors=k, mixing="learned") for k in (1, 3))
    assert mixed.weight_bytes - one.weight_bytes == 2 * 9 * CHANNELS**2
    assert mixed.flash - one.flash == 2 * 9 * CHANNELS**2 + 14 * 2 * 2 * CHANNELS + SUMS_BYTES
    assert mixed.arena == one.arena


def test_a_separable_kernel_stores_its_parts_and_takes_memory_for_what_is_between_them():
    full, separable, mixed = (
        plan(7, 7, sharing="network", anchors=k, mixing="learned", convolutions=convolutions)
        for k, convolutions in ((1, "full"), (1, "separable"), (3, "separable"))
    )
    assert full.weight_bytes - separable.weight_bytes == 9 * CHANNELS**2 - (9 * CHANNELS + CHANNELS**2)
    assert separable.flash == full.flash - full.weight_bytes + separable.weight_bytes + SEPARABLE_BYTES[False]
    assert separable.arena == full.arena
    assert (full.ram - full.arena, separable.ram - separable.arena, mixed.ram - mixed.arena) == (
        0,
        2 * CHANNELS,
        3 * 2 * CHANNELS,
    )


def test_second_layers_share_as_others_do():
    architecture = Architecture((Section(6, CHANNELS),), "second")
    kernels = [c.kernels for c in plan_inference(architecture, SHAPE, 10).convolutions]
    assert len(kernels) == 7
    assert len(set(kernels)) == 1 + 4
    turn = dataclasses.replace(architecture, sharing="section", anchors=4)
    assert plan_inference(turn, SHAPE, 10).flash == plan_inference(architecture, SHAPE, 10).flash
