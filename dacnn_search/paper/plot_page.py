"""A page of notes, Plotly figures and a table: one file that opens without a network."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

import pandas as pd
import plotly.graph_objects as go

__all__ = ["html_page"]

CODE = re.compile("`([^`]*)`")


def html_page(
    title: str, notes: Iterable[str], figures: Iterable[go.Figure], table: Sequence[Mapping[str, str]] = ()
) -> str:
    """Return a page that includes Plotly. Notes may hold Markdown's `code`; `table` has the cells by row and column."""
    config = {"displaylogo": False, "showSendToCloud": False}  # no button that uploads a figure
    parts = [
        figure.to_html(config, full_html=False, include_plotlyjs=index == 0, div_id=f"figure{index + 1}")
        for index, figure in enumerate(figures)
    ]
    parts += [pd.DataFrame(table).to_html(index=False, border=0)] if table else []
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    wide = "\n".join(f'<div class="wide">{part}</div>' for part in parts)  # each scrolls sideways on a narrow page
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), notes=CODE.sub(r"<code>\1</code>", items), parts=wide)
