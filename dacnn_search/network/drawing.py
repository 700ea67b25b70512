"""Draw an architecture in text, for terminals, previews and model cards."""

from dacnn_search.network.architecture import Architecture, Block

LEGEND = (
    "[ ] shortcut around a block · equal letters share a kernel, A*B mixes A and B · T transition layer · + regulator"
)
LETTERS = "ABCDEFGHIJKLMNOPQRSUVWXYZ"


def draw(architecture: Architecture, input_shape: tuple[int, int, int]) -> str:
    """Draw one line per section with its layers, width and resolution.

    Raises ArchitectureError if images of `input_shape` (channels, height, width) are too small for the poolings.
    """
    channels, height, width = input_shape
    architecture.check_image_size(height, width)
    rows = [("image", f"stem {channels} > {architecture.sections[0].width}", "")]
    for index, section in enumerate(architecture.sections):
        blocks = [_draw_block(block) for block in architecture.blocks if block.section == index]
        size = f"{section.width} wide, {height >> index}x{width >> index}"
        if architecture.decided_shortcuts == "history":
            size += f", each adds its last {architecture.history} inputs"
        rows.append((f"section {index + 1}", " ".join(blocks), size))
    columns = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return "\n".join(f"{a:{columns[0]}}  {b:{columns[1]}}  {c}".rstrip() for a, b, c in rows)


def _draw_block(block: Block) -> str:
    layers = " ".join("*".join(map(_letter, layer.kernels)) + "+" * layer.regulator for layer in block.layers)
    if block.shortcut == "none":
        return layers
    return f"[{layers.removesuffix('+')}]{'+' * block.layers[-1].regulator}"


def _letter(kernel: str) -> str:
    """Return A, B, ... Z without T, then A2, B2, ... for anchors 1, 2, ..., and T for transitions."""
    if kernel.startswith("transition"):
        return "T"
    turn, place = divmod(int(kernel.removeprefix("anchor")) - 1, len(LETTERS))
    return LETTERS[place] + (str(turn + 1) if turn else "")
