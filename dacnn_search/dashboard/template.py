"""The pages and the figure are Jinja templates in `assets/`; every value is escaped unless a template says `safe`."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dacnn_search.common.units import format_count

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["ASSETS", "render"]

ASSETS = Path(__file__).parent / "assets"


def render(name: str, **values: Any) -> str:
    """Return a template filled in with `values`. Its filters `tojson` and `count` write JSON and `1.2 k`."""
    return _environment().get_template(name).render(values)


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # not at the top: --help answers without it

    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    environment.filters["count"] = format_count
    return environment
