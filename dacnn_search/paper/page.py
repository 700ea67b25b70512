"""The page of an experiment: its notes, its figures, its table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from dacnn_search.common.files import write_atomic
from dacnn_search.network.zoo import get
from dacnn_search.paper.experiments import Experiment
from dacnn_search.paper.markup import html_page
from dacnn_search.paper.report import Results, notes_of, rows_of, visible_cells, write_tables
from dacnn_search.paper.trainings import network_folder

OURS, PRINTED = "#0072b2", "#d55e00"
COLOURS = px.colors.qualitative.Safe
METHODS = {"DACNN": OURS, "Agent Pruning": "#009e73", "SM Pruning": "#cc79a7"}
FAMILIES = {  # kind of sharing -> colour
    "plain": OURS,
    "plain with regulators": "#56b4e9",
    "mixed": PRINTED,
    "mixed with regulators": "#e69f00",
    "free weights": "#7f7f7f",
}
SIDES = {"mixed": "left", "free weights": "center"}  # of a point, where its name stands; the others' on the right
LOOK = {"template": "plotly_white"}


def write_report(experiment: Experiment, results: Results, folder: Path) -> Path:
    """Write an experiment to a folder of its own below `folder`, and return it.

    It gets `comparison.csv`, `comparison.md`, `page.html`, and for figure 7 `filters.png`.
    """
    target = folder / (experiment.name + results.conditions.suffix)
    target.mkdir(exist_ok=True)
    rows = rows_of(experiment, results)
    notes = notes_of(experiment, results, rows)
    write_tables(experiment.heading, notes, rows, target)
    figures = _figures(experiment, results, pd.DataFrame(rows), target)
    write_atomic(target / "page.html", html_page(experiment.heading, notes, figures, visible_cells(rows)))
    return target


def _figures(experiment: Experiment, results: Results, table: pd.DataFrame, target: Path) -> Iterator[go.Figure]:
    published = "published (full version)" if results.conditions.changes else "published"
    if experiment.kind in COMPARISONS:
        yield COMPARISONS[experiment.kind](table, published)
    if experiment.kind == "filters":
        yield from _filters(experiment, results, target)
    for dataset in experiment.datasets:
        yield _curves(experiment, results, dataset)
    if experiment.name == "figure-4":
        yield _sizes(table, published)


def _pruning(table: pd.DataFrame, published: str) -> go.Figure:
    """Draw the accuracy drop against the prune ratio: good methods are at the bottom right."""
    kinds = table["method"].str.extract(f"^({'|'.join(METHODS)})", expand=False)
    table = table.assign(model=table["method"], kind=kinds)
    x, y = ("prune ratio", "published ratio"), ("accuracy drop", "published drop")
    look = {"color": "kind", "color_discrete_map": METHODS, "title": "Compression against ResNet-18", "height": 480}
    return _compared(table, published, {"prune ratio (%)": x, "accuracy drop (points)": y}, **look)


def _errors(table: pd.DataFrame, published: str) -> go.Figure:
    """Draw our error and the published one of each network, with a line between them."""
    several = table["data"].nunique() > 1
    table = table.assign(**{"": table["network"] + ("<br>on " + table["data"] if several else "")})
    axes = {"test error (%)": ("error", "published error"), "": ("", "")}
    look = {"color": "source", "color_discrete_map": {"ours": OURS, published: PRINTED}}
    layout = {"title": "Test error, ours and published", "height": 150 + 34 * len(table)}
    figure = _compared(table, published, axes, **look, **layout)
    trained = table.dropna(subset="error")
    for network, ours, printed in trained[["", "error", "published error"]].itertuples(index=False):
        ends = {"x0": ours, "x1": printed, "y0": network, "y1": network}
        figure.add_shape(type="line", **ends, line_color="#cccccc", layer="below")
    deviations = trained["standard deviation"]
    figure.update_traces(error_x={"array": deviations, "visible": bool(deviations.any())}, selector={"name": "ours"})
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=table[""])
    return figure.update_traces(mode="markers")


def _efficiency(table: pd.DataFrame, published: str) -> go.Figure:
    """Draw the error against the parameters, as figure 5 does: good networks are at the bottom left."""
    table = table.assign(family=table["network"].map(_family))
    axes = {"parameters ": ("parameters", "published parameters"), "test error (%)": ("error", "published error")}
    look = {"color": "family", "color_discrete_map": FAMILIES, "title": "Error against parameters", "height": 560}
    figure = _compared(table, published, axes, **look)
    for family in FAMILIES:
        side = f"top {SIDES.get(family, 'right')}"
        figure.update_traces(textposition=side, selector={"name": f"{family}, ours"})
    return figure.update_xaxes(type="log", dtick=1)


def _compared(table: pd.DataFrame, published: str, axes: dict[str, tuple[str, str]], **look: Any) -> go.Figure:
    """Draw points, ours filled and named, the published hollow. `axes` has our and the published column by title."""
    ours, printed = (
        table.assign(source=source, **{title: table[columns[index]] for title, columns in axes.items()})
        for index, source in enumerate(("ours", published))
    )
    points = pd.concat([ours, printed.assign(network="")]).dropna(subset=list(axes))
    x, y = axes
    symbols = {"ours": "circle", published: "circle-open"}
    names = {"text": "network", "hover_name": "model"}
    figure = px.scatter(points, x=x, y=y, symbol="source", symbol_map=symbols, **names, **look, **LOOK)
    figure.update_traces(marker={"size": 10, "opacity": 1}, textposition="top center", cliponaxis=False)
    return figure.update_layout(legend_title_text="")


COMPARISONS = {"table": _errors, "efficiency": _efficiency, "pruning": _pruning}


def _filters(experiment: Experiment, results: Results, target: Path) -> Iterator[go.Figure]:
    """Draw the filters of each network that is trained, and write them to `filters.png`."""
    from dacnn_search.paper.filters import filter_figure, picture_network, write_png

    for member in experiment.members:
        records = [record for record in results.records[member] if record["reason"] is None]
        if records:
            pictures = picture_network(network_folder(target.parent, records[0]))
            write_png(pictures, target / "filters.png")
            yield filter_figure(pictures, member.network)


def _curves(experiment: Experiment, results: Results, dataset: str) -> go.Figure:
    """Draw the test error by epoch, a line per training; free weights are dashed, in their counterparts' colours."""
    members = [member for member in experiment.members if member.dataset == dataset]
    points = [
        (member.network, record["seed"], epoch, None if accuracy is None else 100 * (1 - accuracy))
        for member in members
        for record in results.records[member]
        for epoch, accuracy in enumerate(record["curve"]["test_accuracy"], 1)
    ]
    frame = pd.DataFrame(points, columns=["network", "seed", "epoch", "test error (%)"])
    free = [member.network for member in members if _family(member.network) == "free weights"]
    shared = [member.network for member in members if member.network not in free]
    colours = {name: colour for names in (shared, free) for name, colour in zip(names, COLOURS, strict=False)}
    axes = {"x": "epoch", "y": "test error (%)", "color": "network", "line_group": "seed"}
    layout = {"title": f"Test error on {dataset}", "height": 520, **LOOK}
    epochs = frame["epoch"].nunique()
    figure = px.line(frame, **axes, color_discrete_map=colours, markers=epochs == 1, **layout)
    figure.for_each_trace(lambda line: line.update(line_dash="dash" if line.name in free else "solid"))
    return figure.update_layout(legend_title_text="").update_xaxes(dtick=1 if epochs <= 15 else None)


def _sizes(table: pd.DataFrame, published: str) -> go.Figure:
    """Draw the parameters, as on the right of figure 4."""
    frame = table.rename(columns={"parameters": "ours", "published parameters": published})
    colours = {"ours": OURS, published: "#e3b08c"}
    layout = {"title": "Parameters", "height": 120 + 50 * len(table), "barmode": "group", **LOOK}
    labels = {"value": "parameters", "network": "", "variable": ""}
    figure = px.bar(frame, x=list(colours), y="network", color_discrete_map=colours, labels=labels, **layout)
    return figure.update_yaxes(autorange="reversed")


def _family(network: str) -> str:
    """Return what a network of the zoo shares, a key of `FAMILIES`."""
    architecture = get(network)
    kind = {"network": "plain", "section": "mixed", "none": "free weights"}[architecture.sharing]
    regulated = any(section.regulators != "none" for section in architecture.sections)
    return f"{kind} with regulators" if regulated else kind
