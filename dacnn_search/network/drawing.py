"""Draw an architecture in text, for terminals, previews and model cards."""

import textwrap
from collections import Counter
from collections.abc import Mapping

from dacnn_search.network.architecture import Architecture, Block

LEGEND = "A A share a kernel · AB mixes A and B · o has its own · T transition · [ ] shortcut · + regulator"
LETTERS = "ABCDEFGHIJKLMNOPQRUVWXYZ"  # T is a transition, S the stem in the dashboard's drawing
COLUMNS = 100  # after which the layers of a section go on in another line
KEPT = "\N{NO-BREAK SPACE}"  # a space at which no line ends


def draw(architecture: Architecture, input_shape: tuple[int, int, int]) -> str:
    """Draw each section with its width, its resolution and its layers; `LEGEND` says what the marks mean.

    Raises ArchitectureError if images of `input_shape` (channels, height, width) are too small for the poolings.
    """
    channels, height, width = input_shape
    architecture.check_image_size(height, width)
    letters = _letters(architecture)
    rows = [("image", f"{channels} channel{'s' * (channels > 1)}, {height}x{width}", "stem")]
    for index, section in enumerate(architecture.sections):
        size = f"{section.width} wide, {height >> index}x{width >> index}"
        blocks = [_draw_block(block, letters) for block in architecture.blocks if block.section == index]
        rows.append((f"section {index + 1}", size, " ".join(blocks)))
    if history := _history(architecture):
        rows.append(("history", "", history))
    if architecture.separable:
        rows.append(("kernels", "", "separable: 3x3 per channel, then 1x1; full in the stem"))
    columns = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return "\n".join(_wrapped(f"{a:{columns[0]}}  {b:{columns[1]}}  ", c) for a, b, c in rows)


def _letters(architecture: Architecture) -> dict[str, str]:
    """Return a letter per kernel: A, B, ..., Z, A2, B2, ... for those of several layers, o for others, T for those of
    transitions."""
    uses = Counter(kernel for block in architecture.blocks for layer in block.layers for kernel in layer.kernels)
    letters = {kernel: "T" if kernel.startswith("transition") else "o" for kernel in uses}
    for number, kernel in enumerate(kernel for kernel, count in uses.items() if count > 1):
        turn, place = divmod(number, len(LETTERS))
        letters[kernel] = LETTERS[place] + (str(turn + 1) if turn else "")
    return letters


def _draw_block(block: Block, letters: Mapping[str, str]) -> str:
    layers = KEPT.join("".join(map(letters.__getitem__, x.kernels)) + "+" * x.regulator for x in block.layers)
    if block.shortcut == "none":
        return layers
    return f"[{layers.removesuffix('+')}]{'+' * block.layers[-1].regulator}"


def _history(architecture: Architecture) -> str:
    """Say what the layers add of their last inputs; nothing of a network without shortcuts from the history."""
    lengths = [layer.history for block in architecture.blocks for layer in block.layers]
    if not any(lengths):
        return ""
    if max(lengths) == 1:
        return f"each layer{' but T' * (0 in lengths)} adds its input"
    return f"each layer adds its last {max(lengths)} inputs" + ", which T begins anew" * (0 in lengths)


def _wrapped(head: str, text: str) -> str:
    lines = textwrap.wrap(text, COLUMNS - len(head))
    return f"\n{' ' * len(head)}".join([head + lines[0], *lines[1:]]).replace(KEPT, " ")
