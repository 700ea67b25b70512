import pytest
from hypothesis import given
from strategies import architectures

from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.drawing import COLUMNS, LEGEND, draw


@pytest.mark.parametrize(
    ("architecture", "drawing"),
    [
        (
            Architecture((Section(3, 8, "block"), Section(2, 16, "layer")), shortcuts="block"),
            """
image      3 channels, 32x32  stem
section 1  8 wide, 32x32      [A A]+ [A]+
section 2  16 wide, 16x16     [T+ B]+ [B]+
""",
        ),
        (
            Architecture((Section(4, 8), Section(4, 8)), sharing="second"),
            """
image      3 channels, 32x32  stem
section 1  8 wide, 32x32      o A o A
section 2  8 wide, 16x16      o B o B
""",
        ),
        (
            Architecture((Section(3, 8), Section(4, 16)), anchors=3, mixing="learned"),
            """
image      3 channels, 32x32  stem
section 1  8 wide, 32x32      o o o
section 2  16 wide, 16x16     T ABC ABC ABC ABC
""",
        ),
        (
            Architecture((Section(2, 8), Section(3, 16, "layer")), shortcuts="history", history=2),
            """
image      3 channels, 32x32  stem
section 1  8 wide, 32x32      A A
section 2  16 wide, 16x16     T+ B+ B+ B+
history                       each layer adds its last 2 inputs, which T begins anew
""",
        ),
        (
            Architecture((Section(2, 8),), shortcuts="history", history=1),
            """
image      3 channels, 32x32  stem
section 1  8 wide, 32x32      A A
history                       each layer adds its input
""",
        ),
        (
            Architecture((Section(2, 8), Section(1, 16)), shortcuts="history", history=1),
            """
image      3 channels, 32x32  stem
section 1  8 wide, 32x32      A A
section 2  16 wide, 16x16     T o
history                       each layer but T adds its input
""",
        ),
        (
            Architecture((Section(2, 8), Section(1, 16)), convolutions="separable"),
            """
image      3 channels, 32x32  stem
section 1  8 wide, 32x32      A A
section 2  16 wide, 16x16     T o
kernels                       separable: 3x3 per channel, then 1x1; full in the stem
""",
        ),
    ],
    ids=["block", "second", "learned", "history", "short-history", "short-history-and-transition", "separable"],
)
def test_each_family(architecture: Architecture, drawing: str) -> None:
    assert draw(architecture, (3, 32, 32)) == drawing.strip()


def test_a_deep_network_fits_a_terminal_and_ends_no_line_inside_a_block() -> None:
    lines = draw(Architecture((Section(60, 64),), anchors=4, mixing="learned"), (3, 32, 32)).splitlines()
    assert len(lines) > 4
    assert max(map(len, [*lines, LEGEND])) <= COLUMNS
    assert all(line.count("[") == line.count("]") for line in lines)


@given(architectures())
def test_every_layer_is_drawn(architecture: Architecture) -> None:
    rows = draw(architecture, (1, 8, 8)).replace("[", "").replace("]", "").splitlines()
    drawn = [word for row in rows if row.startswith("section") for word in row.split("x")[-1].split()[1:]]
    layers = [layer for block in architecture.blocks for layer in block.layers]
    assert len(drawn) == len(layers)
    assert sum(word.endswith("+") for word in drawn) == sum(layer.regulator for layer in layers)
