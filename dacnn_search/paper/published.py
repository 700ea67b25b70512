"""The figures that the paper prints, and its parameter counts beside ours."""

import csv
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from dacnn_search.network.cost import count_parameters
from dacnn_search.network.zoo import get
from dacnn_search.paper.markdown import markdown_table

__all__ = ["EXTRA_TO", "PUBLISHED", "Published", "counts_table"]

IN_CHANNELS = 3
CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10}
EXTRA_TO = {4: "dacnn18-reg-none", 5: "dacnn18"}  # table -> network that its extra parameters are counted against


@dataclass(frozen=True)
class Published:
    """A row of one of the paper's tables, as in `published.csv`. A figure that is not printed is None.

    Args:
        dataset: A key of `CLASSES`.
        model: The network or the method as printed.
        zoo_name: The network's name in `dacnn_search.network.zoo`; empty for the pruning methods of Table 8.
        top1_error: The test error in percent.
        parameters: Those of the whole network, to the printed digits.
        extra_parameters: Those beyond the network without regulators (Tables 4 and 5).
        accuracy_drop: Points of accuracy less than ResNet-18 (Table 8).
        prune_ratio: The share of ResNet-18's parameters that is saved, in percent (Table 8).
        note: What the row says beside its numbers, and where the paper contradicts it.
        explanation: Why our parameter count differs by more than 3%, if it does.
    """

    table: int
    dataset: str
    model: str
    zoo_name: str = ""
    top1_error: float | None = None
    parameters: int | None = None
    extra_parameters: int | None = None
    accuracy_drop: float | None = None
    prune_ratio: float | None = None
    note: str = ""
    explanation: str = ""

    @property
    def count(self) -> int | None:
        """The printed count: extra parameters where the row has them, else those of the whole network."""
        return self.parameters if self.extra_parameters is None else self.extra_parameters

    @property
    def our_count(self) -> int:
        """Our count of the same: all trainable scalars, scale and shift of batch norm included."""
        ours = count_parameters(get(self.zoo_name), IN_CHANNELS, CLASSES[self.dataset])
        if self.extra_parameters is not None:
            ours -= count_parameters(get(EXTRA_TO[self.table]), IN_CHANNELS, CLASSES[self.dataset])
        return ours

    @property
    def difference(self) -> float | None:
        """(ours - printed) / printed, with 1 in place of a printed 0 (Table 4's row without regulators)."""
        return None if self.count is None else (self.our_count - self.count) / max(self.count, 1)


def counts_table() -> str:
    """Return all counts as the Markdown table of `docs/paper.md`. Extra parameters have a plus sign."""
    rows = []
    for row in PUBLISHED:
        if row.zoo_name:
            sign = "" if row.extra_parameters is None else "+"
            cells = {"table": row.table, "data set": row.dataset, "model": row.model, "name here": f"`{row.zoo_name}`"}
            cells["ours"] = f"{sign}{row.our_count:,}"
            cells["published"] = None if row.count is None else f"{sign}{row.count:,}"
            cells["difference"] = None if row.difference is None else f"{row.difference:+.1%}"
            rows.append({**cells, "why": row.explanation})
    return markdown_table(rows, right=("ours", "published", "difference"))


with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as _file:
    _ROWS = [{key: value for key, value in row.items() if value} for row in csv.DictReader(_file)]
PUBLISHED = TypeAdapter(tuple[Published, ...]).validate_python(_ROWS)
