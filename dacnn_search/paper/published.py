"""The figures that the paper prints, and its parameter counts beside ours."""

import csv
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from dacnn_search.data.published import KNOWN_SETS
from dacnn_search.network.cost import count_parameters
from dacnn_search.network.zoo import get
from dacnn_search.paper.markup import markdown_table

__all__ = ["EXTRA_TO", "PUBLISHED", "Published", "counts_table"]

EXTRA_TO = {4: "dacnn18-reg-none", 5: "dacnn18"}  # table -> network that its extra parameters are counted against


@dataclass(frozen=True)
class Published:
    """A row of one of the paper's tables, as in `published.csv`. A figure that is not printed is None."""

    table: int
    dataset: str  # a key of `KNOWN_SETS`
    model: str  # the network or the method as printed
    zoo_name: str = ""  # in `dacnn_search.network.zoo`; empty for the pruning methods of Table 8
    top1_error: float | None = None  # of the test images, in percent
    parameters: int | None = None  # of the whole network, to the printed digits
    extra_parameters: int | None = None  # beyond the network without regulators (Tables 4 and 5)
    accuracy_drop: float | None = None  # points of accuracy less than ResNet-18 (Table 8)
    prune_ratio: float | None = None  # the share of ResNet-18's parameters that is saved, in percent (Table 8)
    note: str = ""  # what the row says beside its numbers, and where the paper contradicts it
    explanation: str = ""  # why our parameter count differs by more than 3%, if it does

    @property
    def count(self) -> int | None:
        """The printed count: extra parameters where the row has them, else those of the whole network."""
        return self.parameters if self.extra_parameters is None else self.extra_parameters

    @property
    def our_count(self) -> int:
        """Our count of the same: all trainable scalars, scale and shift of batch norm included."""
        known = KNOWN_SETS[self.dataset]
        size = known.input_shape[0], len(known.train_counts)
        others = 0 if self.extra_parameters is None else count_parameters(get(EXTRA_TO[self.table]), *size)
        return count_parameters(get(self.zoo_name), *size) - others

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
