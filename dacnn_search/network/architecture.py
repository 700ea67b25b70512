"""`Architecture`: a frozen description of one weight-sharing CNN, and the layers it unfolds into.

A network is a stem (one 3x3 convolution from the image to the first width), sections separated by 2x2 max
pooling, global average pooling and a linear classifier. A section applies 3x3 kernels `depth` times; where the
width changes it starts with a transition layer, a 3x3 convolution with a kernel of its own. Every layer is convolution,
batch norm with weights of its own, ReLU. Two successive layers of a section, its transition included, make a block; the
last block of a section may have one layer.

`sharing`, `anchors` and `mixing` determine which layers share a kernel, the "anchor":

- `network`, `section`: all layers t, or those of a section, apply one kernel W: x(t+1) = relu(norm_t(W * x(t))) (Huang,
  Dwivedi and Roig, 2019, equations 2, 3 and 6);
- `second`: the second layers of a section's blocks apply one kernel W, the first ones kernels V_t of their own:
  x(t+1) = relu(norm_t(V_t * x(t))), x(t+2) = relu(norm_{t+1}(W * x(t+1))) (Boulch, "ShaResNet", 2017,
  https://arxiv.org/abs/1702.08782, section 3);
- k anchors A take turns (ours), W_t = A(t mod k), or, with `mixing: learned`, each layer has a mix of them, W_t = sum_j
  m(t, j) A(j), with scalars m of its own (Savarese and Maire, 2019, https://arxiv.org/abs/1902.09701, equation 2).

With `convolutions: separable` a kernel outside of the stem is a pair, W * x = P (D * x): D filters each channel by a
3x3 kernel of its own, the 1x1 kernel P combines the channels (Howard et al., "MobileNets", 2017,
https://arxiv.org/abs/1704.04861, section 3.1). Between them is neither norm nor ReLU; Chollet, "Xception", 2016,
https://arxiv.org/abs/1610.02357, section 4.7, found no ReLU better. Layers that share a kernel share both.

`shortcuts` lead around layers, to be added before a ReLU:

- `block`: around each block of layers t and t+1, x(t+2) = relu(norm_{t+1}(W * x(t+1)) + P x(t)), where P is a 1x1
  convolution with batch norm if the width changes, otherwise the identity (He et al., 2015,
  https://arxiv.org/abs/1512.03385, equations 1 and 2; Huang, Dwivedi and Roig, Figure 2);
- `history`: each layer adds its last h inputs with learned scalars before its norm, x(t+1) = relu(norm_t(W * x(t) +
  sum_{i=0}^{h-1} a(t, i) x(t-i))), as in ThriftyNet (Coiffier, Boukli Hacene and Gripon, 2020,
  https://arxiv.org/abs/2007.10106), which has the ReLU before the sum. i = 0 is its own input. There are fewer inputs
  at first and after a transition layer, which begins a new history; max pooling applies to all of them.

A regulator, y = relu(norm(R x)) with a 1x1 convolution R, follows each block or each layer of a section (Huang, Dwivedi
and Roig, Figure 3).

Cost, model, drawing and identity are all derived from `Architecture.blocks`, the unfolded network.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dacnn_search.common.errors import ArchitectureError

Regulators = Literal["none", "block", "layer"]
Sharing = Literal["network", "section", "second", "none"]
Mixing = Literal["turn", "learned"]
Shortcuts = Literal["none", "block", "history"]
Convolutions = Literal["full", "separable"]
Shortcut = Literal["none", "identity", "projection"]

MOST_SECTIONS, MOST_DEPTH, MOST_WIDTH, MOST_HISTORY = 16, 512, 8192, 16
# The paper makes networks "deeper than 17 layers" residual. The stem and the classifier count, as in VGG and ResNet.
DEEPEST_WITHOUT_SHORTCUTS = 17
# What older descriptions say, as `residual`, where there is now `shortcuts`.
SHORTCUTS_OF_RESIDUAL: dict[Any, str] = {"auto": "auto", True: "block", False: "none"}


@dataclass(frozen=True)
class Section:
    """The layers between two poolings."""

    depth: int  # layers, the stem and the transition not counted
    width: int  # channels of every layer
    regulators: Regulators = "none"  # or one per block, or one per layer


@dataclass(frozen=True)
class Layer:
    """One 3x3 convolution, full or separable, batch norm and ReLU, from `in_width` to `width` channels."""

    kernels: tuple[str, ...]  # layers with the same name share it; several are mixed
    in_width: int
    width: int
    regulator: bool  # a regulator follows
    history: int  # how many of its last inputs it adds
    separable: bool


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
            then have the same width), of a `section` (the paper's mixed DACNN), the `second` ones of a section's
            blocks, or none (as in VGG and ResNet).
        anchors: The number of anchors of those layers. If there are no more layers, each has an anchor of its own.
        shortcuts: Around blocks, from the history, or none. `auto` means `block` in networks deeper than 17 layers, as
            in the paper, else none.
        batch_norm: Batch norm after each convolution, or none anywhere (Table 1).
        mixing: Layers use their anchors in turn, or each a learned mix of all of them.
        history: The number of its last inputs that a layer adds with `shortcuts: history`.
        convolutions: Full 3x3 kernels, or separable ones in all layers but the stem.

    Raises ArchitectureError, with the rule and the value, for anything that can't be built.
    """

    sections: tuple[Section, ...]
    sharing: Sharing = "section"
    anchors: int = 1
    shortcuts: Shortcuts | Literal["auto"] = "auto"
    batch_norm: bool = True
    mixing: Mixing = "turn"
    history: int = 5
    convolutions: Convolutions = "full"

    def __post_init__(self) -> None:
        if broken := list(_broken_rules(self)):
            raise ArchitectureError("; ".join(broken))

    @property
    def depth(self) -> int:
        """The depths of all sections together."""
        return sum(section.depth for section in self.sections)

    @property
    def layers(self) -> int:
        """Layers with weights, counted as for VGG and ResNet: stem, transitions, shared layers, classifier."""
        transitions = sum(a.width != b.width for a, b in itertools.pairwise(self.sections))
        return 1 + transitions + self.depth + 1

    @property
    def separable(self) -> bool:
        return self.convolutions == "separable"

    @property
    def decided_shortcuts(self) -> Shortcuts:
        """`shortcuts` with `auto` decided."""
        if self.shortcuts != "auto":
            return self.shortcuts
        return "block" if self.layers > DEEPEST_WITHOUT_SHORTCUTS else "none"

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The unfolded network in the order of computation, without the stem.

        Kernels are named `anchor1`, `anchor2`, ... by first use and `transition2`, ... by section.
        """
        blocks: list[Block] = []
        anchors = iter(_anchors(self))
        shortcuts = self.decided_shortcuts
        width, history = self.sections[0].width, 0
        for index, section in enumerate(self.sections):
            kernels = [tuple(f"anchor{number}" for number in next(anchors)) for _ in range(section.depth)]
            in_widths = [section.width] * section.depth
            if section.width != width:
                kernels.insert(0, (f"transition{index + 1}",))
                in_widths.insert(0, width)
                width = section.width
            layers = []
            for place, (names, in_width) in enumerate(zip(kernels, in_widths, strict=True)):
                grown = min(history + 1, self.history) if shortcuts == "history" else 0
                history = grown if in_width == width else 0
                ends_block = place % 2 == 1 or place == len(kernels) - 1
                regulator = section.regulators == "layer" or (section.regulators == "block" and ends_block)
                layers.append(Layer(names, in_width, width, regulator, history, self.separable))
            for start in range(0, len(layers), 2):
                around: Shortcut = "identity" if in_widths[start] == width else "projection"
                pair = tuple(layers[start : start + 2])
                blocks.append(Block(index, pair, index > 0 and start == 0, around if shortcuts == "block" else "none"))
        return tuple(blocks)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The network's identity in 16 hex digits. Descriptions that unfold into the same network have the same."""
        unfolded = [self.batch_norm, [_identity(block) for block in self.blocks]]
        return hashlib.sha256(json.dumps(unfolded).encode()).hexdigest()[:16]

    def canonical(self) -> "Architecture":
        """Return the one description that stands for all that unfold into this network.

        It has `shortcuts` decided, the widest sharing and the fewest anchors that give the same kernels, the shortest
        history, the defaults of what it does not use, and regulators per block where those per layer are the same.
        """
        layers = Counter(block.section for block in self.blocks for _ in block.layers)
        sections = tuple(
            dataclasses.replace(s, regulators="block") if s.regulators == "layer" and layers[i] == 1 else s
            for i, s in enumerate(self.sections)
        )
        alike = dataclasses.replace(self, sections=sections, shortcuts=self.decided_shortcuts)
        if alike.shortcuts != "history":
            alike = dataclasses.replace(alike, history=Architecture.history)
        else:
            longest = max(layer.history for block in self.blocks for layer in block.layers)
            alike = dataclasses.replace(alike, history=longest)
        kernels = _anchors(self)
        if all(len(names) == 1 for names in kernels):
            alike = dataclasses.replace(alike, mixing="turn")
        if len(set(kernels)) == self.depth and alike.mixing == "turn":
            return dataclasses.replace(alike, sharing="none" if self.depth > 1 else "network", anchors=1)
        if self.sharing == "second":
            # Where sharing sections begin with a transition and are short, all their layers share in turn.
            in_turn = dataclasses.replace(alike, sharing="section", anchors=2 * self.anchors)
            return in_turn if alike.mixing == "turn" and _anchors(in_turn) == kernels else alike
        return dataclasses.replace(alike, sharing="network") if len(self.sections) == 1 else alike

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
        if isinstance(values, Mapping) and "residual" in values and "shortcuts" not in values:
            old = values["residual"]
            if not isinstance(old, bool) and old != "auto":
                raise ArchitectureError(f"residual must be true, false or auto, but is {old!r}")
            values = {key: value for key, value in values.items() if key != "residual"}
            values["shortcuts"] = SHORTCUTS_OF_RESIDUAL[old]
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
            parts.append(f"{self.anchors} {'mixed ' * (self.mixing == 'learned')}anchors")
        if any(s.regulators != "none" for s in self.sections):
            parts.append("regulators " + "+".join(s.regulators for s in self.sections))
        parts += ["separable"] * self.separable
        parts += {"none": [], "block": ["residual"], "history": [f"history of {self.history}"]}[self.decided_shortcuts]
        parts += ["no batch norm"] * (not self.batch_norm)
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
        yield f"sharing must be network, section, second or none, but is {a.sharing!r}"
    if a.sharing == "network" and len({section.width for section in a.sections}) > 1:
        widths = ", ".join(str(section.width) for section in a.sections)
        yield f"sharing: network needs one width in all sections, but the widths are {widths}"
    if type(a.anchors) is not int or a.anchors < 1:
        yield f"anchors must be an integer of at least 1, but is {a.anchors!r}"
    if a.shortcuts not in ("auto", *get_args(Shortcuts)):
        yield f"shortcuts must be none, block, history or auto, but is {a.shortcuts!r}"
    if not isinstance(a.batch_norm, bool):
        yield f"batch_norm must be true or false, but is {a.batch_norm!r}"
    if a.mixing not in get_args(Mixing):
        yield f"mixing must be turn or learned, but is {a.mixing!r}"
    if type(a.history) is not int or not 1 <= a.history <= MOST_HISTORY:
        yield f"history must be an integer in [1, {MOST_HISTORY}], but is {a.history!r}"
    if a.convolutions not in get_args(Convolutions):
        yield f"convolutions must be full or separable, but is {a.convolutions!r}"


def _check_keys(what: str, values: Any, required: set[str], known: set[str]) -> None:
    if not isinstance(values, Mapping):
        raise ArchitectureError(f"{what} must be a mapping, but is {values!r}")
    for kind, keys in (("misses", required - set(values)), ("has unknown", set(values) - known)):
        if keys:
            raise ArchitectureError(f"{what} {kind} {', '.join(sorted(map(str, keys)))}")


def _anchors(architecture: Architecture) -> list[tuple[int, ...]]:
    """Return the anchors of each shared layer, numbered from 1 by first use: one, or those that it mixes."""
    scopes = list(_scopes(architecture))
    sizes = Counter(scopes)
    places: Counter[Hashable] = Counter()
    numbers: dict[tuple[Hashable, int], int] = {}
    anchors = []
    for scope in scopes:
        count = min(architecture.anchors, sizes[scope])
        mixed = architecture.mixing == "learned" and 1 < count < sizes[scope]
        chosen = range(count) if mixed else [places[scope] % count]
        anchors.append(tuple(numbers.setdefault((scope, anchor), len(numbers) + 1) for anchor in chosen))
        places[scope] += 1
    return anchors


def _scopes(architecture: Architecture) -> Iterator[Hashable]:
    """Yield a key for each shared layer; layers with the same key share the same anchors."""
    width = architecture.sections[0].width
    for index, section in enumerate(architecture.sections):
        transition = section.width != width
        width = section.width
        for place in range(transition, transition + section.depth):
            shares = architecture.sharing != "none" and (architecture.sharing != "second" or place % 2 == 1)
            if shares:
                yield 0 if architecture.sharing == "network" else index
            else:
                yield index, place


def _identity(block: Block) -> list[Any]:
    """Return what tells a block from others, as version 0.1 wrote it where it has nothing that came later."""
    layers = [
        ["+".join(layer.kernels), layer.in_width, layer.width, layer.regulator]
        + [layer.history] * (layer.history > 0)
        + ["separable"] * layer.separable
        for layer in block.layers
    ]
    return [block.section, layers, block.pool, block.shortcut]
