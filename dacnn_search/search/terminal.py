"""Progress in the terminal: a live display where there is one, plain lines elsewhere, and lines in a log file."""

import contextlib
import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from dacnn_search.common.units import format_bytes, format_count, format_duration
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import UNITS
from dacnn_search.search.listener import Listener, Snapshot
from dacnn_search.storage.front import Record, spread
from dacnn_search.storage.ledger import now
from dacnn_search.storage.trained import TrainedNetwork, deviation_of

PLAIN_WIDTH = 160  # of tables where there is no terminal
SECONDS_PER_LINE = 10.0  # between two summaries where there is no terminal
MOST_ROWS = 8  # of running trials, and of the front
BAR_WIDTH = 16
RUNNING = ("searching", "retraining")  # states


class Terminal(Listener):
    """Shows a run on a stream and writes its lines to the run directory's `log.txt`. A context manager."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = RichConsole(file=stream, highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            self._console.width = PLAIN_WIDTH
        self._log: TextIO | None = None
        self._next_line = 0.0
        self._snapshot: Snapshot | None = None
        self._received = 0.0  # when the snapshot was, by the monotonic clock
        self._to_end = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._to_end.enter_context(Live(console=self._console, get_renderable=self._display, transient=True))
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # of the log
            self._to_end.close()

    def began(self, folder: Path) -> None:
        """Keep the lines in the run directory's `log.txt` as well, each with the time."""
        self._log = (folder / "log.txt").open("a", encoding="utf-8", buffering=1)
        self._to_end.callback(self._log.close)

    def say(self, text: str) -> None:
        self._console.print(Text(text))
        self._write_log(text)

    def update(self, snapshot: Snapshot) -> None:
        changed = self._snapshot is None or snapshot.state != self._snapshot.state
        self._snapshot, self._received = snapshot, time.monotonic()
        ended = changed and snapshot.state not in RUNNING
        if ended or (not self._console.is_terminal and (changed or time.monotonic() >= self._next_line)):
            self._next_line = time.monotonic() + SECONDS_PER_LINE
            self.say(_line(snapshot))

    def finished(self, record: Mapping[str, Any]) -> None:
        accuracy = "" if record["accuracy"] is None else f", validation accuracy {record['accuracy']:.2%}"
        reason = f" ({record['reason']})" if record["reason"] else ""
        self._write_log(
            f"trial {record['trial']} {record['state']}{reason}: {self._exact_size(record)}{accuracy}, "
            f"{record['epochs']} epochs in {format_duration(record['seconds'])}"
        )

    def retrained(self, record: Mapping[str, Any]) -> None:
        score = "" if record["test_accuracy"] is None else f", test accuracy {record['test_accuracy']:.2%}"
        self.say(f"retrained trial {record['trial']} by seed {record['seed']} ({self._exact_size(record)}){score}")

    def _exact_size(self, record: Mapping[str, Any]) -> str:
        objective = self._snapshot.objective if self._snapshot else "parameters"
        return f"{record[objective]:,} {UNITS[objective]}"

    def table(self, table: Table) -> None:
        """Print a table; what is too wide for the terminal is cut off."""
        self._console.print(table, soft_wrap=False)

    def _display(self) -> RenderableType:
        """Return the last snapshot as a few rows: the whole run, the running trials, the front so far."""
        if (snapshot := self._snapshot) is None:
            return ""
        run, trials = _grid(3), _grid(5)
        finished, wanted, _ = _counts(snapshot)
        run.add_row(snapshot.state, ProgressBar(wanted, finished, BAR_WIDTH), Text(self._progress(snapshot)))
        for trial in snapshot.running[:MOST_ROWS]:
            trials.add_row(
                f"trial {trial['trial']}",
                f"{_size(trial, snapshot.objective):>17}",
                ProgressBar(trial["epochs"], trial["epoch"], BAR_WIDTH),
                f"epoch {trial['epoch']}/{trial['epochs']}",
                "" if trial["accuracy"] is None else f"{trial['accuracy']:6.1%}",
            )
        if not (facts := _facts(snapshot)):
            return Group(run, trials)
        for record in spread(snapshot.front, MOST_ROWS, snapshot.objective):
            network = Architecture.from_dict(record["architecture"])
            size = _size(record, snapshot.objective)
            facts += f"\nfront {size:>17} {record['accuracy']:7.2%}  {network}"
        return Group(run, trials, Text(facts, no_wrap=True, overflow="ellipsis"))

    def _progress(self, snapshot: Snapshot) -> str:
        """Return how far a run is and when it should end, counted on from when the snapshot came."""
        since = time.monotonic() - self._received
        finished, wanted, unit = _counts(snapshot)
        text = f"{finished}/{wanted} {unit}"
        if snapshot.message:
            return f"{text}, {snapshot.message}"
        if not snapshot.running and finished < wanted:
            waited = since if snapshot.retraining else snapshot.elapsed + since
            return f"{text}, starting the workers, {format_duration(waited)}"
        if snapshot.remaining is None or snapshot.state != "searching":
            return text
        left = max(snapshot.remaining - since, 0.0)
        end = datetime.datetime.now() + datetime.timedelta(seconds=left)
        return f"{text}, about {format_duration(left)} left (until {end:%H:%M})"

    def _write_log(self, text: str) -> None:
        if self._log is not None:
            with contextlib.suppress(OSError):  # a full disk is reported where the ledger is written
                self._log.write(f"{now()} {text}\n")


def _grid(columns: int) -> Table:
    """Return a table for rows with a bar in the middle, which gives way where a terminal is narrow."""
    return Table.grid(*(Column(no_wrap=i != columns // 2) for i in range(columns)), padding=(0, 1))


def front_table(front: Sequence[Record], networks: Sequence[TrainedNetwork]) -> Table:
    """Return the front as a table, smallest network first, with the test accuracies of retrained networks: the mean
    over the seeds and, if there are several, the standard deviation."""
    tested = {network.fingerprint: _test_accuracy(network) for network in networks if network.tested}
    names = ("trial", "parameters", "float32", "flash", "RAM", "MACs", "validation", "test")
    figures = [Column(name, justify="right", no_wrap=True) for name in names]
    table = Table(*figures, "network", title="Pareto front", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for record in front:
        table.add_row(
            str(record["trial"]),
            f"{record['parameters']:,}",
            format_bytes(4 * record["parameters"]),
            format_bytes(record["flash"]),
            format_bytes(record["ram"]),
            format_count(record["macs"]),
            f"{record['accuracy']:.2%}",
            tested.get(record["fingerprint"], ""),
            Text(str(Architecture.from_dict(record["architecture"])), no_wrap=True, overflow="ellipsis"),
        )
    return table


def _test_accuracy(network: TrainedNetwork) -> str:
    deviation = deviation_of(network.tested)
    return f"{network.accuracy:.2%}" + ("" if deviation is None else f" ±{100 * deviation:.2f}")


def _line(snapshot: Snapshot) -> str:
    """Return a snapshot in one line."""
    finished, wanted, unit = _counts(snapshot)
    remaining = snapshot.remaining if snapshot.state == "searching" else None
    parts = (
        f"{snapshot.state}: {finished}/{wanted} {unit}",
        f"{len(snapshot.running)} running" if snapshot.running and snapshot.state in RUNNING else "",
        _facts(snapshot),
        "" if remaining is None else f"about {format_duration(remaining)} left",
        snapshot.message,
    )
    return ", ".join(filter(None, parts))


def _counts(snapshot: Snapshot) -> tuple[int, int, str]:
    """Return how much is done, of how much, and of what."""
    if snapshot.retraining:
        return snapshot.retraining["finished"], snapshot.retraining["trainings"], "full trainings"
    return snapshot.finished, snapshot.trials, "trials"


def _facts(snapshot: Snapshot) -> str:
    """Return the front in words; nothing during the retraining, as it does not change."""
    if not snapshot.front or snapshot.state == "retraining":
        return ""
    best = snapshot.front[-1]
    found = f"best {best['accuracy']:.2%} with {_size(best, snapshot.objective)}"
    return f"{found}, front of {len(snapshot.front)}, hypervolume {snapshot.hypervolume:.3f}"


def _size(network: Mapping[str, Any], objective: str) -> str:
    """Return the size of a network in words."""
    if objective == "flash":
        return f"{format_bytes(network['flash'])} of flash"
    return f"{format_count(network['parameters'])} parameters"
