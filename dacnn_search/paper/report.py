"""The report on an experiment, our figures beside the published ones: notes and a table, as CSV and Markdown."""

import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dacnn_search.common.files import write_atomic
from dacnn_search.network.cost import Cost
from dacnn_search.paper.compression import prune_ratio
from dacnn_search.paper.experiments import PROTOCOL, REFERENCE, Conditions, Experiment, Member
from dacnn_search.paper.markup import markdown_table
from dacnn_search.paper.published import EXTRA_TO, Published
from dacnn_search.paper.trainings import PaperData
from dacnn_search.storage.front import Record

Row = dict[str, Any]  # column -> value; None where there is none

FORMATS = {  # of floats
    **dict.fromkeys(("difference", "change", "published change"), "+.2f"),
    **dict.fromkeys(("prune ratio", "published ratio"), ".1f"),
}
ERRORS = "error: in percent of the test images after the last epoch, the mean over the trainings."
CHANGES = "change: error less that of the network named under against, in points."
DROPS = "Drops are in points of accuracy, prune ratios in percent of its parameters; MACs ratio: by its MACs."


@dataclass(frozen=True)
class Results:
    """The trainings that were done under some conditions."""

    conditions: Conditions
    records: Mapping[Member, Sequence[Record]]  # the ledger's records of each network, one per seed
    data: Mapping[str, PaperData]  # by data set

    def cost(self, member: Member) -> Cost:
        """Return the size of a network under these conditions."""
        return self.data[member.dataset].cost(self.conditions.architecture(member.network))

    def errors(self, member: Member) -> list[float]:
        """Return the test errors in percent of the trainings that reached their last epoch."""
        scores = [record["test_accuracy"] for record in self.records[member]]
        return [100 * (1 - score) for score in scores if score is not None]

    def error(self, member: Member) -> float | None:
        """Return the mean of `errors`, None if there are none."""
        errors = self.errors(member)
        return statistics.fmean(errors) if errors else None


def rows_of(experiment: Experiment, results: Results) -> list[Row]:
    """Return a row per network that the paper prints, for figure 7 one per network that is trained.

    Errors are in percent of the test images, `lowest of any epoch` is that of all trainings, as the paper does not say
    which of the two it prints. `change` is the error less that of the network named under `against`. `difference` is
    our error less the published one, only under the paper's own conditions. Table 8 has other columns.
    """
    if experiment.kind == "pruning":
        return [_pruning_row(published, results) for published in experiment.rows]
    unpublished = [Published(0, member.dataset, member.network, member.network) for member in experiment.members]
    rows = [_row(published, results) for published in experiment.rows or unpublished]
    by_network = {(row["data"], row["network"]): row for row in rows}
    for row in rows:
        if other := by_network.get((row["data"], row["against"])):
            row["change"] = _less(row["error"], other["error"])
            row["published change"] = _less(row["published error"], other["published error"])
    return rows


def _row(published: Published, results: Results) -> Row:
    """Return a row that is not compared with another one yet."""
    member = Member(published.dataset, published.zoo_name)
    records, errors, parameters = results.records[member], results.errors(member), results.cost(member).parameters
    extra = None
    if published.extra_parameters is not None:
        extra = parameters - results.cost(Member(member.dataset, EXTRA_TO[published.table])).parameters
    scores = [score for record in records for score in record["curve"]["test_accuracy"] if score is not None]
    as_published = not results.conditions.changes and results.data[member.dataset].is_whole
    reasons = [f"seed {record['seed']}: {record['reason']}" for record in records if record["reason"]]
    return {
        "data": member.dataset,
        "model": published.model,
        "network": member.network,
        "parameters": parameters,
        "published parameters": published.parameters,
        "extra parameters": extra,
        "published extra parameters": published.extra_parameters,
        "error": results.error(member),
        "standard deviation": statistics.stdev(errors) if len(errors) > 1 else None,
        "trainings": len(errors),
        "lowest of any epoch": 100 * (1 - max(scores)) if scores else None,
        "published error": published.top1_error,
        "difference": _less(results.error(member), published.top1_error) if as_published else None,
        "against": published.against or None,
        "change": None,
        "published change": None,
        "note": "; ".join(filter(None, [published.note, *reasons, "" if records else "not trained yet"])),
    }


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _pruning_row(published: Published, results: Results) -> Row:
    """Return a row of Table 8, with size and accuracy of our network if it is one."""
    member, reference = Member(published.dataset, published.zoo_name), results.cost(REFERENCE)
    ours = results.cost(member) if published.zoo_name else None
    return {
        "method": published.model,
        "network": published.zoo_name or None,
        "parameters": ours and ours.parameters,
        "accuracy drop": ours and _less(results.error(member), results.error(REFERENCE)),
        "published drop": published.accuracy_drop,
        "prune ratio": ours and prune_ratio(ours.parameters, reference.parameters),
        "published ratio": published.prune_ratio,
        "weights in bytes": ours and ours.file_bytes,
        "MACs ratio": ours and ours.macs / reference.macs,
    }


def notes_of(experiment: Experiment, results: Results, rows: Sequence[Row]) -> list[str]:
    """Return what there is to say of the conditions, the data, the trainings and the columns."""
    notes = [PROTOCOL, results.conditions.note, *(results.data[name].note for name in experiment.datasets)]
    records = [record for member in experiment.members for record in results.records[member]]
    notes += _origin(records) if records else ["Nothing is trained yet."]
    if experiment.kind == "pruning":
        cost, error = results.cost(REFERENCE), results.error(REFERENCE)
        size = f"{cost.parameters:,} parameters, {cost.file_bytes:,} bytes of weights"
        tested = "" if error is None else f", test error {error:.2f}%"
        return [*notes, f"Compared with {REFERENCE.network} here: {size}{tested}.", DROPS]
    return [*notes, ERRORS, *([CHANGES] if any(row["against"] for row in rows) else []), *_rank_correlations(rows)]


def _origin(records: Sequence[Record]) -> list[str]:
    """Return the commands, machines, versions and seeds that the figures come from."""
    devices = sorted({f"{record['device']} ({record['precision']})" for record in records})
    versions = sorted({f"torch {record['versions']['torch']}, ray {record['versions']['ray']}" for record in records})
    seeds = ", ".join(map(str, sorted({record["seed"] for record in records})))
    return [
        f"Trainings: {len(records)}, seeds: {seeds}, last on {max(record['time'] for record in records)}.",
        f"Trained on {'; '.join(devices)}; {'; '.join(versions)}.",
        *(f"Command: `{command}`" for command in sorted({_command(record["command"]) for record in records})),
    ]


def _command(arguments: Sequence[str]) -> str:
    """Return the command that a record's `sys.argv` stands for; older records name the module's former file."""
    program = Path(arguments[0]).name
    start = ["python", "-m", "dacnn_search.paper"] if program in ("paper.py", "__main__.py") else [program]
    return shlex.join([*start, *arguments[1:]])


def _rank_correlations(rows: Sequence[Row]) -> Iterator[str]:
    """Compare the order of the networks with the paper's by Spearman's correlation, for each data set."""
    known = pd.DataFrame(rows)[["data", "error", "published error"]].dropna()
    for dataset, errors in known.groupby("data", sort=False)[["error", "published error"]]:
        if len(errors) > 2 and errors.nunique().min() > 1:
            value = f"{errors.corr('spearman').to_numpy()[0, 1]:.2f} ({len(errors)} rows)"
            yield f"Rank correlation of our errors with the published ones, {dataset}: {value}."


def write_tables(title: str, notes: Sequence[str], rows: Sequence[Row], folder: Path) -> None:
    """Write `comparison.csv`, with all columns, and `comparison.md` to a folder."""
    cells = pd.DataFrame([{name: _cell(name, value) for name, value in row.items()} for row in rows])
    write_atomic(folder / "comparison.csv", cells.to_csv(index=False, lineterminator="\n"))
    items = "".join(f"- {note}\n" for note in notes)
    write_atomic(folder / "comparison.md", f"# {title}\n\n{items}\n{markdown_table(visible_cells(rows))}")


def visible_cells(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return a table for people: without empty columns, and without the data set where it is the same in all rows."""
    columns = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    if len({row.get("data") for row in rows}) == 1:
        columns = [name for name in columns if name != "data"]
    return [{name: _cell(name, row[name], thousands=",") for name in columns} for row in rows]


def _cell(column: str, value: Any, thousands: str = "") -> str:
    if isinstance(value, float):
        return format(value, FORMATS.get(column, ".2f"))
    return f"{value:{thousands}}" if isinstance(value, int) else value or ""
