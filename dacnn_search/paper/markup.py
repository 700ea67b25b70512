"""Tables in Markdown, and HTML pages of notes, Plotly figures and a table."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def markdown_table(rows: Sequence[Mapping[str, object]], right: Collection[str] = ()) -> str:
    """Return a table; a cell that is None is empty, and the columns named in `right` are aligned to the right."""
    columns = list(rows[0])
    cells = [["" if cell is None else str(cell).replace("|", "\\|") for cell in row.values()] for row in rows]
    header, *body = (f"| {' | '.join(line)} |\n" for line in (columns, *cells))
    return "".join([header, "|", *("---:|" if name in right else "---|" for name in columns), "\n", *body])


def html_page(title: str, notes: Iterable[str], figures: Iterable[Any], table: Sequence[Mapping[str, str]] = ()) -> str:
    """Return a page that opens without a network: notes, which may hold Markdown's `code`, figures and a table."""
    from jinja2 import Template  # here, since --compress needs no page

    config = {"displaylogo": False, "showSendToCloud": False}  # no button that uploads a figure
    plots = [
        figure.to_html(config, full_html=False, include_plotlyjs=index == 0, div_id=f"figure{index + 1}")
        for index, figure in enumerate(figures)
    ]
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return Template(text, autoescape=True, trim_blocks=True).render(title=title, notes=notes, plots=plots, table=table)
