import dataclasses
import itertools
from typing import get_args

import pytest
from hypothesis import given
from strategies import architectures

from dacnn_search.common.errors import ArchitectureError
from dacnn_search.network.architecture import Architecture, Mixing, Section, Sharing, most_sections


def plain(depths, width=8, regulators="none", **fields):
    return Architecture(tuple(Section(d, width, regulators) for d in depths), **{"sharing": "network", **fields})


def widening(depths, **fields):
    return Architecture(tuple(Section(depth, 8 + index) for index, depth in enumerate(depths)), **fields)


def kernels(architecture):
    return ["*".join(layer.kernels) for block in architecture.blocks for layer in block.layers]


@given(architectures())
def test_dict_round_trip(architecture):
    assert Architecture.from_dict(architecture.to_dict()) == architecture


@given(architectures())
def test_canonical_is_the_same_network_and_settles(architecture):
    canonical = architecture.canonical()
    assert canonical.fingerprint == architecture.fingerprint
    assert canonical.canonical() == canonical
    assert canonical.blocks == architecture.blocks


@given(architectures(most_sections=2, most_depth=2), architectures(most_sections=2, most_depth=2))
def test_one_fingerprint_means_one_canonical_form(a, b):
    assert (a.fingerprint == b.fingerprint) == (a.canonical() == b.canonical())


def test_one_fingerprint_means_one_canonical_form_among_all_small_architectures():
    forms = {}
    for depths in itertools.chain(*(itertools.product((1, 2, 3, 5), repeat=count) for count in (1, 2, 3))):
        for widths in itertools.product((8, 9), repeat=len(depths)):
            sections = tuple(map(Section, depths, widths))
            for sharing, anchors in itertools.product(get_args(Sharing), (1, 2, 3)):
                if widths[0] == 8 and (sharing != "network" or len(set(widths)) == 1):
                    for mixing in get_args(Mixing):
                        architecture = Architecture(sections, sharing, anchors, mixing=mixing)
                        form = architecture.canonical()
                        assert forms.setdefault(architecture.fingerprint, form) == form == form.canonical()
    assert len(set(forms.values())) == len(forms)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (plain([3]), plain([3], sharing="section")),
        (plain([1]), plain([1], sharing="none")),
        (plain([3], anchors=3), plain([3], sharing="none")),
        (plain([3], anchors=7), plain([3], sharing="none", anchors=2)),
        (plain([1, 1], sharing="section"), plain([1, 1], anchors=2)),
        (
            plain([2, 3], sharing="section", anchors=2),
            plain([2, 3], sharing="section", anchors=2, shortcuts="none"),
        ),
        (plain([1], regulators="block"), plain([1], regulators="layer")),
        (plain([1], regulators="block", shortcuts="block"), plain([1], regulators="layer", shortcuts="block")),
        (plain([2, 2], sharing="second"), plain([2, 2], sharing="none")),
        (widening([2, 3], sharing="second"), widening([2, 3], sharing="section", anchors=2)),
        (widening([2, 5], sharing="second", anchors=2), widening([2, 5], sharing="section", anchors=4)),
        (plain([4], sharing="second"), plain([4], sharing="second", mixing="learned")),
        (plain([3], anchors=3, mixing="learned"), plain([3], sharing="none")),
        (plain([3], mixing="learned"), plain([3])),
        (plain([2], shortcuts="history", history=2), plain([2], shortcuts="history", history=9)),
        (plain([2], history=2), plain([2])),
    ],
)
def test_descriptions_of_one_network_have_one_fingerprint(one, other):
    assert one.fingerprint == other.fingerprint
    assert one.canonical() == other.canonical()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (plain([3]), plain([3], shortcuts="block")),
        (plain([3]), plain([3], shortcuts="history")),
        (plain([3], shortcuts="history", history=1), plain([3], shortcuts="history", history=2)),
        (plain([3], anchors=2), plain([3], anchors=2, mixing="learned")),
        (plain([4], sharing="second"), plain([4])),
        (widening([2, 4], sharing="second"), widening([2, 4], sharing="section", anchors=2)),
        (plain([3, 3]), plain([3, 3], sharing="section")),
        (plain([3, 3], anchors=2), plain([3, 3], sharing="section", anchors=2)),
        (plain([2], regulators="block"), plain([2], regulators="layer")),
        (plain([2, 2]), plain([4])),
        (plain([2]), plain([2], batch_norm=False)),
        (plain([1]), plain([1], convolutions="separable")),
    ],
)
def test_different_networks_have_different_fingerprints(one, other):
    assert one.fingerprint != other.fingerprint


def test_plain_mixed_and_free_sharing():
    assert kernels(plain([2, 2])) == ["anchor1"] * 4
    assert kernels(plain([2, 2], sharing="section")) == ["anchor1", "anchor1", "anchor2", "anchor2"]
    assert kernels(plain([2, 2], sharing="none")) == ["anchor1", "anchor2", "anchor3", "anchor4"]


def test_anchors_are_used_in_turn():
    assert kernels(plain([3, 2], anchors=2)) == ["anchor1", "anchor2", "anchor1", "anchor2", "anchor1"]
    mixed = plain([3, 2], sharing="section", anchors=2)
    assert kernels(mixed) == ["anchor1", "anchor2", "anchor1", "anchor3", "anchor4"]


def test_second_layers_of_blocks_share():
    assert kernels(plain([4, 3], sharing="second")) == [f"anchor{n}" for n in (1, 2, 3, 2, 4, 5, 6)]
    widened = ["anchor1", "anchor2", "transition2", "anchor3", "anchor4", "anchor3", "anchor5"]
    assert kernels(widening([2, 4], sharing="second")) == widened
    in_turn = [f"anchor{n}" for n in (1, 2, 3, 4, 5, 2)]
    assert kernels(plain([6], sharing="second", anchors=2)) == in_turn


def test_layers_mix_the_anchors_of_their_scope_where_there_are_fewer_anchors_than_layers():
    mixed = plain([3, 2], sharing="section", anchors=2, mixing="learned")
    assert kernels(mixed) == ["anchor1*anchor2"] * 3 + ["anchor3", "anchor4"]
    assert kernels(plain([1, 2], anchors=2, mixing="learned")) == ["anchor1*anchor2"] * 3


@pytest.mark.parametrize(
    ("architecture", "fingerprint"),
    [
        (Architecture((Section(2, 8), Section(3, 16, "block")), "section", 2, "block"), "8d3c8b92ce955651"),
        (Architecture((Section(3, 8), Section(3, 8, "layer")), "network", 2, "none", False), "eb1a0b9cb460edad"),
        (Architecture((Section(1, 6), Section(2, 9)), "none"), "64222e9b751d6eac"),
    ],
)
def test_fingerprints_are_those_of_the_first_version(architecture, fingerprint):
    assert architecture.fingerprint == fingerprint


@pytest.mark.parametrize(("old", "shortcuts"), [(True, "block"), (False, "none"), ("auto", "auto")])
def test_from_dict_reads_residual_as_older_descriptions_have_it(old, shortcuts):
    values = {"sections": [{"depth": 2, "width": 8}], "residual": old}
    assert Architecture.from_dict(values) == Architecture((Section(2, 8),), shortcuts=shortcuts)


def test_mixed_18_has_the_blocks_of_resnet_18():
    sections = (Section(4, 64), Section(3, 128), Section(3, 256), Section(3, 512))
    mixed = Architecture(sections, "section")
    assert mixed.layers == 18
    assert mixed.decided_shortcuts == "block"
    assert [len(block.layers) for block in mixed.blocks] == [2] * 8
    assert [block.shortcut for block in mixed.blocks] == ["identity"] * 2 + ["projection", "identity"] * 3
    assert [block.pool for block in mixed.blocks] == [False, False, True, False, True, False, True, False]
    assert dataclasses.replace(mixed, sections=(Section(3, 64), *sections[1:])).decided_shortcuts == "none"


def test_regulators_follow_blocks_or_layers():
    def placed(regulators):
        blocks = plain([3], regulators=regulators).blocks
        return [[layer.regulator for layer in block.layers] for block in blocks]

    assert placed("none") == [[False, False], [False]]
    assert placed("block") == [[False, True], [True]]
    assert placed("layer") == [[True, True], [True]]


@pytest.mark.parametrize(("height", "width", "most"), [(8, 8, 4), (28, 28, 5), (32, 32, 6), (7, 64, 3), (1, 1, 1)])
def test_most_sections(height, width, most):
    assert most_sections(height, width) == most


def test_too_many_poolings():
    with pytest.raises(ArchitectureError, match="5 sections need 4 poolings and 8x8 pixels allow 3"):
        plain([1] * 5).check_image_size(8, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sections": ()}, "sections must be 1 to 16"),
        ({"sections": (Section(0, 8),)}, r"section 1: depth must be an integer in \[1, 512\], but is 0"),
        ({"sections": (Section(1, 2.5),)}, "width must be an integer"),
        ({"sections": (Section(1, 8, "often"),)}, "regulators must be none, block or layer, but is 'often'"),
        ({"sharing": "all"}, "sharing must be network, section, second or none, but is 'all'"),
        ({"anchors": 0}, "anchors must be an integer of at least 1, but is 0"),
        ({"shortcuts": True}, "shortcuts must be none, block, history or auto, but is True"),
        ({"mixing": "all"}, "mixing must be turn or learned, but is 'all'"),
        ({"history": 0}, r"history must be an integer in \[1, 16\], but is 0"),
        ({"convolutions": "grouped"}, "convolutions must be full or separable, but is 'grouped'"),
        ({"batch_norm": "yes"}, "batch_norm must be true or false, but is 'yes'"),
        ({"sections": (Section(1, 8), Section(1, 9)), "sharing": "network"}, "one width in all sections"),
    ],
)
def test_errors_state_rule_and_value(fields, message):
    with pytest.raises(ArchitectureError, match=message):
        Architecture(**{"sections": (Section(1, 8),), **fields})


@pytest.mark.parametrize(
    "values",
    [[], {}, {"sections": 3}, {"sections": [{"depth": 1}]}, {"sections": [], "colour": 1}, {"sections": [1]}],
)
def test_from_dict_rejects(values):
    with pytest.raises(ArchitectureError):
        Architecture.from_dict(values)


def test_str_is_one_readable_line():
    text = str(plain([2, 3], regulators="block", anchors=2, shortcuts="block"))
    assert text == "2 sections, 8 wide, 2+3 deep, network sharing, 2 anchors, regulators block+block, residual"
    family = Architecture((Section(4, 8),), "network", 2, "history", mixing="learned", history=3)
    assert str(family) == "1 section, 8 wide, 4 deep, network sharing, 2 mixed anchors, history of 3"
    separable = plain([2], convolutions="separable", shortcuts="block")
    assert str(separable) == "1 section, 8 wide, 2 deep, network sharing, separable, residual"
    assert str(plain([1])) == "1 section, 8 wide, 1 deep"  # a single layer shares with nobody
