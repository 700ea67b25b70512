"""The pages and the figure are Jinja templates in `assets/`; every value is escaped unless a template says `safe`."""

import base64
import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dacnn_search.common.templates import template_environment
from dacnn_search.common.units import format_bytes, format_count

if TYPE_CHECKING:
    from jinja2 import Environment

ASSETS = Path(__file__).parent / "assets"


def render(name: str, **values: Any) -> str:
    """Return a template filled in with `values`.

    Its filters: `tojson` writes JSON, `count` `1.2 k`, `bytes` `1.2 kB`, `asset` returns the text of an asset or of
    Plotly, `hash` what a content-security policy names a script by.
    """
    return _environment().get_template(name).render(values)


@functools.cache
def _environment() -> "Environment":
    environment = template_environment(ASSETS, autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    environment.filters.update(count=format_count, bytes=format_bytes, asset=_asset, hash=_hash)
    return environment


@functools.cache
def _asset(name: str) -> str:
    if name == "plotly.js":
        from plotly.offline import get_plotlyjs  # not at the top: --help answers without it

        return str(get_plotlyjs())
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
