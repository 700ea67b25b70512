"""What is told of an experiment, ours beside the published: notes and a table, as CSV and Markdown."""

import csv
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dacnn_search.common.files import write_atomic
from dacnn_search.paper.experiments import Experiment
from dacnn_search.paper.plot_page import Table
from dacnn_search.paper.rows import PruningRow, Results, Row, pruning_rows, rows_of

__all__ = ["Report", "report_of", "write_tables"]

Cell = str | int | None

ERRORS = "error: in percent of the test images after the last epoch, the mean over the trainings."
CHANGES = "change: error less that of the network named under against, in points."


@dataclass(frozen=True)
class Report:
    """What is told of an experiment: notes, a table, and the rows behind it. cells: of the table, for programs."""

    notes: Sequence[str]
    cells: Sequence[Mapping[str, Cell]]
    rows: Sequence[Row]
    pruning: Sequence[PruningRow]

    @property
    def table(self) -> Table:
        """For people: columns, and cells row by row."""
        return _table(self.cells)


def report_of(experiment: Experiment, results: Results) -> Report:
    """What is to be told of an experiment."""
    rows: list[Row] = []
    pruning: list[PruningRow] = []
    datasets = dict.fromkeys(member.dataset for member in experiment.members)
    notes = [*results.notes, *(results.data_notes[name] for name in datasets), *_origin(experiment, results)]
    if experiment.kind == "pruning":
        pruning = pruning_rows(results)
        cells = [_pruning_cells(row) for row in pruning]
        notes += _reference(pruning)
    else:
        rows = rows_of(experiment, results)
        cells = [_cells(row, results.as_published(row.member.dataset)) for row in rows]
        notes += [ERRORS, *([CHANGES] if any(row.against for row in rows) else []), *_rank_correlations(rows)]
    return Report(notes, cells, rows, pruning)


def write_tables(experiment: Experiment, report: Report, folder: Path) -> None:
    """Write `comparison.csv` and `comparison.md` to a folder."""
    write_atomic(folder / "comparison.csv", _csv(report.cells))
    write_atomic(folder / "comparison.md", _markdown(experiment, report.notes, report.table))


def _cells(row: Row, as_published: bool) -> dict[str, Cell]:
    """Errors in percent of the test images, changes and differences in points."""
    printed = row.published
    difference = row.error is not None and row.published_error is not None and as_published
    return {
        "data": row.member.dataset,
        "model": row.model,
        "network": row.member.network,
        "parameters": row.parameters,
        "published parameters": printed.parameters if printed else None,
        "extra parameters": row.extra,
        "published extra parameters": printed.extra_parameters if printed else None,
        "error": _decimal(row.error),
        "standard deviation": _decimal(row.deviation),
        "trainings": len(row.errors),
        "lowest of any epoch": _decimal(row.lowest),
        "published error": _decimal(row.published_error),
        "difference": _signed(row.error - row.published_error if difference else None),  # type: ignore[operator]
        "against": row.against,
        "change": _signed(row.change),
        "published change": _signed(row.published_change),
        "note": row.note,
    }


def _pruning_cells(row: PruningRow) -> dict[str, Cell]:
    """Drops in points of accuracy, prune ratios in percent."""
    ours = row.ours
    return {
        "method": row.method,
        "network": ours.network.name if ours else None,
        "parameters": ours.network.parameters if ours else None,
        "accuracy drop": _decimal(ours.accuracy_drop if ours else None),
        "published drop": _decimal(row.published_drop),
        "prune ratio": f"{ours.prune_ratio:.1f}" if ours else None,
        "published ratio": f"{row.published_ratio:.1f}",
        "weights in bytes": ours.network.file_bytes if ours else None,
        "MACs ratio": _decimal(ours.macs_ratio if ours else None),
    }


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.2f}"


def _csv(cells: Sequence[Mapping[str, Cell]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(cells[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue()


def _table(cells: Sequence[Mapping[str, Cell]]) -> Table:
    """For people: without columns that are empty, and without the data set where it is one; thousands set apart."""
    columns = [name for name in cells[0] if any(line[name] not in (None, "") for line in cells)]
    if "data" in columns and len({line["data"] for line in cells}) == 1:
        columns.remove("data")
    return columns, [[_text(line[name]) for name in columns] for line in cells]


def _text(value: Cell) -> str:
    return f"{value:,}" if isinstance(value, int) else value or ""


def _markdown(experiment: Experiment, notes: Sequence[str], table: Table) -> str:
    columns, cells = table
    lines = [f"# {experiment.name.replace('-', ' ').capitalize()}: {experiment.title}", ""]
    lines += [f"- {note}" for note in notes]
    lines += ["", _line(columns), "|" + "---|" * len(columns), *map(_line, cells), ""]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _rank_correlations(rows: Sequence[Row]) -> Iterable[str]:
    """Spearman's, of our errors with the published ones: whether the order of the networks is the paper's."""
    for dataset in dict.fromkeys(row.member.dataset for row in rows):
        chosen = [row for row in rows if row.member.dataset == dataset and row.errors]
        pairs = [(row.error, row.published_error) for row in chosen if row.published_error is not None]
        ranks = pd.DataFrame(pairs, columns=["ours", "published"]).rank()
        if len(pairs) > 2 and ranks.nunique().min() > 1:
            value = f"{ranks['ours'].corr(ranks['published']):.2f} ({len(pairs)} rows)"
            yield f"Rank correlation of our errors with the published ones, {dataset}: {value}."


def _reference(rows: Sequence[PruningRow]) -> Iterable[str]:
    """What the networks of Table 8 are compared with."""
    for reference in dict.fromkeys(row.ours.reference for row in rows if row.ours):
        accuracy = "" if reference.accuracy is None else f", test error {100 * (1 - reference.accuracy):.2f}%"
        size = f"{reference.parameters:,} parameters, {reference.file_bytes:,} bytes of weights"
        yield f"Compared with {reference.name} here: {size}{accuracy}."
        yield "Drops are in points of accuracy, prune ratios in percent of its parameters; MACs ratio: by its MACs."


def _origin(experiment: Experiment, results: Results) -> list[str]:
    """By what the figures were made: commands, machines, versions, seeds."""
    records = [record for member in experiment.members for record in results.found[member]]
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
    program = Path(arguments[0])
    return shlex.join(
        ["python", "-m", "dacnn_search.paper", *arguments[1:]] if program.name == "paper.py" else arguments
    )
