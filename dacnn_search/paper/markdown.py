"""Tables in Markdown."""

from collections.abc import Collection, Iterable, Sequence

__all__ = ["markdown_table"]


def markdown_table(columns: Sequence[str], rows: Iterable[Iterable[object]], right: Collection[str] = ()) -> str:
    """Return a table; a cell that is None is empty, and the columns named in `right` are aligned to the right."""
    lines = [_line(columns), "|" + "".join("---:|" if column in right else "---|" for column in columns)]
    return "\n".join([*lines, *map(_line, rows)]) + "\n"


def _line(cells: Iterable[object]) -> str:
    texts = ("" if cell is None else str(cell).replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(texts) + " |"
