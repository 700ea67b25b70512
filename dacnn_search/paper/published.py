"""The figures that the paper prints."""

import csv
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

EXTRA_TO = {4: "dacnn18-reg-none", 5: "dacnn18"}  # table -> network that its extra parameters are counted against


@dataclass(frozen=True)
class Published:
    """A row of one of the paper's tables, as in `published.csv`. A figure that is not printed is None."""

    table: int
    dataset: str  # a key of `dacnn_search.data.published.KNOWN_SETS`
    model: str  # the network or the method as printed
    zoo_name: str = ""  # in `dacnn_search.network.zoo`; empty for the pruning methods of Table 8
    against: str = ""  # the network of the same table that differs from it in one thing, if there is one
    top1_error: float | None = None  # of the test images, in percent
    parameters: int | None = None  # of the whole network, to the printed digits
    extra_parameters: int | None = None  # beyond the network without regulators (Tables 4 and 5)
    accuracy_drop: float | None = None  # points of accuracy less than ResNet-18 (Table 8)
    prune_ratio: float | None = None  # the share of ResNet-18's parameters that is saved, in percent (Table 8)
    note: str = ""  # what the row says beside its numbers, and where the paper contradicts it
    explanation: str = ""  # why our parameter count differs by more than 3%, if it does


with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as _file:
    _ROWS = [{key: value for key, value in row.items() if value} for row in csv.DictReader(_file)]
PUBLISHED = TypeAdapter(tuple[Published, ...]).validate_python(_ROWS)
