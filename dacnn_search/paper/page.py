"""The page of an experiment: its notes, its figures, its table."""

import dataclasses
import functools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from dacnn_search.common.files import write_atomic
from dacnn_search.paper.archive import network_folder
from dacnn_search.paper.experiments import Experiment, Member
from dacnn_search.paper.plot_page import html_page
from dacnn_search.paper.report import report_of
from dacnn_search.paper.rows import Results, Row

if TYPE_CHECKING:
    from dacnn_search.paper.filters import FilterPictures

__all__ = ["write_report"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#9a4a78", "#7f7f7f", "#b8a200", "#222222")
OURS, PRINTED = COLOURS[:2]
FAMILIES = {  # kind of sharing -> colour, and side of a name in figure 5, where families meet
    "plain": ("#0072b2", "right"),
    "plain with regulators": ("#56b4e9", "right"),
    "mixed": ("#d55e00", "left"),
    "mixed with regulators": ("#e69f00", "right"),
    "free weights": ("#7f7f7f", "center"),
}


def write_report(experiment: Experiment, results: Results, folder: Path) -> Path:
    """Write an experiment to a folder of its own below `folder`, and return it.

    It gets `comparison.csv`, `comparison.md`, `page.html`, and for figure 7 `filters.png`.
    """
    target = folder / (experiment.name + results.conditions.suffix)
    target.mkdir(exist_ok=True)
    report = report_of(experiment, results)
    report.write(target)
    figures = _figures(experiment, results, report.rows, target)
    write_atomic(target / "page.html", html_page(report.title, report.notes, figures, report.table))
    return target


def _figures(experiment: Experiment, results: Results, rows: Sequence[Row], target: Path) -> list[go.Figure]:
    figures: list[go.Figure] = []
    published = "published" if results.conditions.are_published else "published (full version)"
    if experiment.kind == "pruning":
        figures.append(_pruning(rows, published))
    if experiment.kind == "table":
        figures.append(_errors(rows, published))
    if experiment.kind == "efficiency":
        figures.append(_efficiency(rows, published))
    if experiment.kind == "filters":
        figures += _filters(experiment, results, target)
    for dataset in dict.fromkeys(member.dataset for member in experiment.members):
        figures.append(_curves(dataset, [m for m in experiment.members if m.dataset == dataset], results))
    if experiment.name == "figure-4":
        figures.append(_sizes(rows, published))
    return figures


def _pruning(rows: Sequence[Row], published: str) -> go.Figure:
    """Draw the accuracy drop against the prune ratio: good methods are at the bottom right."""
    figure = _figure("Compression against ResNet-18", "prune ratio (%)", "accuracy drop (points)", height=480)
    for name, colour in (("Agent Pruning", "#009e73"), ("SM Pruning", "#cc79a7"), ("DACNN", PRINTED)):
        chosen = [row for row in rows if row["method"].startswith(name)]
        label = f"{name}, {published if name == 'DACNN' else 'published'}"
        points = _points(chosen, "published ratio", "published drop", "method")
        figure.add_scatter(**points, **_hollow(colour), name=label)
    points = _points([row for row in rows if row["accuracy drop"] is not None], "prune ratio", "accuracy drop")
    return figure.add_scatter(**points, **_filled(OURS, named=True), textposition="top center", name="ours")


def _errors(rows: Sequence[Row], published: str) -> go.Figure:
    """Draw our error and the published one of each network, with a line between them."""
    figure = _figure("Test error, ours and published", "test error (%)", None, height=150 + 34 * len(rows))
    several = len({row["data"] for row in rows}) > 1
    labels = [f"{row['network']}<br>on {row['data']}" if several else row["network"] for row in rows]
    ours, printed = ([row[column] for row in rows] for column in ("error", "published error"))
    for label, *ends in zip(labels, printed, ours, strict=True):
        if None not in ends:
            line = {"color": "#cccccc", "width": 2}
            figure.add_scatter(x=ends, y=[label] * 2, mode="lines", line=line, showlegend=False, hoverinfo="skip")
    figure.add_scatter(x=printed, y=labels, name=published, **_hollow(PRINTED))
    deviations = [row["standard deviation"] or 0 for row in rows]
    bars = {"array": deviations, "visible": any(deviations)}
    figure.add_scatter(x=ours, y=labels, name="ours", error_x=bars, **_filled(OURS))
    return figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=labels)


def _efficiency(rows: Sequence[Row], published: str) -> go.Figure:
    """Draw the error against the parameters, as figure 5 does: good networks are at the bottom left."""
    figure = _figure("Error against parameters", "parameters", "test error (%)", height=560)
    for name, (colour, side) in FAMILIES.items():
        members = [row for row in rows if _family(row["network"]) == name]
        trained = [row for row in members if row["error"] is not None]
        figure.add_scatter(
            **_points(trained, "parameters", "error"),
            **_filled(colour, named=True),
            name=f"{name}, ours",
            cliponaxis=False,
            textposition=_text_positions([row["error"] for row in trained], side) or None,
        )
        figure.add_scatter(
            **_points(members, "published parameters", "published error", "model"),
            **_hollow(colour),
            name=f"{name}, {published}",
            hovertemplate="%{text}: %{x:,}, %{y:.2f}%",
        )
    return figure.update_xaxes(type="log", dtick=1)


def _text_positions(errors: Sequence[float], side: str) -> list[str]:
    """Place the names of larger errors above their points and others below, to tell close points apart."""
    return [f"{'top' if error >= statistics.median(errors) else 'bottom'} {side}" for error in errors]


def _filters(experiment: Experiment, results: Results, target: Path) -> Iterable[go.Figure]:
    """Draw the filters of each network that is trained, and write them to `filters.png`."""
    from dacnn_search.paper.filters import filter_figure, write_png

    for member in experiment.members:
        records = [record for record in results.records[member] if record["reason"] is None]
        if records:
            pictures = _pictures(network_folder(target.parent, records[0]))
            write_png(pictures, target / "filters.png")
            yield filter_figure(dataclasses.replace(pictures, network=member.network))


@functools.cache  # pages are written again after every training
def _pictures(network: Path) -> "FilterPictures":
    import torch

    from dacnn_search.paper.filters import visualise

    torch.set_num_threads(1)  # the other cores train
    return visualise(network)


def _curves(dataset: str, members: Sequence[Member], results: Results) -> go.Figure:
    """Draw the test error by epoch, a line per training; free weights are dashed, in their counterparts' colours."""
    figure = _figure(f"Test error on {dataset}", "epoch", "test error (%)", height=520)
    free = {member: _family(member.network) == "free weights" for member in members}
    longest = 0
    for member in members:
        again, colour = divmod([m for m in members if free[m] == free[member]].index(member), len(COLOURS))
        dash = "dot" if again else "dash" if free[member] else "solid"
        for number, record in enumerate(results.records[member]):
            errors = [None if a is None else 100 * (1 - a) for a in record["curve"]["test_accuracy"]]
            longest = max(longest, len(errors))
            figure.add_scatter(
                x=list(range(1, len(errors) + 1)),
                y=errors,
                name=member.network,
                legendgroup=member.network,
                showlegend=number == 0,
                mode="lines" if len(errors) > 1 else "markers",
                opacity=1 if number == 0 else 0.5,
                line={"color": COLOURS[colour], "width": 2, "dash": dash},
                hovertemplate=f"{member.network}, seed {record['seed']}<br>epoch %{{x}}: %{{y:.2f}}%<extra></extra>",
            )
    return figure.update_xaxes(dtick=1 if longest <= 15 else None)


def _sizes(rows: Sequence[Row], published: str) -> go.Figure:
    """Draw the parameters, as on the right of figure 4."""
    figure = _figure("Parameters", "parameters", None, height=120 + 50 * len(rows))
    bars = {"y": [row["network"] for row in rows], "orientation": "h"}
    figure.add_bar(x=[row["parameters"] for row in rows], name="ours", marker_color=OURS, **bars)
    printed = [row["published parameters"] for row in rows]
    figure.add_bar(x=printed, name=published, marker_color="#e3b08c", **bars)
    return figure.update_layout(barmode="group").update_yaxes(autorange="reversed")


def _family(network: str) -> str:
    """Return what a network of the zoo shares, a key of `FAMILIES`."""
    if network.startswith(("free", "vgg", "resnet")):
        return "free weights"
    kind = "mixed" if "-mix" in network else "plain"
    return f"{kind} with regulators" if "-reg" in network and not network.endswith("-reg-none") else kind


def _points(rows: Iterable[Row], x: str, y: str, text: str = "network") -> dict[str, list[Any]]:
    """Return columns of the table as what a scatter plot shows."""
    return {axis: [row[column] for row in rows] for axis, column in (("x", x), ("y", y), ("text", text))}


def _filled(colour: str, named: bool = False) -> Mapping[str, Any]:
    return {"mode": "markers+text" if named else "markers", "marker": {"color": colour, "size": 10}}


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
