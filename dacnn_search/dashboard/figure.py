"""The front as a static figure for papers, SVG or PNG, and the frame of its thumbnail in the index of runs."""

import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dacnn_search.common.errors import InputError
from dacnn_search.common.units import format_count
from dacnn_search.dashboard.template import render
from dacnn_search.network.cost import UNITS
from dacnn_search.storage.front import Record
from dacnn_search.storage.run_directory import RunDirectory

WIDTH, HEIGHT = 640, 420  # of the figure, in pixels
LETTER, CAPITAL = 5.6, 8.3  # widths, on average
PIXEL_RATIO = 3  # of a PNG
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
MAC_BROWSER = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
SIZE_TICKS = [step * 10**decade for decade in range(12) for step in (1, 2, 5)]
ACCURACY_STEPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)  # between ticks


@dataclass(frozen=True)
class _Frame:
    """The area of a plot in pixels, and the ranges of size (log scale) and accuracy that it shows."""

    left: float
    right: float
    top: float
    bottom: float
    sizes: tuple[float, float]
    accuracies: tuple[float, float]
    objective: str  # what size is

    def x(self, size: float) -> float:
        return round(float(np.interp(math.log(size), np.log(self.sizes), (self.left, self.right))), 1)

    def y(self, accuracy: float) -> float:
        return round(float(np.interp(accuracy, self.accuracies, (self.bottom, self.top))), 1)

    def staircase(self, front: Sequence[Record]) -> str:
        """Return the line along a front: the accuracy one can have with at most that size."""
        points = [(self.x(r[self.objective]), self.y(r["accuracy"])) for r in front]
        return f"M{points[0][0]} {points[0][1]}" + "".join(f"H{x}V{y}" for x, y in points[1:])

    def size_ticks(self) -> list[tuple[float, str]]:
        low, high = self.sizes
        return [(tick, re.sub(r"\.0+", "", format_count(tick))) for tick in SIZE_TICKS if low <= tick <= high]

    def accuracy_ticks(self) -> list[tuple[float, str]]:
        low, high = self.accuracies
        step = next(step for step in ACCURACY_STEPS if (high - low) / step <= 8)
        ticks = [step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)]
        return [(tick, f"{100 * tick:.{1 if step < 0.01 else 0}f}%") for tick in ticks]


@dataclass(frozen=True)
class _Label:
    """A name beside its point, in pixels: it starts or ends (`anchor`) beside the point, `shift` lower than it."""

    name: str
    point: tuple[float, float]
    anchor: str
    shift: int

    @property
    def x(self) -> float:
        return self.point[0] + (7 if self.anchor == "start" else -7)

    @property
    def y(self) -> float:
        return self.point[1] + 4 + self.shift

    def covers(self, left: float, top: float, right: float, bottom: float) -> float:
        """Return the area that the name and a box share."""
        own = self.box
        width, height = min(own[2], right) - max(own[0], left), min(own[3], bottom) - max(own[1], top)
        return max(width, 0) * max(height, 0)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the name."""
        width = sum(CAPITAL if letter.isupper() else LETTER for letter in self.name)
        left = self.x - (0 if self.anchor == "start" else width)
        return left, self.y - 11, left + width, self.y + 3


def front_figure(run: RunDirectory) -> str:
    """Draw a run as an SVG (640 x 420): front, finished trials, mean test accuracies if retrained, references."""
    front = run.front
    finished = [r for r in run.records if r["state"] == "COMPLETE"]
    tests = [network for network in run.networks if network.tested]
    references = run.environment.get("references") or []  # whose flash nobody knows
    known = [r for r in references if r.get("accuracy") is not None and run.objective in r]
    sizes = [r[run.objective] for r in [*finished, *known]] or [100, 1000]
    accuracies = [r["accuracy"] for r in [*front, *known]] + [network.accuracy for network in tests] or [0.0, 1.0]
    span = max(max(accuracies) - min(accuracies), 0.01)
    limits = (min(accuracies) - 0.1 * span, max(accuracies) + 0.08 * span)
    frame = _Frame(64, 620, 16, 364, (min(sizes) / 1.3, max(sizes) * 1.3), limits, run.objective)
    about = {"run": run, "width": WIDTH, "height": HEIGHT, "size_words": UNITS[run.objective]}
    drawn = [(r[run.objective], r["accuracy"]) for r in [*known, *front]] + [(n.size, n.accuracy) for n in tests]
    labels = _place_labels([r["name"] for r in known], [(frame.x(size), frame.y(height)) for size, height in drawn])
    return render("figure.svg", **about, frame=frame, front=front, finished=finished, tests=tests, labels=labels)


def _place_labels(names: Sequence[str], points: Sequence[tuple[float, float]]) -> list[_Label]:
    """Place names beside the first of the points so that each covers as little as possible of names and points."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    taken += [(-math.inf, 0, 0, HEIGHT), (WIDTH, 0, math.inf, HEIGHT)]  # outside the figure
    labels = []
    for name, point in zip(names, points, strict=False):
        places = [_Label(name, point, anchor, shift) for shift in (0, -12, 12, -24, 24) for anchor in ("start", "end")]
        labels.append(min(places, key=lambda place: sum(place.covers(*box) for box in taken)))
        taken.append(labels[-1].box)
    return labels


def thumbnail_frame(front: Sequence[Record], objective: str) -> _Frame:
    """Return where a front is drawn in the 160 x 56 pixels of its thumbnail."""
    sizes, accuracies = [r[objective] for r in front], [r["accuracy"] for r in front]
    span = max(max(accuracies) - min(accuracies), 0.005)
    limits = (min(accuracies) - 0.05 * span, max(accuracies))
    return _Frame(5, 155, 6, 50, (min(sizes) / 1.2, max(sizes) * 1.2), limits, objective)


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
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # with it, the browser refuses to run as root; the page is our own figure
        try:
            command += [f"--screenshot={target}", source.as_uri()]
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"{browser} must draw the PNG, but: {error}") from error
        if not target.exists():
            raise InputError(f"{browser} must draw the PNG, but ended with code {done.returncode} and without it")
        return target.read_bytes()
