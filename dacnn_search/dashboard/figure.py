"""The front as a static figure for papers, SVG or PNG, and as a thumbnail for the index of runs."""

import html
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dacnn_search.common.errors import InputError
from dacnn_search.common.units import format_count
from dacnn_search.storage.front import Record
from dacnn_search.storage.run_directory import RunDirectory

__all__ = ["front_figure", "rasterised", "thumbnail"]

FRONT, FINISHED, TEST, REFERENCE, INK, GRID = "#0072b2", "#9fbfd3", "#d55e00", "#9a4a78", "#222222", "#dddddd"
WIDTH, HEIGHT = 640, 420  # of the figure, in pixels
PIXEL_RATIO = 3  # of a PNG
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
MAC_BROWSER = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
FONT = "font-family='Helvetica, Arial, sans-serif'"


@dataclass(frozen=True)
class _Frame:
    """The area of a plot in pixels, and the ranges of parameters (log scale) and accuracies that it shows."""

    left: float
    right: float
    top: float
    bottom: float
    sizes: tuple[float, float]
    accuracies: tuple[float, float]

    def x(self, parameters: float) -> float:
        low, high = (math.log(size) for size in self.sizes)
        return round(self.left + (math.log(parameters) - low) / (high - low) * (self.right - self.left), 1)

    def y(self, accuracy: float) -> float:
        low, high = self.accuracies
        clipped = min(max(accuracy, low), high)
        return round(self.bottom - (clipped - low) / (high - low) * (self.bottom - self.top), 1)


def front_figure(run: RunDirectory) -> str:
    """Draw accuracy against parameters of a run as an SVG of 640 x 420: the front, the finished trials, test accuracies
    of the retrained networks (means over the seeds), reference points."""
    front = run.front
    finished = [r for r in run.records if r["state"] == "COMPLETE"]
    tests = [network for network in run.networks if network.tested]
    known = [r for r in run.environment.get("references") or [] if r.get("accuracy") is not None]
    sizes = [r["parameters"] for r in [*finished, *known]] or [100, 1000]
    accuracies = [r["accuracy"] for r in [*front, *known]] + [network.accuracy for network in tests] or [0.0, 1.0]
    span = max(max(accuracies) - min(accuracies), 0.01)
    limits = (min(accuracies) - 0.1 * span, max(accuracies) + 0.08 * span)
    frame = _Frame(64, 620, 16, 364, (min(sizes) / 1.3, max(sizes) * 1.3), limits)
    shapes = [*_axes(frame), *_dots(frame, [r for r in finished if r["accuracy"] >= limits[0]], FINISHED, 2.5)]
    shapes.append(_staircase(frame, front, FRONT, 1.75))
    shapes += [_diamond(frame.x(r["parameters"]), frame.y(r["accuracy"]), FRONT) for r in front]
    for network in tests:
        x, y = frame.x(network.parameters), frame.y(network.accuracy)
        shapes.append(f"<rect x='{x - 3.5}' y='{y - 3.5}' width='7' height='7' fill='{TEST}'/>")
    for r in known:
        x, y = frame.x(r["parameters"]), frame.y(r["accuracy"])
        shapes.append(f"<circle cx='{x}' cy='{y}' r='4' fill='none' stroke='{REFERENCE}' stroke-width='1.5'/>")
        shapes.append(_text(x - 7, y + 4, r["name"], "end", REFERENCE))
    return _document(f"{run.name}: accuracy against parameters", [*shapes, *_legend(bool(tests), bool(known))])


def thumbnail(front: Sequence[Record]) -> str:
    """Draw a front as an SVG of 160 x 56 for an HTML page that defines the colour `--front`."""
    if not front:
        return ""
    sizes, accuracies = [r["parameters"] for r in front], [r["accuracy"] for r in front]
    span = max(max(accuracies) - min(accuracies), 0.005)
    limits = (min(accuracies) - 0.05 * span, max(accuracies))
    frame = _Frame(5, 155, 6, 50, (min(sizes) / 1.2, max(sizes) * 1.2), limits)
    dots = _dots(frame, front, "var(--front)", 2.2)
    label = f"Front from {format_count(min(sizes))} to {format_count(max(sizes))} parameters"
    return (
        f"<svg viewBox='0 0 160 56' width='160' height='56' role='img' aria-label='{label}'>"
        f"{_staircase(frame, front, 'var(--front)', 1.5)}{''.join(dots)}</svg>"
    )


def rasterised(figure: str) -> bytes:
    """Draw a figure as a PNG of 1920 x 1260 with Chromium or Chrome. Raises InputError if there is none."""
    browser = next((path for name in (*BROWSERS, MAC_BROWSER) if (path := shutil.which(name))), None)
    if browser is None:
        raise InputError("a PNG is drawn by Chromium or Chrome, but neither is on the PATH; an .svg needs no browser")
    with tempfile.TemporaryDirectory(prefix="dacnn-search-") as name:
        source, target = Path(name, "figure.svg"), Path(name, "figure.png")
        source.write_text(figure, encoding="utf-8")
        command = [browser, "--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={name}/profile"]
        command += [f"--window-size={WIDTH},{HEIGHT}", f"--force-device-scale-factor={PIXEL_RATIO}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # with it, the browser refuses to run as root; the page is our own figure
        try:
            command += [f"--screenshot={target}", source.as_uri()]
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"{browser} must draw the PNG, but: {error}") from error
        if not target.exists():
            raise InputError(f"{browser} must draw the PNG, but ended with code {done.returncode} and without it")
        return target.read_bytes()


def _document(title: str, shapes: Sequence[str]) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' "
        f"{FONT} font-size='12'><title>{html.escape(title)}</title>"
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>\n" + "\n".join(shapes) + "\n</svg>\n"
    )


def _axes(frame: _Frame) -> list[str]:
    shapes = []
    for decade in range(math.floor(math.log10(frame.sizes[0])), math.ceil(math.log10(frame.sizes[1])) + 1):
        for parameters in (step * 10.0**decade for step in (1, 2, 5)):
            if frame.sizes[0] <= parameters <= frame.sizes[1]:
                x = frame.x(parameters)
                shapes.append(f"<path d='M{x} {frame.top}V{frame.bottom}' stroke='{GRID}'/>")
                shapes.append(_text(x, frame.bottom + 17, _short(parameters)))
    low, high = frame.accuracies
    step = next(s for s in (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1) if (high - low) / s <= 8)
    for tick in range(math.ceil(low / step), math.floor(high / step) + 1):
        y = frame.y(tick * step)
        shapes.append(f"<path d='M{frame.left} {y}H{frame.right}' stroke='{GRID}'/>")
        shapes.append(_text(frame.left - 7, y + 4, f"{100 * tick * step:.{1 if step < 0.01 else 0}f}%", "end"))
    shapes.append(_text((frame.left + frame.right) / 2, frame.bottom + 36, "parameters"))
    shapes.append(
        f"<g transform='translate(16 {(frame.top + frame.bottom) / 2}) rotate(-90)'>{_text(0, 0, 'accuracy')}</g>"
    )
    return shapes


def _short(parameters: float) -> str:
    for unit, letter in ((1e6, " M"), (1e3, " k")):
        if parameters >= unit:
            return f"{parameters / unit:g}{letter}"
    return f"{parameters:,.0f}"


def _dots(frame: _Frame, records: Sequence[Record], color: str, radius: float) -> list[str]:
    return [
        f"<circle cx='{frame.x(r['parameters'])}' cy='{frame.y(r['accuracy'])}' r='{radius}' fill='{color}'/>"
        for r in records
    ]


def _staircase(frame: _Frame, front: Sequence[Record], color: str, width: float) -> str:
    """Draw the line along a front: the accuracy one can have with at most that many parameters."""
    if not front:
        return ""
    steps = "".join(f"H{frame.x(r['parameters'])}V{frame.y(r['accuracy'])}" for r in front[1:])
    start = f"M{frame.x(front[0]['parameters'])} {frame.y(front[0]['accuracy'])}"
    return f"<path d='{start}{steps}' fill='none' stroke='{color}' stroke-width='{width}'/>"


def _diamond(x: float, y: float, color: str) -> str:
    return f"<path d='M{x} {y - 5}l5 5l-5 5l-5 -5z' fill='{color}' stroke='white'/>"


def _legend(tests: bool, known: bool) -> list[str]:
    entries = [(FRONT, "front (validation)"), (FINISHED, "other finished trials")]
    entries += [(TEST, "test after full training")] * tests + [(REFERENCE, "reference")] * known
    shapes, x = [], 70.0
    for color, words in entries:
        shapes.append(f"<rect x='{x}' y='405' width='8' height='8' fill='{color}'/>")
        shapes.append(_text(x + 13, 413, words, "start"))
        x += 30 + 6.2 * len(words)
    return shapes


def _text(x: float, y: float, words: str, anchor: str = "middle", color: str = INK) -> str:
    return f"<text x='{x}' y='{y}' text-anchor='{anchor}' fill='{color}'>{html.escape(str(words))}</text>"
