"""The report on an experiment, our figures beside the published ones: notes and a table, as CSV and Markdown."""

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dacnn_search.common.files import write_atomic
from dacnn_search.paper.experiments import PROTOCOL, REFERENCE, Experiment
from dacnn_search.paper.markdown import markdown_table
from dacnn_search.paper.rows import Results, Row, rows_of

__all__ = ["Report", "report_of"]

ERRORS = "error: in percent of the test images after the last epoch, the mean over the trainings."
CHANGES = "change: error less that of the network named under against, in points."
DROPS = "Drops are in points of accuracy, prune ratios in percent of its parameters; MACs ratio: by its MACs."
SIGNED = ("difference", "change", "published change")
RATIOS = ("prune ratio", "published ratio")


@dataclass(frozen=True)
class Report:
    """The notes and the rows of an experiment."""

    title: str
    notes: Sequence[str]
    rows: Sequence[Row]

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and cells for people: empty columns left out, and the data set where it is the same in all rows."""
        columns = [name for name in self.rows[0] if any(row[name] not in (None, "") for row in self.rows)]
        if "data" in columns and len({row["data"] for row in self.rows}) == 1:
            columns.remove("data")
        return columns, [[_cell(name, row[name], thousands=",") for name in columns] for row in self.rows]

    def write(self, folder: Path) -> None:
        """Write `comparison.csv`, with all columns, and `comparison.md` to a folder."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.rows[0])
        writer.writerows([_cell(name, value) for name, value in row.items()] for row in self.rows)
        write_atomic(folder / "comparison.csv", text.getvalue())
        notes = "".join(f"- {note}\n" for note in self.notes)
        write_atomic(folder / "comparison.md", f"# {self.title}\n\n{notes}\n{markdown_table(*self.table)}")


def report_of(experiment: Experiment, results: Results) -> Report:
    """Return the report on an experiment."""
    rows = rows_of(experiment, results)
    datasets = dict.fromkeys(member.dataset for member in experiment.members)
    notes = [PROTOCOL, results.conditions.note, *(results.data[name].note for name in datasets)]
    notes += _origin(experiment, results)
    if experiment.kind == "pruning":
        notes += [_reference(results), DROPS]
    else:
        notes += [ERRORS, *([CHANGES] if any(row["against"] for row in rows) else []), *_rank_correlations(rows)]
    return Report(experiment.heading, notes, rows)


def _cell(column: str, value: Any, thousands: str = "") -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:+.2f}" if column in SIGNED else f"{value:.1f}" if column in RATIOS else f"{value:.2f}"
    return f"{value:{thousands}}" if isinstance(value, int) else str(value)


def _origin(experiment: Experiment, results: Results) -> list[str]:
    """Return the commands, machines, versions and seeds that the figures come from."""
    records = [record for member in experiment.members for record in results.records[member]]
    if not records:
        return ["Nothing is trained yet."]
    devices = sorted({f"{record['device']} ({record['precision']})" for record in records})
    versions = sorted({f"torch {record['versions']['torch']}, ray {record['versions']['ray']}" for record in records})
    seeds = sorted({record["seed"] for record in records})
    commands = sorted({_command(record["command"]) for record in records})
    return [
        f"Trainings: {len(records)}, seeds: {', '.join(map(str, seeds))}, last on {max(r['time'] for r in records)}.",
        f"Trained on {'; '.join(devices)}; {'; '.join(versions)}.",
        *(f"Command: `{command}`" for command in commands),
    ]


def _command(arguments: Sequence[str]) -> str:
    """Return the command that a record's `sys.argv` stands for; older records name the module's former file."""
    if Path(arguments[0]).name in ("paper.py", "__main__.py"):
        arguments = ["python", "-m", "dacnn_search.paper", *arguments[1:]]
    return shlex.join(arguments)


def _reference(results: Results) -> str:
    """Say what the networks of Table 8 are compared with."""
    reference = results.measured(REFERENCE)
    error = "" if reference.accuracy is None else f", test error {100 * (1 - reference.accuracy):.2f}%"
    size = f"{reference.parameters:,} parameters, {reference.file_bytes:,} bytes of weights"
    return f"Compared with {reference.name} here: {size}{error}."


def _rank_correlations(rows: Sequence[Row]) -> Iterable[str]:
    """Compare the order of the networks with the paper's by Spearman's correlation, for each data set."""
    known = pd.DataFrame(rows)[["data", "error", "published error"]].dropna()
    for dataset, errors in known.groupby("data", sort=False):
        ranks = errors[["error", "published error"]].rank()
        if len(ranks) > 2 and ranks.nunique().min() > 1:
            value = f"{ranks['error'].corr(ranks['published error']):.2f} ({len(ranks)} rows)"
            yield f"Rank correlation of our errors with the published ones, {dataset}: {value}."
