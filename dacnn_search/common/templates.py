"""The Jinja templates of pages and of C code follow the same rules for whitespace and for names that are not given."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def template_environment(folder: Path, *, autoescape: bool = False) -> "Environment":
    """Return an environment for the templates in a folder. Values must be given, or rendering fails."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # not at the top: --help answers without it

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
