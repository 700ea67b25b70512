"""Draw an architecture in text, for terminals, previews and model cards."""

from dacnn_search.network.architecture import Architecture, Block

__all__ = ["LEGEND", "draw"]

LEGEND = "[ ] shortcut around a block · equal letters share a kernel · T transition layer · + regulator"


def draw(architecture: Architecture, input_shape: tuple[int, int, int]) -> str:
    """Draw one line per section with its layers, width and resolution.

    Raises ArchitectureError if images of `input_shape` (channels, height, width) are too small for the poolings.
    """
    channels, height, width = input_shape
    architecture.check_image_size(height, width)
    letters: dict[str, str] = {}
    rows = [("image", f"stem {channels} > {architecture.sections[0].width}", "")]
    for index, section in enumerate(architecture.sections):
        blocks = [block for block in architecture.blocks if block.section == index]
        size = f"{section.width} wide, {height >> index}x{width >> index}"
        rows.append((f"section {index + 1}", " ".join(_draw_block(block, letters) for block in blocks), size))
    columns = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return "\n".join(f"{a:{columns[0]}}  {b:{columns[1]}}  {c}".rstrip() for a, b, c in rows)


def _draw_block(block: Block, letters: dict[str, str]) -> str:
    layers = []
    for layer in block.layers:
        letter = "T" if layer.kernel.startswith("transition") else _letter(layer.kernel, letters)
        layers.append(letter + "+" * layer.regulator)
    regulated = layers[-1].endswith("+") and block.shortcut != "none"
    text = " ".join([*layers[:-1], layers[-1].rstrip("+") if regulated else layers[-1]])
    return f"[{text}]{'+' * regulated}" if block.shortcut != "none" else text


def _letter(kernel: str, letters: dict[str, str]) -> str:
    """Return the letter of a kernel: A, B, ... Z without T, then A2, B2, ..."""
    alphabet = "ABCDEFGHIJKLMNOPQRSUVWXYZ"
    turn, place = divmod(len(letters), len(alphabet))
    return letters.setdefault(kernel, alphabet[place] + (str(turn + 1) if turn else ""))
