"""Plan a network's inference with 8-bit integers: its convolutions in order, and where activations lie in one arena.

The C code of `export.c` follows this plan, so flash and RAM are known before a network is trained. Weights take one
byte each, a shared kernel once. Each use of it has a multiplier and an offset of its own for every channel, two bytes
each, which hold its batch norm. Activations take one byte. A layer that mixes k anchors stores no kernel: it has
multipliers of its own for each, computes the sums of each and adds them, so it takes k times the multiplications. The
last inputs that a layer adds are one more sum.

A separable kernel is stored as its two parts. The sums of its 3x3 part, one for each channel of a pixel, are rounded to
16 bits in a memory of their own, from which its 1x1 part takes them. They have no multipliers: the steps of the 3x3
part are factors of the weights of the 1x1 part.

Without a history, each block finds its input at the start of the arena and leaves its output there. Each convolution
gathers the pixels under its kernel in scratch, for one pixel after the other:

- A convolution outside of shortcuts works in place: it writes a pixel over its input after it has copied that pixel to
  scratch, which holds the last row. If it has more output than input channels, its input first moves to the end of the
  place that its output needs, so that no pixel is overwritten before it is used.
- An identity shortcut around two layers leaves the block's input where it is. The first layer writes beside it, the
  second back over it, while it adds it pixel by pixel. A single layer works in place and adds the pixel in scratch.
- A projected shortcut moves the block's input behind the place of its output, and is computed pixel by pixel with the
  block's last layer.
- A layer that adds its last h inputs finds them in the first h places of the arena, each of the size of one. It writes
  to the next place if the next layer adds one more, else, pixel by pixel, over the oldest. Max pooling pools them all
  and moves them together. If the next layer adds none, it pools the last output to the start of the arena.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from dacnn_search.network.architecture import Architecture, Block, Shortcut

# Bytes of the generated code on a Cortex-M4 beside its constants, by GCC 12.2 with -O2.
CODE_BYTES = 1550
# What further sums add to them: of mixed anchors, of the last inputs in place of shortcuts around blocks, or both.
SUMS_BYTES = 90
# What separable kernels add to them, by whether layers mix them.
SEPARABLE_BYTES = {False: 280, True: 340}
FILTERED_BYTES = 2  # of a sum between the parts of a separable kernel
# Bytes of an entry in the C code's table of convolutions, by whether two bytes hold each offset: with the fields for
# shortcuts around blocks or, in networks with a history, without them.
ENTRY_BYTES = {True: 32, False: 44}
HISTORY_ENTRY_BYTES = {True: 22, False: 32}


class Convolution(NamedTuple):
    """One convolution with all that happens to a pixel before it is written: norm, shortcut, ReLU.

    `source`, `target`, `shortcut_at` and `scratch` are offsets in the arena, in bytes.
    """

    kernels: tuple[str, ...]  # what the names of its tensors, as in `network.cost.tensor_shapes`, begin with
    norm: str
    block: int  # its number; -1 for the stem, which reads the image
    side: int  # of the kernel: 3 or 1
    height: int  # of its output
    width: int
    in_channels: int
    out_channels: int
    pool: bool = False  # 2x2 max pooling comes before, in place at the start of the arena
    move: bool = False  # its input moves from the start of the arena to `source` before
    in_place: bool = False
    source: int = 0
    target: int = 0
    scratch: int = 0
    shortcut: Shortcut = "none"  # that ends here
    shortcut_at: int = 0
    shortcut_channels: int = 0
    projection: str = ""  # the names of its tensors
    projection_norm: str = ""
    history: int = 0  # how many of its last inputs it adds: those in the first places of the arena, `source` the newest
    separable: bool = False

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of its kernels' tensors, in the order in which they are stored."""
        if not self.separable:
            return self.kernels
        return tuple(f"{kernel}_{part}" for kernel in self.kernels for part in ("depthwise", "pointwise"))

    @property
    def kernel_bytes(self) -> int:
        """Bytes of one of its kernels."""
        area, pairs = self.side**2, self.in_channels * self.out_channels
        return area * self.in_channels + pairs if self.separable else area * pairs

    @property
    def filtered_bytes(self) -> int:
        """Bytes of the sums between the parts of its separable kernels."""
        return FILTERED_BYTES * self.in_channels * len(self.kernels) * self.separable

    @property
    def reads_image(self) -> bool:
        return self.block == -1

    @property
    def is_regulator(self) -> bool:
        return self.side == 1

    @property
    def pixels(self) -> int:
        """Pixels of its output, and of its input after pooling."""
        return self.height * self.width

    @property
    def scratch_bytes(self) -> int:
        """The pixels under the kernel, and the last row of an input that it writes over."""
        row = self.width if self.in_place and self.side > 1 else 0
        return (self.side**2 + row) * self.in_channels

    @property
    def arena_end(self) -> int:
        """The end of the last byte of the arena that it uses."""
        input_end = 0 if self.reads_image else self.source + self.pixels * self.in_channels  # the image is the caller's
        return max(
            input_end,
            self.target + self.pixels * self.out_channels,
            self.shortcut_at + self.pixels * self.shortcut_channels,
            self.scratch + self.scratch_bytes,
        )


@dataclass(frozen=True)
class InferencePlan:
    """The inference of one network on images of one size. Its first convolution, the stem, reads the caller's image."""

    convolutions: tuple[Convolution, ...]
    weight_bytes: int  # kernels and classifier, one byte each
    scale_bytes: int  # multipliers and offsets, four bytes for the multiplier of an earlier input
    channels: int  # of the images

    @property
    def ram(self) -> int:
        """Bytes of all memory of the C code beside its stack and the caller's pixels and scores."""
        return self.arena + self.filtered_bytes

    @functools.cached_property
    def arena(self) -> int:
        """Bytes of the memory for activations."""
        last = self.convolutions[-1]
        averages = (last.pixels + 2) * last.out_channels  # two bytes each, behind the last activations
        return max(averages, *(convolution.arena_end for convolution in self.convolutions))

    @property
    def short_offsets(self) -> bool:
        """True if two bytes hold every offset in the arena and in the weights."""
        return max(self.arena, self.weight_bytes) < 2**16

    @property
    def table_bytes(self) -> int:
        """Bytes of all constants but the weights: multipliers, offsets, the plan itself and the stem's zero points."""
        entry = (HISTORY_ENTRY_BYTES if self.adds_history else ENTRY_BYTES)[self.short_offsets]
        return self.scale_bytes + entry * len(self.convolutions) + self.channels

    @functools.cached_property
    def adds_history(self) -> bool:
        """True if a layer adds its last inputs."""
        return any(convolution.history for convolution in self.convolutions)

    @functools.cached_property
    def mixes(self) -> bool:
        """True if a layer mixes anchors."""
        return any(len(convolution.kernels) > 1 for convolution in self.convolutions)

    @functools.cached_property
    def filtered_bytes(self) -> int:
        """Bytes of the memory for sums between the parts of separable kernels; 0 if there are none."""
        return max(convolution.filtered_bytes for convolution in self.convolutions)

    @property
    def separable(self) -> bool:
        """True if kernels are separable."""
        return self.filtered_bytes > 0

    @property
    def code_bytes(self) -> int:
        """Bytes of code, by GCC 12.2 with -O2 on a Cortex-M4."""
        sums = SUMS_BYTES * (self.mixes or self.adds_history)
        return CODE_BYTES + sums + SEPARABLE_BYTES[self.mixes] * self.separable

    @property
    def flash(self) -> int:
        """Bytes of weights, tables and code."""
        return self.weight_bytes + self.table_bytes + self.code_bytes


def plan_inference(architecture: Architecture, input_shape: tuple[int, int, int], classes: int) -> InferencePlan:
    """Plan the inference of a network on images of `input_shape` (channels, height, width).

    Raises ArchitectureError if the image has fewer halvings than the network has poolings.
    """
    architecture.check_image_size(*input_shape[1:])
    channels, height, width = input_shape
    first = architecture.sections[0].width
    stem = Convolution(("kernels.stem",), "stem_norm", -1, 3, height, width, channels, first)
    convolutions = [stem._replace(scratch=height * width * first)]
    places = _places_of_history(architecture)
    for number, block in enumerate(architecture.blocks):
        size = height >> block.section, width >> block.section
        convolutions += _convolutions_of(block, number, *size, places)
    kernels: dict[str, int] = {}
    scales = 4 * classes
    for c in convolutions:
        kernels |= dict.fromkeys(c.kernels, c.kernel_bytes)
        sums = len(c.kernels) + (c.projection != "") + (c.history > 0)
        scales += 2 * (sums + 1) * c.out_channels + 4 * c.history
        if c.projection:
            kernels[c.projection] = c.shortcut_channels * c.out_channels
    weights = sum(kernels.values()) + classes * convolutions[-1].out_channels
    return InferencePlan(tuple(convolutions), weights, scales, channels)


def _places_of_history(architecture: Architecture) -> Iterator[tuple[int, int]]:
    """Yield for each layer the places of its input and its output, numbered from 0, where it adds its last inputs.

    The places lie in a circle: before that of an input, or else in the last one, is the input before it.
    """
    layers = [layer.history for block in architecture.blocks for layer in block.layers]
    source = 0
    for history, next_history in itertools.zip_longest(layers, layers[1:], fillvalue=0):
        target = history if next_history > history else (source + 1) % max(1, history)
        yield source, target
        source = target


def _convolutions_of(
    block: Block, number: int, height: int, width: int, places_of_history: Iterator[tuple[int, int]]
) -> Iterator[Convolution]:
    """Yield the convolutions of a block, its regulators included."""
    name = f"blocks.{number}"
    in_channels, channels = block.layers[0].in_width, block.layers[-1].width
    before, after = height * width * in_channels, height * width * channels  # bytes of its input and its output
    ending: dict[str, Any] = {"shortcut": block.shortcut}
    if block.shortcut == "projection":  # the width changes, so there are two layers
        free = after + before
        places: list[dict[str, Any]] = [
            {"source": after, "move": True, "scratch": free},
            {"in_place": True, "scratch": free},
        ]
        ending |= {"shortcut_at": after, "shortcut_channels": in_channels}
        ending["projection"] = f"{name}.projection.convolution.weight"
        ending["projection_norm"] = f"{name}.projection.norm"
    elif block.shortcut == "identity" and len(block.layers) == 2:
        free = 2 * after
        places = [{"target": after, "scratch": free}, {"source": after, "scratch": free}]
    else:
        free = max(before, after)
        grown = max(after - before, 0)
        first = {"in_place": True, "source": grown, "move": grown > 0, "scratch": free}
        places = [first, {"in_place": True, "scratch": after}]
    if block.shortcut == "identity":
        ending["shortcut_channels"] = channels
    for index, (layer, place) in enumerate(zip(block.layers, places, strict=False)):
        kernels, layer_name = tuple(f"kernels.{kernel}" for kernel in layer.kernels), f"{name}.layers.{index}"
        last = index == len(block.layers) - 1
        source, target = next(places_of_history)
        if layer.history:
            kept = max(layer.history, target + 1)  # places
            place = {"source": source * after, "target": target * after, "scratch": kept * after}
            place |= {"in_place": source == target, "history": layer.history}
        place |= {"pool": block.pool and index == 0, "separable": layer.separable, **(ending if last else {})}
        yield Convolution(kernels, f"{layer_name}.norm", number, 3, height, width, layer.in_width, channels, **place)
        if layer.regulator:
            at = place.get("target", 0)
            scratch = after if last and not layer.history else place["scratch"]
            kernel, norm = f"{layer_name}.regulator.convolution.weight", f"{layer_name}.regulator.norm"
            place = {"in_place": True, "source": at, "target": at, "scratch": scratch}
            yield Convolution((kernel,), norm, number, 1, height, width, channels, channels, **place)
