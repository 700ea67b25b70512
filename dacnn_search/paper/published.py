"""The paper's published figures, and its parameter counts beside ours."""

import csv
from dataclasses import dataclass
from pathlib import Path

from dacnn_search.network.cost import count_parameters
from dacnn_search.network.zoo import get

__all__ = ["PUBLISHED", "CountComparison", "Published", "compare_counts", "counts_table"]

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


PUBLISHED: tuple[Published, ...] = _read_published()
