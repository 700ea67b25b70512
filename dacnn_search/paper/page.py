"""The page of an experiment: its notes, its figures, its table."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from dacnn_search.common.files import write_atomic
from dacnn_search.paper.archive import network_folder
from dacnn_search.paper.experiments import Experiment, Member
from dacnn_search.paper.markup import html_page
from dacnn_search.paper.report import Results, Row, notes_of, rows_of, visible_cells, write_tables

if TYPE_CHECKING:
    from dacnn_search.paper.filters import FilterPictures

__all__ = ["write_report"]

OURS, PRINTED = "#0072b2", "#d55e00"
COLOURS = px.colors.qualitative.Safe
LOOK = {"template": "plotly_white"}
FAMILIES = {  # kind of sharing -> colour
    "plain": OURS,
    "plain with regulators": "#56b4e9",
    "mixed": PRINTED,
    "mixed with regulators": "#e69f00",
    "free weights": "#7f7f7f",
}
SIDES = {"plain": "right", "plain with regulators": "right", "mixed": "left", "mixed with regulators": "right"}


def write_report(experiment: Experiment, results: Results, folder: Path) -> Path:
    """Write an experiment to a folder of its own below `folder`, and return it.

    It gets `comparison.csv`, `comparison.md`, `page.html`, and for figure 7 `filters.png`.
    """
    target = folder / (experiment.name + results.conditions.suffix)
    target.mkdir(exist_ok=True)
    rows = rows_of(experiment, results)
    notes = notes_of(experiment, results, rows)
    write_tables(experiment.heading, notes, rows, target)
    figures = _figures(experiment, results, rows, target)
    write_atomic(target / "page.html", html_page(experiment.heading, notes, figures, visible_cells(rows)))
    return target


def _figures(experiment: Experiment, results: Results, rows: Sequence[Row], target: Path) -> Iterator[go.Figure]:
    published = "published (full version)" if results.conditions.changes else "published"
    if experiment.kind in COMPARISONS:
        yield COMPARISONS[experiment.kind](rows, published)
    if experiment.kind == "filters":
        yield from _filters(experiment, results, target)
    for dataset in experiment.datasets:
        yield _curves(dataset, [m for m in experiment.members if m.dataset == dataset], results)
    if experiment.name == "figure-4":
        yield _sizes(rows, published)


def _pruning(rows: Sequence[Row], published: str) -> go.Figure:
    """Draw the accuracy drop against the prune ratio: good methods are at the bottom right."""
    colours = {"DACNN": OURS, "Agent Pruning": "#009e73", "SM Pruning": "#cc79a7"}
    rows = [
        {**row, "model": row["method"], "kind": next(kind for kind in colours if row["method"].startswith(kind))}
        for row in rows
    ]
    x, y = ("prune ratio", "published ratio"), ("accuracy drop", "published drop")
    axes = {"prune ratio (%)": x, "accuracy drop (points)": y}
    return _compared(rows, published, axes, "kind", colours, title="Compression against ResNet-18", height=480)


def _errors(rows: Sequence[Row], published: str) -> go.Figure:
    """Draw our error and the published one of each network, with a line between them."""
    several = len({row["data"] for row in rows}) > 1
    rows = [row | {"": row["network"] + several * f"<br>on {row['data']}"} for row in rows]
    axes = {"test error (%)": ("error", "published error"), "": ("", "")}
    layout = {"title": "Test error, ours and published", "height": 150 + 34 * len(rows)}
    figure = _compared(rows, published, axes, "source", {"ours": OURS, published: PRINTED}, **layout)
    trained = [row for row in rows if row["error"] is not None]
    for row in trained:
        ends = {"x0": row["error"], "x1": row["published error"], "y0": row[""], "y1": row[""]}
        figure.add_shape(type="line", **ends, line_color="#cccccc", layer="below")
    deviations = [row["standard deviation"] for row in trained]
    figure.update_traces(error_x={"array": deviations, "visible": any(deviations)}, selector={"name": "ours"})
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=[row[""] for row in rows])
    return figure.update_traces(mode="markers")


def _efficiency(rows: Sequence[Row], published: str) -> go.Figure:
    """Draw the error against the parameters, as figure 5 does: good networks are at the bottom left."""
    rows = [row | {"family": _family(row["network"])} for row in rows]
    axes = {"parameters ": ("parameters", "published parameters"), "test error (%)": ("error", "published error")}
    figure = _compared(rows, published, axes, "family", FAMILIES, title="Error against parameters", height=560)
    for family, side in SIDES.items():
        figure.update_traces(textposition=f"top {side}", selector={"name": f"{family}, ours"})
    return figure.update_xaxes(type="log", dtick=1)


def _compared(
    rows: Sequence[Row],
    published: str,
    axes: dict[str, tuple[str, str]],
    colour: str,
    colours: dict[str, str],
    **layout: Any,
) -> go.Figure:
    """Draw points, ours filled and named, the published hollow. `axes` has our and the published column by title."""
    table = pd.DataFrame(rows)
    ours, printed = (
        table.assign(source=source, **{title: table[columns[index]] for title, columns in axes.items()})
        for index, source in enumerate(("ours", published))
    )
    x, y = axes
    points = pd.concat([ours, printed.assign(network="")]).dropna(subset=[x, y])
    looks = {
        "hover_name": "model",
        "color_discrete_map": colours,
        "symbol_map": {"ours": "circle", published: "circle-open"},
        **LOOK,
    }
    figure = px.scatter(points, x=x, y=y, color=colour, symbol="source", text="network", **looks, **layout)
    figure.update_traces(marker={"size": 10, "opacity": 1}, textposition="top center")
    return figure.update_traces(cliponaxis=False).update_layout(legend_title_text="")


COMPARISONS = {"table": _errors, "efficiency": _efficiency, "pruning": _pruning}


def _filters(experiment: Experiment, results: Results, target: Path) -> Iterator[go.Figure]:
    """Draw the filters of each network that is trained, and write them to `filters.png`."""
    from dacnn_search.paper.filters import filter_figure, write_png

    for member in experiment.members:
        records = [record for record in results.records[member] if record["reason"] is None]
        if records:
            pictures = _pictures(network_folder(target.parent, records[0]))
            write_png(pictures, target / "filters.png")
            yield filter_figure(pictures, member.network)


@functools.cache  # pages are written again after every training
def _pictures(network: Path) -> "FilterPictures":
    import torch

    from dacnn_search.export.classifier import load_model
    from dacnn_search.paper.filters import visualise

    torch.set_num_threads(1)  # the other cores train
    return visualise(load_model(network))


def _curves(dataset: str, members: Sequence[Member], results: Results) -> go.Figure:
    """Draw the test error by epoch, a line per training; free weights are dashed, in their counterparts' colours."""
    free = [member.network for member in members if _family(member.network) == "free weights"]
    shared = [member.network for member in members if member.network not in free]
    points = [
        (member.network, record["seed"], epoch, None if accuracy is None else 100 * (1 - accuracy))
        for member in members
        for record in results.records[member]
        for epoch, accuracy in enumerate(record["curve"]["test_accuracy"], 1)
    ]
    frame = pd.DataFrame(points, columns=["network", "seed", "epoch", "test error (%)"])
    epochs = frame["epoch"].nunique()
    colours = {name: colour for names in (shared, free) for name, colour in zip(names, COLOURS, strict=False)}
    axes = {"x": "epoch", "y": "test error (%)", "color": "network", "line_group": "seed"}
    layout = {"title": f"Test error on {dataset}", "height": 520, **LOOK}
    figure = px.line(frame, **axes, color_discrete_map=colours, markers=epochs == 1, **layout)
    figure.for_each_trace(lambda line: line.update(line_dash="dash" if line.name in free else "solid"))
    return figure.update_layout(legend_title_text="").update_xaxes(dtick=1 if epochs <= 15 else None)


def _sizes(rows: Sequence[Row], published: str) -> go.Figure:
    """Draw the parameters, as on the right of figure 4."""
    frame = pd.DataFrame(rows).rename(columns={"parameters": "ours", "published parameters": published})
    colours = {"ours": OURS, published: "#e3b08c"}
    layout = {"title": "Parameters", "height": 120 + 50 * len(rows), "barmode": "group", **LOOK}
    labels = {"value": "parameters", "network": "", "variable": ""}
    figure = px.bar(frame, x=list(colours), y="network", color_discrete_map=colours, labels=labels, **layout)
    return figure.update_yaxes(autorange="reversed")


def _family(network: str) -> str:
    """Return what a network of the zoo shares, a key of `FAMILIES`."""
    if network.startswith(("free", "vgg", "resnet")):
        return "free weights"
    kind = "mixed" if "-mix" in network else "plain"
    return f"{kind} with regulators" if "-reg" in network and not network.endswith("-reg-none") else kind
