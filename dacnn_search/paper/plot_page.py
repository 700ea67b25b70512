"""A page of notes, Plotly figures and a table: one file that opens without a network."""

import html
import re
from collections.abc import Sequence

import plotly.graph_objects as go
import plotly.io

__all__ = ["Table", "html_page"]

NUMBER = re.compile(r"([+-]?[\d,]+(\.\d+)?)?")
Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # columns, and cells row by row

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:70rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:12px}td,th{border-bottom:1px solid #ddd;padding:.2rem .6rem .2rem 0;"
    "text-align:left;vertical-align:top}.number{text-align:right}h1{font-size:1.4rem}"
    "td:last-child:not(.number){min-width:6rem}"
    "li{margin:.15rem 0;overflow-wrap:anywhere}.wide{overflow-x:auto}.wide .plotly-graph-div{min-width:40rem}"
)


def html_page(title: str, notes: Sequence[str], figures: Sequence[go.Figure], table: Table | None = None) -> str:
    """A page with a title, notes (Markdown's `code` in them), figures and a table; Plotly is part of it."""
    parts = [
        _wide(plotly.io.to_html(figure, full_html=False, include_plotlyjs=index == 0, div_id=f"figure{index + 1}"))
        for index, figure in enumerate(figures)
    ]
    listed = [re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(note)) for note in notes]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width'><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style></head><body>\n<h1>{html.escape(title)}</h1>\n<ul><li>{'</li><li>'.join(listed)}</li></ul>\n"
        + "\n".join(parts)
        + ("" if table is None else _wide(_html_table(*table)))
        + "\n</body></html>\n"
    )


def _html_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    numbers = [all(NUMBER.fullmatch(value) for value in column) for column in zip(*cells, strict=True)]

    def line(tag: str, values: Sequence[str]) -> str:
        opened = (f"<{tag} class='number'>" if number else f"<{tag}>" for number in numbers)
        return f"<tr>{''.join(a + html.escape(b) + f'</{tag}>' for a, b in zip(opened, values, strict=True))}</tr>"

    return f"\n<table>{line('th', columns)}{''.join(line('td', values) for values in cells)}</table>"


def _wide(part: str) -> str:
    """A part that scrolls sideways where the page is narrow."""
    return f"<div class='wide'>{part}</div>"
