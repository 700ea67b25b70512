"""Random architectures and spaces for property tests."""

from typing import get_args

from hypothesis import strategies as st

from dacnn_search.network.architecture import Architecture, Convolutions, Mixing, Section, Sharing, Shortcuts

WIDTHS = (3, 4, 6, 10)


@st.composite
def architectures(draw, most_sections=3, most_depth=4):
    """Any architecture of small depth and width."""
    sharing = draw(st.sampled_from(get_args(Sharing)))
    count = draw(st.integers(1, most_sections))
    width = draw(st.sampled_from(WIDTHS))
    sections = tuple(
        Section(
            depth=draw(st.integers(1, most_depth)),
            width=width if sharing == "network" else draw(st.sampled_from(WIDTHS)),
            regulators=draw(st.sampled_from(["none", "block", "layer"])),
        )
        for _ in range(count)
    )
    return Architecture(
        sections,
        sharing,
        draw(st.integers(1, 5)),
        draw(st.sampled_from(["auto", *get_args(Shortcuts)])),
        draw(st.booleans()),
        draw(st.sampled_from(get_args(Mixing))),
        draw(st.integers(1, 4)),
        draw(st.sampled_from(get_args(Convolutions))),
    )


def one_or_many(values):
    """A fixed value or a choice, as in the YAML."""
    forms = [
        st.sampled_from(values),
        st.lists(st.sampled_from(values), min_size=1, unique=True).map(lambda v: {"choice": v}),
    ]
    return st.one_of(*forms)


@st.composite
def space_parts(draw):
    """The `architecture:` part of a small space."""
    return {
        "sections": draw(one_or_many([1, 2, 3])),
        "depth": draw(
            st.one_of(
                one_or_many([1, 2, 3]),
                st.integers(1, 3).map(lambda high: {"range": {"low": 1, "high": high}}),
                st.just([1, {"choice": [1, 2]}, {"range": {"low": 1, "high": 3, "step": 2}}]),
            )
        ),
        "width": draw(one_or_many([4, 5])),
        "growth": draw(one_or_many([1, 1.1, 2, 0.5])),
        "sharing": draw(one_or_many(get_args(Sharing))),
        "anchors": draw(one_or_many([1, 2, 3])),
        "mixing": draw(one_or_many(get_args(Mixing))),
        "shortcuts": draw(one_or_many(["auto", *get_args(Shortcuts)])),
        "history": draw(st.one_of(one_or_many([1, 2, 3, 5]), st.just({"range": {"low": 1, "high": 4}}))),
        "regulators": draw(one_or_many(["none", "block", "layer"])),
        "convolutions": draw(one_or_many(get_args(Convolutions))),
        "batch_norm": draw(one_or_many([True, False])),
    }
