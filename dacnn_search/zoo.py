"""The networks of the DACNN paper by name, its published figures, and its parameter counts beside ours.

Huang, Dwivedi and Roig, "Deep Anchored Convolutional Neural Networks", 2019. Every network is an
`Architecture` for images of 32x32 pixels. `docs/paper.md` tells what the paper leaves open and how it was
settled.

| name | network |
|---|---|
| `dacnn3` ... `dacnn34` | plain: one kernel, 128 wide; the number is that of shared layers |
| `dacnn3-no-bn` ... | the same without batch norm (Table 1) |
| `free3` ... `free34` | the same with a kernel of its own in every layer (Table 2) |
| `dacnn18-reg` ... | plain with a regulator after every layer (Tables 5 and 6) |
| `dacnn18-reg-section1` ... | plain with a regulator after every block of one section (Table 4) |
| `dacnn18-reg-all`, `dacnn18-reg-none` | the same for all sections and for none |
| `dacnn14-mix` ... | mixed: one kernel per section, 64-128-256-512 wide (Table 3) |
| `dacnn18-mix-reg` ... | mixed with a regulator after every block (Tables 6 to 8) |
| `vgg`, `resnet18`, `resnet34` | the templates: a kernel per layer, max pooling, one fully connected layer |
"""

import csv
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dacnn_search.architecture import Architecture, Regulators, Section
from dacnn_search.cost import count_parameters
from dacnn_search.errors import ArchitectureError

__all__ = ["PUBLISHED", "CountComparison", "Published", "compare_counts", "counts_table", "get", "names"]

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
VGG_WIDTHS, VGG_DEPTHS = (64, 128, 256, 512, 512), (1, 1, 2, 2, 3)

IN_CHANNELS = 3
CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10}
# What the extra parameters of a table are counted against.
EXTRA_TO = {4: "dacnn18-reg-none", 5: "dacnn18"}
# Why a count, by table and network, differs by more than 3%.
_ROUNDED = "printed with two digits; Table 2 prints {} for the same network"
_TABLE_5 = "Table 5 contradicts Table 6, by which it is {} - 0.166 = {}; we meet Table 6"
EXPLANATIONS = {
    (5, "dacnn18-reg"): _TABLE_5.format("0.46", "0.29 M"),
    (5, "dacnn24-reg"): _TABLE_5.format("0.56", "0.39 M"),
    (5, "dacnn34-reg"): _TABLE_5.format("0.72", "0.55 M"),
    (6, "dacnn14"): _ROUNDED.format("0.165 M"),
    (6, "dacnn18"): _ROUNDED.format("0.166 M"),
}


@dataclass(frozen=True)
class Published:
    """One row of one of the paper's tables.

    model: as printed. zoo_name: what `get` takes. top1_error: test error in percent. parameters: of the whole
    network, to the printed digits. extra_parameters: those beyond the network without regulators (Tables 4
    and 5). note: what the row says beside its numbers, and where the paper contradicts it. A figure that is
    not printed is None.
    """

    table: int
    dataset: str
    model: str
    zoo_name: str
    top1_error: float | None
    parameters: int | None
    extra_parameters: int | None
    note: str


@dataclass(frozen=True)
class CountComparison:
    """Our count beside a published one.

    ours: trainable scalars, scale and shift of batch norm included; the extra ones where the row prints extra
    ones. difference: (ours - published) / published, None where nothing is printed. explanation: one line
    where the difference is above 3%, else empty.
    """

    published: Published
    ours: int
    difference: float | None
    explanation: str


def get(name: str) -> Architecture:
    """The network of that name. Raises ArchitectureError for an unknown one, with names that come close."""
    if name in _NETWORKS:
        return _NETWORKS[name]
    close = difflib.get_close_matches(name, _NETWORKS, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"they are {', '.join(_NETWORKS)}"
    raise ArchitectureError(f"the name must be one of the zoo's networks, but is {name!r}; {hint}")


def names() -> tuple[str, ...]:
    """The names of all networks."""
    return tuple(_NETWORKS)


def compare_counts() -> list[CountComparison]:
    """Our parameter count for each row of the paper's tables, beside the published one."""
    return [_compare(row) for row in PUBLISHED]


def counts_table() -> str:
    """`compare_counts` as a Markdown table, the one in `docs/paper.md`. Extra parameters have a plus sign."""
    lines = [
        "| table | data set | model | name here | ours | published | difference | why |",
        "|---|---|---|---|---:|---:|---:|---|",
    ]
    for comparison in compare_counts():
        row = comparison.published
        sign = "" if row.extra_parameters is None else "+"
        printed = _printed_count(row)
        cells = (
            row.table,
            row.dataset,
            row.model,
            f"`{row.zoo_name}`",
            f"{sign}{comparison.ours:,}",
            "" if printed is None else f"{sign}{printed:,}",
            "" if comparison.difference is None else f"{comparison.difference:+.1%}",
            comparison.explanation,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _compare(row: Published) -> CountComparison:
    classes = CLASSES[row.dataset]
    ours = count_parameters(get(row.zoo_name), IN_CHANNELS, classes)
    if row.extra_parameters is not None:
        ours -= count_parameters(get(EXTRA_TO[row.table]), IN_CHANNELS, classes)
    printed = _printed_count(row)
    # Table 4's row without regulators prints 0 extra parameters
    difference = None if printed is None else (ours - printed) / max(printed, 1)
    return CountComparison(row, ours, difference, EXPLANATIONS.get((row.table, row.zoo_name), ""))


def _printed_count(row: Published) -> int | None:
    return row.parameters if row.extra_parameters is None else row.extra_parameters


def _networks() -> dict[str, Architecture]:
    plain = {f"dacnn{n}": _plain(depths) for n, depths in PLAIN_DEPTHS.items()}
    bare = {f"dacnn{n}-no-bn": _plain(depths, batch_norm=False) for n, depths in PLAIN_DEPTHS.items()}
    free = {f"free{n}": _plain(depths, sharing="none") for n, depths in PLAIN_DEPTHS.items()}
    regulated = {f"dacnn{n}-reg": _plain(PLAIN_DEPTHS[n], "layer") for n in (18, 24, 34)}
    mixed = {f"dacnn{n}-mix": _mixed(depths) for n, depths in MIXED_DEPTHS.items()}
    mixed_regulated = {f"dacnn{n}-mix-reg": _mixed(MIXED_DEPTHS[n], "block") for n in (18, 34)}
    templates = {
        "vgg": Architecture(tuple(map(Section, VGG_DEPTHS, VGG_WIDTHS)), "none"),
        "resnet18": _mixed(MIXED_DEPTHS[18], sharing="none"),
        "resnet34": _mixed(MIXED_DEPTHS[34], sharing="none"),
    }
    return plain | bare | free | regulated | _table_4() | mixed | mixed_regulated | templates


def _plain(depths: tuple[int, ...], regulators: Regulators = "none", **fields: Any) -> Architecture:
    sections = tuple(Section(depth, PLAIN_WIDTH, regulators) for depth in depths)
    return Architecture(sections, **{"sharing": "network", **fields})


def _mixed(depths: tuple[int, ...], regulators: Regulators = "none", **fields: Any) -> Architecture:
    sections = (Section(depth, width, regulators) for depth, width in zip(depths, MIXED_WIDTHS, strict=True))
    return Architecture(tuple(sections), **fields)


def _table_4() -> dict[str, Architecture]:
    """Regulators after the blocks of no section, of one section, of all sections."""
    count = len(TABLE_4_DEPTHS)
    choices = {"none": set[int](), **{f"section{i + 1}": {i} for i in range(count)}, "all": set(range(count))}
    return {
        f"dacnn18-reg-{choice}": Architecture(
            tuple(
                Section(depth, PLAIN_WIDTH, "block" if index in chosen else "none")
                for index, depth in enumerate(TABLE_4_DEPTHS)
            ),
            "network",
        )
        for choice, chosen in choices.items()
    }


def _read_published() -> tuple[Published, ...]:
    text = Path(__file__).with_name("published.csv").read_text(encoding="utf-8")
    return tuple(
        Published(
            int(row["table"]),
            row["dataset"],
            row["model"],
            row["zoo_name"],
            float(row["top1_error"]) if row["top1_error"] else None,
            int(row["parameters"]) if row["parameters"] else None,
            int(row["extra_parameters"]) if row["extra_parameters"] else None,
            row["note"],
        )
        for row in csv.DictReader(text.splitlines())
    )


_NETWORKS = _networks()
PUBLISHED: tuple[Published, ...] = _read_published()
