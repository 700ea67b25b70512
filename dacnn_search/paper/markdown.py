"""Tables in Markdown."""

from collections.abc import Collection, Mapping, Sequence

__all__ = ["markdown_table"]


def markdown_table(rows: Sequence[Mapping[str, object]], right: Collection[str] = ()) -> str:
    """Return a table; a cell that is None is empty, and the columns named in `right` are aligned to the right."""
    columns = list(rows[0])
    cells = [["" if cell is None else str(cell).replace("|", "\\|") for cell in row.values()] for row in rows]
    header, *body = (f"| {' | '.join(line)} |\n" for line in (columns, *cells))
    return "".join([header, "|", *("---:|" if name in right else "---|" for name in columns), "\n", *body])
