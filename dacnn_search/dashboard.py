"""`dashboard.html`: one self-contained page per run, made from its ledger; an index of runs; a comparison of runs.

A page makes no request and runs under a content-security policy that names its own scripts by hash. Whatever a user
or an error message wrote enters it as JSON and is shown as text only.
"""

import base64
import functools
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dacnn_search.dashboard_data import read_run, run_payload
from dacnn_search.files import write_atomic

__all__ = ["content_security_policy", "write_comparison", "write_dashboard", "write_index"]

ASSETS = Path(__file__).parent / "dashboard_page"
RUN_SCRIPTS = ("base.js", "network.js", "card.js", "table.js", "front.js", "plots.js", "main.js")


def write_dashboard(folder: Path) -> Path:
    """Write `dashboard.html` of a run directory, whole or not at all, and return its path.

    Cheap enough to be called during a run. Raises RunDirectoryError if `folder` is not a run directory or is damaged.
    """
    run = read_run(folder)
    path = folder / "dashboard.html"
    write_atomic(path, _page("page.html", run.name, run_payload(run), RUN_SCRIPTS))
    return path


def _page(template: str, title: str, payload: Mapping[str, Any], scripts: Sequence[str]) -> str:
    """A page with its scripts: first ours, which fills in everything but the plots; then Plotly; then the plots."""
    own = "\n".join(_asset(name) for name in scripts)
    parts = [f"{own}\nstart();\n", _plotly(), "drawPlots();"]
    policy = content_security_policy([_script_hash(part) for part in parts])
    values = {
        "policy": html.escape(policy),
        "title": html.escape(title),
        "style": _asset("page.css"),
        "payload": json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "scripts": "\n".join(f"<script>{part}</script>" for part in parts),
    }
    return _fill(_asset(template), values)


def content_security_policy(script_hashes: Sequence[str]) -> str:
    """What a page may do: run the scripts with these hashes, style itself, show images that it made. Nothing else."""
    scripts = " ".join(f"'{one}'" for one in script_hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Replace each `{{name}}`, in one pass: what is filled in is not looked at again."""
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        filled += [values[name], rest]
    return "".join(filled)


@functools.cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


@functools.cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@functools.lru_cache(maxsize=16)
def _script_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
