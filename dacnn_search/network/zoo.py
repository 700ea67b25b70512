"""The networks of the DACNN paper, and of other papers on sharing weights, by name.

Huang, Dwivedi and Roig, "Deep Anchored Convolutional Neural Networks", 2019; the other papers are named beside their
networks. Every network is an `Architecture` for images of 32x32 pixels. `docs/paper.md` lists what the paper leaves
open and our choices.
"""

import difflib
from collections.abc import Iterable
from itertools import repeat
from typing import Any

from dacnn_search.common.errors import ArchitectureError
from dacnn_search.network.architecture import Architecture, Regulators, Section, Sharing

# The shared layers of each section. The paper says how many layers a plain network has, not where its three
# poolings are. We spread them evenly, the remainder last; residual networks get whole blocks of two layers:
# ResNet-18's and ResNet-34's, and one more in the last section.
PLAIN_WIDTH = 128
PLAIN_DEPTHS = {
    3: (1, 1, 1),
    5: (1, 1, 1, 2),
    7: (1, 2, 2, 2),
    9: (2, 2, 2, 3),
    11: (2, 3, 3, 3),
    14: (3, 3, 4, 4),
    18: (4, 4, 4, 6),
    24: (6, 6, 6, 6),
    34: (6, 8, 12, 8),
}
# Table 4 adds two regulators per section, one per block: two blocks of two layers. Together with the stem and
# the classifier these are the 18 layers of ResNet-18.
TABLE_4_DEPTHS = (4, 4, 4, 4)
# Stem, transitions, these and the classifier are the layers of VGG-16 with one fully connected layer, of
# ResNet-18 and of ResNet-34; stem and transitions are the first layers of their sections.
MIXED_WIDTHS = (64, 128, 256, 512)
MIXED_DEPTHS = {14: (1, 1, 2, 5), 18: (4, 3, 3, 3), 34: (6, 7, 11, 5)}
# ThriftyNet (https://arxiv.org/abs/2007.10106, code at github.com/GCoiffier/ThriftyNets) as two of its runs on CIFAR-10
# had it, with a full 3x3 kernel: 14 iterations of 64 channels that pool after every third, history 1, and 30 iterations
# that pool after every sixth, history 5. Theirs pads the image with zeros to the width where we have a stem; has a ReLU
# between convolution and sum, and a scalar there, which our batch norm makes needless; has scalars for a history that
# is not there yet; and ends in a global maximum, before which the longer one pools once more, where we average.
THRIFTY_DEPTHS, THRIFTY_LONG_DEPTHS = (3, 3, 3, 3, 2), (6, 6, 6, 6, 6)
# Their runs with 40,000 parameters have a separable kernel 163 wide and 30 iterations; one pools after every seventh.
THRIFTY_SEPARABLE_DEPTHS = (7, 7, 7, 7, 2)
# Shared Wide ResNets (Savarese and Maire, https://arxiv.org/abs/1902.09701): WRN-28-10 with one or two anchors for each
# section. Theirs has a stem of 16 channels and kernels of their own in both layers of a section's first block; ours has
# a stem of 160 channels and a kernel of its own in the transition alone.
WIDE_WIDTHS, WIDE_DEPTHS = (160, 320, 640), (8, 7, 7)
# ResNet-20 (He et al., https://arxiv.org/abs/1512.03385) and MLPerf Tiny's ResNet-8 (Banbury et al.,
# https://arxiv.org/abs/2106.07597) for CIFAR-10. We project shortcuts by a 1x1 convolution with batch norm, where
# ResNet-20 pads with zeros and ResNet-8 has no norm; we have no biases before batch norm. Layers widen after a pooling,
# where theirs have a stride of 2, which takes as many multiplications.
SMALL_WIDTHS, SMALL_DEPTHS = (16, 32, 64), {8: (2, 1, 1), 20: (6, 5, 5)}
VGG_WIDTHS, VGG_DEPTHS = (64, 128, 256, 512, 512), (1, 1, 2, 2, 3)


def get(name: str) -> Architecture:
    """Return the network of a name. Raises ArchitectureError for an unknown name, with similar ones."""
    if name in _NETWORKS:
        return _NETWORKS[name]
    close = difflib.get_close_matches(name, _NETWORKS, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"they are {', '.join(_NETWORKS)}"
    raise ArchitectureError(f"the name must be one of the zoo's networks, but is {name!r}; {hint}")


def names() -> tuple[str, ...]:
    return tuple(_NETWORKS)


def _networks() -> dict[str, Architecture]:
    # Plain: one kernel, 128 wide; the number is that of shared layers. Without batch norm in Table 1, with a kernel of
    # its own in every layer in Table 2, with a regulator after every layer in Tables 5 and 6.
    plain = {f"dacnn{n}": _plain(depths) for n, depths in PLAIN_DEPTHS.items()}
    bare = {f"dacnn{n}-no-bn": _plain(depths, batch_norm=False) for n, depths in PLAIN_DEPTHS.items()}
    free = {f"free{n}": _plain(depths, sharing="none") for n, depths in PLAIN_DEPTHS.items()}
    regulated = {f"dacnn{n}-reg": _plain(PLAIN_DEPTHS[n], repeat("layer")) for n in (18, 24, 34)}
    # Plain, with a regulator after every block of these sections.
    table_4 = {"none": (), "section1": (1,), "section2": (2,), "section3": (3,), "section4": (4,), "all": (1, 2, 3, 4)}
    for name, chosen in table_4.items():
        regulators: list[Regulators] = ["block" if number in chosen else "none" for number in (1, 2, 3, 4)]
        regulated[f"dacnn18-reg-{name}"] = _plain(TABLE_4_DEPTHS, regulators)
    # Mixed: one kernel per section (Table 3), with a regulator after every block in Tables 6 to 8.
    mixed = {f"dacnn{n}-mix": _mixed(depths) for n, depths in MIXED_DEPTHS.items()}
    mixed_regulated = {f"dacnn{n}-mix-reg": _mixed(MIXED_DEPTHS[n], "block") for n in (18, 34)}
    # The templates: a kernel per layer, max pooling, one fully connected layer.
    templates = {
        "vgg": Architecture(tuple(map(Section, VGG_DEPTHS, VGG_WIDTHS)), "none"),
        "resnet18": _mixed(MIXED_DEPTHS[18], sharing="none"),
        "resnet34": _mixed(MIXED_DEPTHS[34], sharing="none"),
    }
    small = {f"resnet{n}": _residual(depths, SMALL_WIDTHS, "none") for n, depths in SMALL_DEPTHS.items()}
    # ShaResNet (Boulch, https://arxiv.org/abs/1702.08782): the second layers of a section's blocks share a kernel.
    second = {
        "sharesnet20": _residual(SMALL_DEPTHS[20], SMALL_WIDTHS, "second"),
        "sharesnet34": _residual(MIXED_DEPTHS[34], MIXED_WIDTHS, "second"),
    }
    learned = {
        f"swrn28-10-{k}": _residual(WIDE_DEPTHS, WIDE_WIDTHS, "section", anchors=k, mixing="learned") for k in (1, 2)
    }
    history = {
        "thriftynet": _plain(THRIFTY_DEPTHS, width=64, shortcuts="history", history=1),
        "thriftynet-h5": _plain(THRIFTY_LONG_DEPTHS, width=62, shortcuts="history", history=5),
        "thriftynet-separable": _plain(
            THRIFTY_SEPARABLE_DEPTHS, width=163, shortcuts="history", history=5, convolutions="separable"
        ),
    }
    return plain | bare | free | regulated | mixed | mixed_regulated | templates | small | second | learned | history


def _plain(
    depths: tuple[int, ...], regulators: Iterable[Regulators] = repeat("none"), width: int = PLAIN_WIDTH, **fields: Any
) -> Architecture:
    sections = map(Section, depths, repeat(width), regulators)
    return Architecture(tuple(sections), **{"sharing": "network", **fields})


def _mixed(depths: tuple[int, ...], regulators: Regulators = "none", sharing: Sharing = "section") -> Architecture:
    return Architecture(tuple(map(Section, depths, MIXED_WIDTHS, repeat(regulators))), sharing)


def _residual(depths: tuple[int, ...], widths: tuple[int, ...], sharing: Sharing, **fields: Any) -> Architecture:
    return Architecture(tuple(map(Section, depths, widths)), sharing, shortcuts="block", **fields)


_NETWORKS = _networks()
