"""What is written of one of the paper's experiments: its tables, and a page with figures."""

import dataclasses
import functools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from dacnn_search.common.files import write_atomic
from dacnn_search.paper.experiments import Experiment, Member
from dacnn_search.paper.plot_page import html_page
from dacnn_search.paper.report import Report, report_of, write_tables
from dacnn_search.paper.rows import PruningRow, Results, Row

if TYPE_CHECKING:
    from dacnn_search.paper.filters import FilterPictures

__all__ = ["write_report"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#9a4a78", "#7f7f7f", "#b8a200", "#222222")
FAMILIES = {  # what a network shares: colour, and side of its name in figure 5, where families meet
    "plain": ("#0072b2", "right"),
    "plain with regulators": ("#56b4e9", "right"),
    "mixed": ("#d55e00", "left"),
    "mixed with regulators": ("#e69f00", "right"),
    "free weights": ("#7f7f7f", "center"),
}


def write_report(experiment: Experiment, results: Results, folder: Path) -> Path:
    """Write `comparison.csv`, `comparison.md` and `page.html` of an experiment to a folder of its own below `folder`,
    for figure 7 `filters.png` too; return it."""
    target = folder / (experiment.name + results.conditions.suffix)
    target.mkdir(exist_ok=True)
    report = report_of(experiment, results)
    write_tables(experiment, report, target)
    _write_page(target, experiment, results, report)
    return target


def _write_page(target: Path, experiment: Experiment, results: Results, report: Report) -> None:
    """Write `page.html` of an experiment to its folder; for figure 7 the pictures of filters as well."""
    figures: list[go.Figure] = []
    published = "published" if results.conditions.are_published else "published (full version)"
    if experiment.kind == "pruning":
        figures.append(_pruning(report.pruning, published))
    if experiment.kind == "table":
        figures.append(_beside(report.rows, published))
    if experiment.kind == "efficiency":
        figures.append(_efficiency(report.rows, published))
    if experiment.kind == "filters":
        figures += _filters(experiment, results, target)
    for dataset in dict.fromkeys(member.dataset for member in experiment.members):
        figures.append(_curves(dataset, [m for m in experiment.members if m.dataset == dataset], results))
    if experiment.name == "figure-4":
        figures.append(_sizes(report.rows, published))
    title = f"{experiment.name.replace('-', ' ').capitalize()}: {experiment.title}"
    write_atomic(target / "page.html", html_page(title, report.notes, figures, report.table))


def _curves(dataset: str, members: Sequence[Member], results: Results) -> go.Figure:
    """Test error by epoch, a line per training; free weights dashed, in the colours of their shared counterparts."""
    figure = _figure(f"Test error on {dataset}", "epoch", "test error (%)", height=520)
    drawn = {"solid": 0, "dash": 0}
    for member in members:
        dash = "dash" if family(member.network) == "free weights" else "solid"
        again, index = divmod(drawn[dash], len(COLOURS))
        drawn[dash] += 1
        line = {"color": COLOURS[index], "width": 2, "dash": "dot" if again else dash}
        for number, record in enumerate(results.found[member]):
            errors = [None if a is None else 100 * (1 - a) for a in record["curve"]["test_accuracy"]]
            figure.add_scatter(
                x=list(range(1, len(errors) + 1)),
                y=errors,
                name=member.network,
                legendgroup=member.network,
                showlegend=number == 0,
                mode="lines" if len(errors) > 1 else "markers",
                opacity=1 if number == 0 else 0.5,
                line=line,
                hovertemplate=f"{member.network}, seed {record['seed']}<br>epoch %{{x}}: %{{y:.2f}}%<extra></extra>",
            )
    longest = max((len(trace.x) for trace in figure.data), default=0)
    return figure.update_xaxes(dtick=1 if longest <= 15 else None)


def _beside(rows: Sequence[Row], published: str) -> go.Figure:
    """Our error and the published one of each row."""
    figure = _figure("Test error, ours and published", "test error (%)", None, height=150 + 34 * len(rows))
    labels = [_label(row, rows) for row in rows]
    for row, label in zip(rows, labels, strict=True):
        if row.error is not None and row.published_error is not None:
            figure.add_scatter(
                x=[row.published_error, row.error],
                y=[label, label],
                mode="lines",
                line={"color": "#cccccc", "width": 2},
                showlegend=False,
                hoverinfo="skip",
            )
    figure.add_scatter(x=[r.published_error for r in rows], y=labels, name=published, **_hollow("#d55e00"))
    deviations = [row.deviation or 0 for row in rows]
    figure.add_scatter(
        x=[row.error for row in rows],
        y=labels,
        name="ours",
        error_x={"array": deviations, "visible": any(deviations)},
        **_filled("#0072b2"),
    )
    return figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=labels)


def _efficiency(rows: Sequence[Row], published: str) -> go.Figure:
    """Error against parameters, as figure 5 has it: good networks are at the bottom left."""
    figure = _figure("Error against parameters", "parameters", "test error (%)", height=560)
    for name, (colour, side) in FAMILIES.items():
        members = [row for row in rows if family(row.member.network) == name]
        ours = [row for row in members if row.error is not None]
        figure.add_scatter(
            x=[row.parameters for row in ours],
            y=[row.error for row in ours],
            text=[row.member.network for row in ours],
            name=f"{name}, ours",
            **{**_filled(colour), "mode": "markers+text", "cliponaxis": False},
            textposition=_places([row.error for row in ours if row.error is not None], side) or None,
        )
        figure.add_scatter(
            x=[row.published.parameters for row in members if row.published],
            y=[row.published_error for row in members if row.published],
            text=[row.model for row in members if row.published],
            name=f"{name}, {published}",
            hovertemplate="%{text}: %{x:,}, %{y:.2f}%",
            **_hollow(colour),
        )
    return figure.update_xaxes(type="log", dtick=1)


def _places(errors: Sequence[float], side: str) -> list[str]:
    """Where names stand: of the larger errors above, of the smaller ones below, so that close points are told apart."""
    return [f"{'top' if error >= statistics.median(errors) else 'bottom'} {side}" for error in errors]


def _sizes(rows: Sequence[Row], published: str) -> go.Figure:
    """Parameters, as on the right of figure 4."""
    figure = _figure("Parameters", "parameters", None, height=120 + 50 * len(rows))
    labels = [row.member.network for row in rows]
    figure.add_bar(y=labels, x=[row.parameters for row in rows], name="ours", orientation="h", marker_color="#0072b2")
    figure.add_bar(
        y=labels,
        x=[row.published.parameters if row.published else None for row in rows],
        name=published,
        orientation="h",
        marker_color="#e3b08c",
    )
    return figure.update_layout(barmode="group").update_yaxes(autorange="reversed")


def _pruning(rows: Sequence[PruningRow], published: str) -> go.Figure:
    """Accuracy drop against prune ratio: good methods are at the bottom right."""
    figure = _figure("Compression against ResNet-18", "prune ratio (%)", "accuracy drop (points)", height=480)
    for name, colour in (("Agent Pruning", "#009e73"), ("SM Pruning", "#cc79a7"), ("DACNN", "#d55e00")):
        chosen = [row for row in rows if row.method.startswith(name)]
        figure.add_scatter(
            x=[row.published_ratio for row in chosen],
            y=[row.published_drop for row in chosen],
            text=[row.method for row in chosen],
            name=f"{name}, {published if name == 'DACNN' else 'published'}",
            **_hollow(colour),
        )
    ours: list[Any] = [row.ours for row in rows if row.ours and row.ours.accuracy_drop is not None]
    figure.add_scatter(
        x=[comparison.prune_ratio for comparison in ours],
        y=[comparison.accuracy_drop for comparison in ours],
        text=[comparison.network.name for comparison in ours],
        name="ours",
        **{**_filled("#0072b2"), "mode": "markers+text", "textposition": "top center"},
    )
    return figure


def _filters(experiment: Experiment, results: Results, target: Path) -> list[go.Figure]:
    """The filters of each network that is trained; also as `filters.png`."""
    from dacnn_search.paper.filters import filter_figure, write_png

    figures = []
    for member in experiment.members:
        trained = [record for record in results.found[member] if record["reason"] is None]
        if trained:
            pictures = _pictures(results.networks / f"{member.network}-{trained[0]['key']}")
            write_png(pictures, target / "filters.png")
            figures.append(filter_figure(dataclasses.replace(pictures, network=member.network)))
    return figures


@functools.cache  # pages are written again after every training
def _pictures(network: Path) -> "FilterPictures":
    from dacnn_search.paper.filters import visualise
    from dacnn_search.training.trainer import prepare_process

    prepare_process(threads=1)  # the other cores train
    return visualise(network)


def family(network: str) -> str:
    """What a network of the zoo shares: a key of FAMILIES."""
    if network.startswith(("free", "vgg", "resnet")):
        return "free weights"
    kind = "mixed" if "-mix" in network else "plain"
    return f"{kind} with regulators" if "-reg" in network and not network.endswith("-reg-none") else kind


def _label(row: Row, rows: Sequence[Row]) -> str:
    several = len({other.member.dataset for other in rows}) > 1
    return f"{row.member.network}<br>on {row.member.dataset}" if several else row.member.network


def _filled(colour: str) -> Mapping[str, Any]:
    return {"mode": "markers", "marker": {"color": colour, "size": 10}}


def _hollow(colour: str) -> Mapping[str, Any]:
    return {"mode": "markers", "marker": {"color": colour, "size": 11, "symbol": "circle-open", "line": {"width": 2}}}


def _figure(title: str, x: str, y: str | None, height: int) -> go.Figure:
    return go.Figure(
        layout={
            "title": {"text": title, "x": 0, "font": {"size": 16}},
            "template": "plotly_white",
            "height": height,
            "margin": {"l": 70, "r": 20, "t": 50, "b": 60},
            "xaxis": {"title": {"text": x}, "automargin": True},
            "yaxis": {"title": {"text": y}, "automargin": True},
            "legend": {"tracegroupgap": 0},
        }
    )
