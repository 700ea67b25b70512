"""A page of notes, Plotly figures and a table: one file that opens without a network."""

import html
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

import plotly.graph_objects as go
import plotly.io

__all__ = ["html_page"]

CODE = re.compile("`([^`]*)`")
NUMBER = re.compile(r"([+-]?[\d,]+(\.\d+)?)?")


def html_page(
    title: str,
    notes: Sequence[str],
    figures: Sequence[go.Figure],
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None,
) -> str:
    """Return a page that includes Plotly. Notes may hold Markdown's `code`. `table` is columns, and cells by row."""
    config = {"displaylogo": False, "showSendToCloud": False}  # no button that uploads a figure
    parts = [
        plotly.io.to_html(figure, config, full_html=False, include_plotlyjs=index == 0, div_id=f"figure{index + 1}")
        for index, figure in enumerate(figures)
    ]
    parts += [_html_table(*table)] if table else []
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    wide = "\n".join(f'<div class="wide">{part}</div>' for part in parts)  # each scrolls sideways on a narrow page
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), notes=CODE.sub(r"<code>\1</code>", items), parts=wide)


def _html_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    numbers = [all(NUMBER.fullmatch(value) for value in column) for column in zip(*cells, strict=True)]

    def line(tag: str, values: Sequence[str]) -> str:
        opened = (f'<{tag} class="number">' if number else f"<{tag}>" for number in numbers)
        return f"<tr>{''.join(a + html.escape(b) + f'</{tag}>' for a, b in zip(opened, values, strict=True))}</tr>"

    return f"<table>{line('th', columns)}{''.join(line('td', values) for values in cells)}</table>"
