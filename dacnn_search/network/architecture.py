"""`Architecture`: a frozen description of one weight-sharing CNN, and the layers it unfolds into.

A network is a stem (one 3x3 convolution from the image to the first width), sections separated by 2x2 max
pooling, global average pooling and a linear classifier. A section applies 3x3 kernels `depth` times; where the
width changes it starts with a transition layer, a 3x3 convolution with a kernel of its own. `sharing` and `anchors`
determine which applications share a kernel, the "anchor" (Huang, Dwivedi and Roig, equations 2, 3 and 6).

Every layer is convolution, batch norm with weights of its own, ReLU. Two successive layers of a section, its
transition included, make a block; the last block of a section may have one layer. A residual network adds a
shortcut around each block before its last ReLU (Figure 2), through a 1x1 convolution where the width changes.
A regulator (1x1 convolution, batch norm, ReLU) follows each block or each layer of a section.

Cost, model, drawing and identity are all derived from `Architecture.blocks`, the unfolded network.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dacnn_search.common.errors import ArchitectureError

Regulators = Literal["none", "block", "layer"]
Sharing = Literal["network", "section", "none"]
Shortcut = Literal["none", "identity", "projection"]

MOST_SECTIONS, MOST_DEPTH, MOST_WIDTH = 16, 512, 8192
# The paper makes networks "deeper than 17 layers" residual. The stem and the classifier count, as in VGG and ResNet.
DEEPEST_WITHOUT_SHORTCUTS = 17


@dataclass(frozen=True)
class Section:
    """The layers between two poolings."""

    depth: int  # applications of shared kernels: the stem and the transition layer are not counted
    width: int  # channels of every layer
    regulators: Regulators = "none"  # or one per block, or one per layer


@dataclass(frozen=True)
class Layer:
    """One 3x3 convolution, batch norm and ReLU, from `in_width` to `width` channels."""

    kernel: str  # layers with the same name share it
    in_width: int
    width: int
    regulator: bool  # a regulator follows


@dataclass(frozen=True)
class Block:
    """One or two layers of a section, which a shortcut spans."""

    section: int  # from 0
    layers: tuple[Layer, ...]
    pool: bool  # 2x2 max pooling comes before
    shortcut: Shortcut


@dataclass(frozen=True)
class Architecture:
    """One network, independent of the data's channels, image size and classes.

    Args:
        sections: At least one.
        sharing: The layers that share an anchor: those of the whole `network` (the paper's plain DACNN; all sections
            then have the same width), of a `section` (the paper's mixed DACNN), or none (as in VGG and ResNet).
        anchors: The number of anchors that those layers use in turn.
        residual: Shortcuts around blocks. `auto` adds them in networks deeper than 17 layers, as in the paper.
        batch_norm: Batch norm after each convolution, or none anywhere (Table 1).

    Raises ArchitectureError, with the rule and the value, for anything that can't be built.
    """

    sections: tuple[Section, ...]
    sharing: Sharing = "section"
    anchors: int = 1
    residual: bool | Literal["auto"] = "auto"
    batch_norm: bool = True

    def __post_init__(self) -> None:
        if broken := list(_broken_rules(self)):
            raise ArchitectureError("; ".join(broken))

    @property
    def depth(self) -> int:
        """Applications of shared kernels in all sections."""
        return sum(section.depth for section in self.sections)

    @property
    def layers(self) -> int:
        """Layers with weights, counted as for VGG and ResNet: stem, transitions, shared layers, classifier."""
        transitions = sum(a.width != b.width for a, b in itertools.pairwise(self.sections))
        return 1 + transitions + self.depth + 1

    @property
    def is_residual(self) -> bool:
        """`residual` with `auto` decided."""
        return self.layers > DEEPEST_WITHOUT_SHORTCUTS if self.residual == "auto" else self.residual

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The unfolded network in the order of computation, without the stem.

        Kernels are named `anchor1`, `anchor2`, ... by first use and `transition2`, ... by section.
        """
        blocks: list[Block] = []
        anchors = iter(_anchors(self))
        width = self.sections[0].width
        for index, section in enumerate(self.sections):
            kernels = [(f"anchor{next(anchors)}", section.width) for _ in range(section.depth)]
            if section.width != width:
                kernels.insert(0, (f"transition{index + 1}", width))
                width = section.width
            for start in range(0, len(kernels), 2):
                pair = kernels[start : start + 2]
                first_regulated = {"none": 2, "block": len(pair) - 1, "layer": 0}[section.regulators]
                layers = [Layer(*kernel, width, place >= first_regulated) for place, kernel in enumerate(pair)]
                shortcut: Shortcut = "identity" if layers[0].in_width == width else "projection"
                blocks.append(
                    Block(index, tuple(layers), index > 0 and start == 0, shortcut if self.is_residual else "none")
                )
        return tuple(blocks)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The network's identity in 16 hex digits. Descriptions that unfold into the same network have the same."""
        unfolded = [self.batch_norm, [dataclasses.astuple(block) for block in self.blocks]]
        return hashlib.sha256(json.dumps(unfolded).encode()).hexdigest()[:16]

    def canonical(self) -> "Architecture":
        """Return the one description that stands for all that unfold into this network.

        It has `residual` decided, the widest sharing and the fewest anchors that give the same kernels, and regulators
        per block where those per layer are the same.
        """
        layers = Counter(block.section for block in self.blocks for _ in block.layers)
        sections = tuple(
            dataclasses.replace(s, regulators="block") if s.regulators == "layer" and layers[i] == 1 else s
            for i, s in enumerate(self.sections)
        )
        sharing, anchors = self.sharing, self.anchors
        if len(set(_anchors(self))) == self.depth:
            sharing, anchors = ("none" if self.depth > 1 else "network"), 1
        elif len(self.sections) == 1:
            sharing = "network"
        return Architecture(sections, sharing, anchors, self.is_residual, self.batch_norm)

    def check_image_size(self, height: int, width: int) -> None:
        """Raise ArchitectureError if an image of this size has fewer halvings than the network has poolings."""
        most = most_sections(height, width)
        if len(self.sections) > most:
            raise ArchitectureError(
                f"sections - 1 <= halvings of the image must hold, but {len(self.sections)} sections need "
                f"{len(self.sections) - 1} poolings and {height}x{width} pixels allow {most - 1}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain values for YAML and JSON, which `from_dict` reads."""
        return dataclasses.asdict(self) | {"sections": [dataclasses.asdict(section) for section in self.sections]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Architecture":
        """Read the values of `to_dict`. Raises ArchitectureError for missing, unknown or wrong entries."""
        _check_keys("architecture", values, {"sections"}, {f.name for f in dataclasses.fields(cls)})
        sections = values["sections"]
        if not isinstance(sections, list | tuple):
            raise ArchitectureError(f"sections must be a list, but is {sections!r}")
        for section in sections:
            _check_keys("section", section, {"depth", "width"}, {f.name for f in dataclasses.fields(Section)})
        return cls(**{**values, "sections": tuple(Section(**section) for section in sections)})

    def __str__(self) -> str:
        """One line, such as `2 sections, 16-32 wide, 3+4 deep, section sharing, regulators block+none, residual`."""
        parts = [
            f"{len(self.sections)} section{'s' if len(self.sections) > 1 else ''}",
            "-".join(dict.fromkeys(str(s.width) for s in self.sections)) + " wide",
            "+".join(str(s.depth) for s in self.sections) + " deep",
        ]
        if self.depth > 1:
            parts.append(f"{self.sharing} sharing" if self.sharing != "none" else "free weights")
        if self.anchors > 1 and self.sharing != "none":
            parts.append(f"{self.anchors} anchors")
        if any(s.regulators != "none" for s in self.sections):
            parts.append("regulators " + "+".join(s.regulators for s in self.sections))
        parts += ["residual"] * self.is_residual + ["no batch norm"] * (not self.batch_norm)
        return ", ".join(parts)


def most_sections(height: int, width: int) -> int:
    """Return the number of sections that an image allows: one more than it can be halved, rounding down."""
    return min(height, width).bit_length()


def _broken_rules(a: Architecture) -> Iterator[str]:
    """Yield a sentence for each rule that a description breaks."""
    if not isinstance(a.sections, tuple) or not 1 <= len(a.sections) <= MOST_SECTIONS:
        yield f"sections must be 1 to {MOST_SECTIONS}, but got {a.sections!r}"
        return
    for number, section in enumerate(a.sections, start=1):
        for field, most in (("depth", MOST_DEPTH), ("width", MOST_WIDTH)):
            value = getattr(section, field)
            if type(value) is not int or not 1 <= value <= most:  # a bool is an int to isinstance
                yield f"section {number}: {field} must be an integer in [1, {most}], but is {value!r}"
        if section.regulators not in get_args(Regulators):
            yield f"section {number}: regulators must be none, block or layer, but is {section.regulators!r}"
    if a.sharing not in get_args(Sharing):
        yield f"sharing must be network, section or none, but is {a.sharing!r}"
    if a.sharing == "network" and len({section.width for section in a.sections}) > 1:
        widths = ", ".join(str(section.width) for section in a.sections)
        yield f"sharing: network needs one width in all sections, but the widths are {widths}"
    if type(a.anchors) is not int or a.anchors < 1:
        yield f"anchors must be an integer of at least 1, but is {a.anchors!r}"
    if not isinstance(a.residual, bool) and a.residual != "auto":
        yield f"residual must be true, false or auto, but is {a.residual!r}"
    if not isinstance(a.batch_norm, bool):
        yield f"batch_norm must be true or false, but is {a.batch_norm!r}"


def _check_keys(what: str, values: Any, required: set[str], known: set[str]) -> None:
    if not isinstance(values, Mapping):
        raise ArchitectureError(f"{what} must be a mapping, but is {values!r}")
    for kind, keys in (("misses", required - set(values)), ("has unknown", set(values) - known)):
        if keys:
            raise ArchitectureError(f"{what} {kind} {', '.join(sorted(map(str, keys)))}")


def _anchors(architecture: Architecture) -> list[int]:
    """Return the anchor of each shared layer, numbered from 1 by first use."""
    layers = [(section, i) for section, s in enumerate(architecture.sections) for i in range(s.depth)]
    if architecture.sharing == "network":
        layers = [(0, position % architecture.anchors) for position in range(len(layers))]
    elif architecture.sharing == "section":
        layers = [(section, i % architecture.anchors) for section, i in layers]
    numbers: dict[tuple[int, int], int] = {}
    return [numbers.setdefault(layer, len(numbers) + 1) for layer in layers]
