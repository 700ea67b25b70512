"""`dashboard.html`, one self-contained page per run made from its ledger; the index of all runs; comparisons.

A page makes no request and runs under a content-security policy that names its own scripts by hash. Texts of users
and error messages enter it as JSON and are shown as text only.
"""

import base64
import functools
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dacnn_search.common.errors import InputError, RunDirectoryError
from dacnn_search.common.files import write_atomic
from dacnn_search.common.units import format_count
from dacnn_search.dashboard.comparison import comparison_payload
from dacnn_search.dashboard.figure import front_figure, rasterised, thumbnail
from dacnn_search.dashboard.payload import run_payload, shown_data
from dacnn_search.storage.front import Record
from dacnn_search.storage.run_directory import RunDirectory

__all__ = ["runs_in", "write_comparison", "write_dashboard", "write_figure", "write_index"]

ASSETS = Path(__file__).parent / "assets"
RUN_SCRIPTS = ("base.js", "network.js", "card.js", "table.js", "front.js", "plots.js", "budget.js", "main.js")
COMPARISON_SCRIPTS = ("base.js", "comparison.js")


def write_dashboard(folder: Path) -> Path:
    """Write `dashboard.html` of a run directory, whole or not at all, and return its path.

    Cheap enough to be called during a run. Raises RunDirectoryError if `folder` is not a run directory or is
    damaged.
    """
    run = RunDirectory.snapshot(folder)
    return _write(folder / "dashboard.html", _page("page.html", run.name, run_payload(run), RUN_SCRIPTS))


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Write a page that compares runs to `out` and return it. Raises RunDirectoryError as `write_dashboard` does."""
    runs = [RunDirectory.snapshot(folder) for folder in folders]
    title = f"{len(runs)} runs compared"
    return _write(out, _page("comparison.html", title, comparison_payload(runs), COMPARISON_SCRIPTS))


def write_index(results: Path) -> Path:
    """Write `index.html`, a page that lists the runs in `results`, latest first, and return its path.

    A run that is damaged is listed with what is wrong. Raises RunDirectoryError if there is no run.
    """
    folders = runs_in(results)
    if not folders:
        raise RunDirectoryError(f"{results}: a folder of runs must hold a run directory, but this one holds none")
    rows = sorted((_index_row(folder, _change_times(folder)) for folder in folders), reverse=True)
    values = {
        "policy": html.escape(_policy([])),
        "style": _asset("page.css"),
        "rows": "\n".join(row for _, row in rows),
    }
    return _write(results / "index.html", _fill(_asset("index.html"), values))


def write_figure(folder: Path, out: Path) -> Path:
    """Write the front of a run as a figure to `out`, an .svg or, where there is a browser, a .png, and return it.

    Raises InputError for other kinds of file, or if a PNG can't be drawn.
    """
    if out.suffix not in (".svg", ".png"):
        raise InputError(f"--image must end in .svg or .png, but is {out}")
    figure = front_figure(RunDirectory.snapshot(folder))
    return _write(out, rasterised(figure) if out.suffix == ".png" else figure)


def runs_in(results: Path) -> list[Path]:
    """Return the run directories in a folder."""
    return [file.parent for file in results.glob("[!.]*/environment.json")]


def _write(path: Path, content: str | bytes) -> Path:
    try:
        write_atomic(path, content)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from error
    return path


def _page(template: str, title: str, payload: Mapping[str, Any], scripts: Sequence[str]) -> str:
    """Return a page with its scripts: ours, which fill in everything but the plots; then Plotly; then the plots."""
    own = "\n".join(_asset(name) for name in scripts)
    parts = [f"{own}\nstart();\n", _plotly(), "drawPlots();"]
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    values = {
        "policy": html.escape(_policy([_script_hash(part) for part in parts])),
        "title": html.escape(title),
        "style": _asset("page.css"),
        "payload": text.replace("<", "\\u003c"),
        "scripts": "\n".join(f"<script>{part}</script>" for part in parts),
    }
    return _fill(_asset(template), values)


def _policy(script_hashes: Sequence[str]) -> str:
    """Return the rights of a page: run the scripts with these hashes, style itself, show images it made. No others."""
    scripts = " ".join(f"'{one}'" for one in script_hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Replace each `{{name}}`, in one pass: a value is not searched for further names."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def _change_times(folder: Path) -> tuple[int, ...]:
    """Return when the files changed that a row of the index is made of."""
    files = (folder / name for name in ("environment.json", "trials.jsonl", "status.json", "dashboard.html"))
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


@functools.lru_cache(maxsize=1000)
def _index_row(folder: Path, change_times: tuple[int, ...]) -> tuple[str, str]:
    """Return when a run started, and its row of the index. Cached by the change times of its files, as the index is
    rewritten during a search."""
    try:
        run = RunDirectory.snapshot(folder)
    except RunDirectoryError as error:
        return "", _row(html.escape(folder.name), "", "", f'<span class="bad">{html.escape(str(error))}</span>', "")
    started = str(run.environment.get("started") or "")
    target = "dashboard.html" if (folder / "dashboard.html").exists() else ""
    link = f'<a href="{html.escape(quote(folder.name))}/{target}">{html.escape(run.name)}</a>'
    state = f'<span class="pill">{html.escape(str(run.status.get("state", "unknown")))}</span>'
    trials = f"{len(run.records):,} trials<br>{html.escape(started[:16].replace('T', ' '))}"
    words = (shown_data(run.data).get("name"), run.environment.get("description"))
    about = [link, *(html.escape(str(text)) for text in words if text)]
    return started, _row("<br>".join(about), state, trials, _best(run.front), thumbnail(run.front))


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _best(front: Sequence[Record]) -> str:
    """Return the smallest, a middle and the most accurate network of a front in words."""
    if not front:
        return "no front yet"
    chosen = {0: None, len(front) // 2: None, len(front) - 1: None}
    lines = [f"{100 * front[i]['accuracy']:.1f}% with {format_count(front[i]['parameters'])}" for i in chosen]
    return "<br>".join(lines)


@functools.cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


@functools.cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # not at the top: --help answers without it

    return str(get_plotlyjs())


@functools.lru_cache(maxsize=16)
def _script_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
