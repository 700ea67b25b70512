"""Ours beside the published: the tables of an experiment as CSV and Markdown."""

import csv
import io
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dacnn_search.compression import Comparison, Measured, compare
from dacnn_search.cost import count_parameters, estimate_cost
from dacnn_search.experiments import PRUNING, Conditions, Experiment, Member
from dacnn_search.files import write_atomic
from dacnn_search.model_folder import NetworkInput
from dacnn_search.zoo import EXTRA_TO, Published

__all__ = ["PruningRow", "Report", "Results", "Row", "pruning_rows", "report_of", "rows_of", "write_tables"]

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Results:
    """What was trained under some conditions.

    found: the records of each member, one per seed that is done. inputs: images and classes by data set. notes: what a
    reader must know. data_notes: the same of each data set. networks: the folder of the trained networks.
    """

    conditions: Conditions
    found: Mapping[Member, Records]
    inputs: Mapping[str, NetworkInput]
    notes: Sequence[str]
    data_notes: Mapping[str, str]
    networks: Path

    def parameters(self, member: Member) -> int:
        given = self.inputs[member.dataset]
        return count_parameters(self.conditions.architecture(member.network), given.shape[0], len(given.classes))

    def errors(self, member: Member) -> list[float]:
        """Test errors in percent of the trainings that came to their end."""
        scores = [record["test_accuracy"] for record in self.found[member]]
        return [100 * (1 - score) for score in scores if score is not None]


@dataclass(frozen=True)
class Row:
    """A network of an experiment: ours and, where the paper prints it, the published.

    errors: test error in percent after the last epoch, one per training. lowest: of any epoch of any training; the
    paper does not say which of the two it prints.
    """

    member: Member
    model: str  # as printed
    parameters: int
    extra: int | None  # parameters beyond those of the table's network without regulators
    errors: tuple[float, ...]
    lowest: float | None
    published: Published | None
    note: str

    @property
    def error(self) -> float | None:
        """The mean over the trainings."""
        return statistics.fmean(self.errors) if self.errors else None

    @property
    def spread(self) -> float | None:
        """The standard deviation over several trainings."""
        return statistics.stdev(self.errors) if len(self.errors) > 1 else None

    @property
    def published_error(self) -> float | None:
        return self.published.top1_error if self.published else None


@dataclass(frozen=True)
class PruningRow:
    """A row of Table 8: ours, where it is one of our networks, and what the paper prints, drop in points and ratio in
    percent."""

    method: str
    ours: Comparison | None
    published_drop: float
    published_ratio: float


@dataclass(frozen=True)
class Report:
    """What is told of an experiment: notes, a table (columns and cells row by row), and the rows behind it."""

    notes: Sequence[str]
    table: tuple[Sequence[str], Sequence[Sequence[str]]]
    rows: Sequence[Row]
    pruning: Sequence[PruningRow]


def report_of(experiment: Experiment, results: Results) -> Report:
    """What is to be told of an experiment."""
    rows: list[Row] = []
    pruning: list[PruningRow] = []
    datasets = dict.fromkeys(member.dataset for member in experiment.members)
    notes = [*results.notes, *(results.data_notes[name] for name in datasets), *_origin(experiment, results)]
    if experiment.kind == "pruning":
        pruning = pruning_rows(results)
        table = _PRUNING_COLUMNS, [_pruning_cells(row) for row in pruning]
    else:
        rows = rows_of(experiment, results)
        table = _COLUMNS, [_cells(row, results.conditions) for row in rows]
        notes += _rank_correlations(rows)
    return Report(notes, table, rows, pruning)


def write_tables(experiment: Experiment, report: Report, folder: Path) -> None:
    """Write `comparison.csv` and `comparison.md` to a folder."""
    write_atomic(folder / "comparison.csv", _csv(*report.table))
    write_atomic(folder / "comparison.md", _markdown(experiment, report.notes, *report.table))


def rows_of(experiment: Experiment, results: Results) -> list[Row]:
    """A row per network that the paper prints; without any (figure 7), one per network."""
    if experiment.rows:
        return [_row(Member(p.dataset, p.zoo_name), p, results) for p in experiment.rows]
    return [_row(member, None, results) for member in experiment.members]


def pruning_rows(results: Results) -> list[PruningRow]:
    """Table 8, with the sizes of our networks and, where they are trained, their accuracies."""
    reference = _measured(Member("cifar10", "resnet18"), results)
    return [
        PruningRow(
            row.method,
            None if row.network is None else compare(_measured(Member("cifar10", row.network), results), reference),
            row.accuracy_drop,
            row.prune_ratio,
        )
        for row in PRUNING
    ]


def _row(member: Member, published: Published | None, results: Results) -> Row:
    parameters, extra = results.parameters(member), None
    if published is not None and published.extra_parameters is not None:
        extra = parameters - results.parameters(Member(member.dataset, EXTRA_TO[published.table]))
    records = results.found[member]
    epochs = [score for record in records for score in record["curve"]["test_accuracy"] if score is not None]
    notes = [published.note] if published and published.note else []
    notes += [f"seed {record['seed']}: {record['reason']}" for record in records if record["reason"]]
    return Row(
        member,
        published.model if published else member.network,
        parameters,
        extra,
        tuple(results.errors(member)),
        100 * (1 - max(epochs)) if epochs else None,
        published,
        "; ".join(notes if records else [*notes, "not trained yet"]),
    )


def _measured(member: Member, results: Results) -> Measured:
    given = results.inputs[member.dataset]
    cost = estimate_cost(results.conditions.architecture(member.network), given.shape, len(given.classes))
    errors = results.errors(member)
    accuracy = 1 - statistics.fmean(errors) / 100 if errors else None
    return Measured(member.network, cost.parameters, cost.macs, cost.file_bytes, accuracy)


_COLUMNS: Sequence[str] = (
    "data",
    "model",
    "network",
    "parameters",
    "published parameters",
    "error",
    "spread",
    "lowest of any epoch",
    "trainings",
    "published error",
    "difference",
    "note",
)
_PRUNING_COLUMNS: Sequence[str] = (
    "method",
    "network",
    "accuracy drop",
    "published drop",
    "prune ratio",
    "published ratio",
    "weights in bytes",
    "MACs ratio",
)


def _cells(row: Row, conditions: Conditions) -> list[str]:
    printed = row.published
    count, published = (
        f"{row.parameters:,}",
        "" if printed is None or printed.parameters is None else printed.parameters,
    )
    if row.extra is not None and printed is not None:
        count, published = f"{count} (+{row.extra:,})", f"+{printed.extra_parameters:,}"
    elif published:
        published = f"{published:,}"
    comparable = (conditions.scale, conditions.epochs, conditions.subset) == (1, None, None)
    both = row.error is not None and row.published_error is not None
    difference = f"{row.error - row.published_error:+.2f}" if comparable and both else ""  # type: ignore[operator]
    return [
        row.member.dataset,
        row.model,
        row.member.network,
        count,
        str(published),
        _number(row.error),
        _number(row.spread),
        _number(row.lowest),
        str(len(row.errors)),
        _number(row.published_error),
        difference,
        row.note,
    ]


def _pruning_cells(row: PruningRow) -> list[str]:
    ours = row.ours
    return [
        row.method,
        ours.network.name if ours else "",
        _number(ours.accuracy_drop if ours else None),
        _number(row.published_drop),
        f"{ours.prune_ratio:.1f}" if ours else "",
        f"{row.published_ratio:.1f}",
        f"{ours.network.file_bytes:,}" if ours else "",
        f"{ours.macs_ratio:.2f}" if ours else "",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _csv(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(cells)
    return text.getvalue()


def _markdown(
    experiment: Experiment, notes: Sequence[str], columns: Sequence[str], cells: Iterable[Sequence[str]]
) -> str:
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
