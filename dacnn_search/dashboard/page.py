"""`dashboard.html`, one self-contained page per run made from its ledger; the index of all runs; comparisons.

A page makes no request and runs under a content-security policy that names its own scripts by hash. Texts of users
and error messages enter it as JSON and are shown as text only.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dacnn_search.common.errors import InputError, RunDirectoryError
from dacnn_search.common.files import write_atomic
from dacnn_search.dashboard.comparison import comparison_payload
from dacnn_search.dashboard.figure import front_figure, rasterised, thumbnail_frame
from dacnn_search.dashboard.payload import run_payload, shown_data
from dacnn_search.dashboard.template import render
from dacnn_search.storage.run_directory import RunDirectory


def write_dashboard(folder: Path) -> Path:
    """Write `dashboard.html` of a run directory and return its path; cheap enough to be called during a run.

    Raises RunDirectoryError if `folder` is not a run directory or is damaged.
    """
    run = RunDirectory(folder, snapshot=True)
    return _write(folder / "dashboard.html", render("page.html", title=run.name, payload=run_payload(run)))


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Write a page that compares runs to `out` and return it. Raises RunDirectoryError as `write_dashboard` does."""
    runs = [RunDirectory(folder, snapshot=True) for folder in folders]
    return _write(out, render("comparison.html", title=f"{len(runs)} runs compared", payload=comparison_payload(runs)))


def write_index(results: Path) -> Path:
    """Write `index.html`, a page that lists the runs in `results`, latest first, and return its path.

    A run that is damaged is listed with what is wrong. Raises RunDirectoryError if there is no run.
    """
    folders = runs_in(results)
    if not folders:
        raise RunDirectoryError(f"{results}: a folder of runs must hold a run directory, but this one holds none")
    rows = [_index_row(folder, _change_times(folder)) for folder in folders]
    rows.sort(key=lambda row: (row["started"], row["folder"]), reverse=True)
    return _write(results / "index.html", render("index.html", title="Runs", rows=rows))


def write_figure(folder: Path, out: Path) -> Path:
    """Write the front of a run as a figure to `out`, an .svg or, where there is a browser, a .png, and return it.

    Raises InputError for other kinds of file, or if a PNG can't be drawn.
    """
    if out.suffix not in (".svg", ".png"):
        raise InputError(f"--image must end in .svg or .png, but is {out}")
    figure = front_figure(RunDirectory(folder, snapshot=True))
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


def _change_times(folder: Path) -> tuple[int, ...]:
    """Return when the files changed that a row of the index is made of."""
    files = (folder / name for name in ("environment.json", "trials.jsonl", "status.json", "dashboard.html"))
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


@functools.lru_cache(maxsize=1000)
def _index_row(folder: Path, change_times: tuple[int, ...]) -> dict[str, Any]:
    """Return what the index shows of a run; cached, as the index is rewritten during a search."""
    row: dict[str, Any] = {"folder": folder.name, "started": "", "error": None}
    try:
        run = RunDirectory(folder, snapshot=True)
    except RunDirectoryError as error:
        return row | {"error": error}
    front = run.front
    return row | {
        "link": f"{quote(folder.name)}/{'dashboard.html' if (folder / 'dashboard.html').exists() else ''}",
        "name": run.name,
        "about": [shown_data(run.data).get("name"), run.environment.get("description")],
        "state": run.status.get("state", "unknown"),
        "trials": len(run.records),
        "started": str(run.environment.get("started") or ""),
        "front": front,
        "objective": run.objective,
        "frame": thumbnail_frame(front, run.objective) if front else None,
    }
