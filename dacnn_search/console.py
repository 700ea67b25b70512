"""Progress in the terminal: a live display where there is one, plain lines elsewhere, and lines in a log file."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dacnn_search.architecture import Architecture
from dacnn_search.pareto import Record, spread
from dacnn_search.progress import Listener, Snapshot
from dacnn_search.run_directory import now
from dacnn_search.units import format_bytes, format_count, format_duration

__all__ = ["Terminal", "front_table"]

PLAIN_WIDTH = 160  # of tables where there is no terminal
SECONDS_PER_LINE = 10.0  # between two summaries where there is no terminal
MOST_ROWS = 8  # of running trials, and of the front


class Terminal(Listener):
    """Shows a run on a stream and writes its lines to the run directory's `log.txt`. A context manager."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = RichConsole(file=stream, highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            self._console.width = PLAIN_WIDTH
        self._live: Live | None = None
        self._log: TextIO | None = None
        self._next_line = 0.0
        self._state: str | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._log is not None:
            self._log.close()

    def began(self, folder: Path) -> None:
        """Keep the lines in the run directory's `log.txt` as well, each with the time."""
        self._log = (folder / "log.txt").open("a", encoding="utf-8", buffering=1)

    def say(self, text: str) -> None:
        self._console.print(Text(text))
        self._write_log(text)

    def update(self, snapshot: Snapshot) -> None:
        if self._live is not None:
            self._live.update(_display(snapshot))
        elif time.monotonic() >= self._next_line or snapshot.state != self._state:
            self._next_line = time.monotonic() + SECONDS_PER_LINE
            self.say(_line(snapshot))
        self._state = snapshot.state

    def finished(self, record: Mapping[str, Any]) -> None:
        self._write_log(_trial_line(record))

    def retrained(self, record: Mapping[str, Any]) -> None:
        score = "" if record["test_accuracy"] is None else f", test accuracy {record['test_accuracy']:.2%}"
        self.say(f"retrained trial {record['trial']} ({record['parameters']:,} parameters){score}")

    def table(self, table: Table) -> None:
        """Print a table."""
        self._console.print(table)

    def _write_log(self, text: str) -> None:
        if self._log is not None:
            self._log.write(f"{now()} {text}\n")


def front_table(front: Sequence[Record], retrained: Sequence[Mapping[str, Any]]) -> Table:
    """The front, from few parameters to many, with the test accuracy of what was retrained (mean over seeds)."""
    tested: dict[str, list[float]] = {}
    for record in retrained:
        if record["test_accuracy"] is not None:
            tested.setdefault(record["fingerprint"], []).append(record["test_accuracy"])
    table = Table(title="Pareto front", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("trial", "parameters", "float32", "MACs", "validation", "test"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("network", no_wrap=True)
    for record in front:
        scores = tested.get(record["fingerprint"])
        table.add_row(
            str(record["trial"]),
            f"{record['parameters']:,}",
            format_bytes(4 * record["parameters"]),
            format_count(record["macs"]),
            f"{record['accuracy']:.2%}",
            f"{sum(scores) / len(scores):.2%}" if scores else "",
            escape(str(Architecture.from_dict(record["architecture"]))),
        )
    return table


def _line(snapshot: Snapshot) -> str:
    """A snapshot in one line."""
    unit = "networks" if snapshot.state == "retraining" else "trials"
    parts = [f"{snapshot.state}: {snapshot.finished}/{snapshot.trials} {unit}"]
    if snapshot.running and snapshot.state in ("searching", "retraining"):
        parts.append(f"{len(snapshot.running)} running")
    if snapshot.front and snapshot.state != "retraining":
        best = snapshot.front[-1]
        parts.append(f"best {best['accuracy']:.2%} with {format_count(best['parameters'])} parameters")
        parts.append(f"front of {len(snapshot.front)}, hypervolume {snapshot.hypervolume:.3f}")
    if snapshot.remaining is not None and snapshot.state == "searching":
        parts.append(f"about {format_duration(snapshot.remaining)} left")
    if snapshot.message:
        parts.append(snapshot.message)
    return ", ".join(parts)


def _trial_line(record: Mapping[str, Any]) -> str:
    accuracy = "" if record["accuracy"] is None else f", validation accuracy {record['accuracy']:.2%}"
    reason = f" ({record['reason']})" if record["reason"] else ""
    return (
        f"trial {record['trial']} {record['state']}{reason}: {record['parameters']:,} parameters{accuracy}, "
        f"{record['epochs']} epochs in {format_duration(record['seconds'])}"
    )


def _display(snapshot: Snapshot) -> Group:
    """A snapshot as a few rows: the whole, the running trials, the front so far."""
    share = Table.grid(padding=(0, 1))
    share.add_row(ProgressBar(snapshot.trials, snapshot.finished, width=40), Text(_line(snapshot)))
    parts: list[Any] = [share]
    if snapshot.running:
        running = Table.grid(padding=(0, 2))
        for trial in snapshot.running[:MOST_ROWS]:
            accuracy = "" if trial.accuracy is None else f"{trial.accuracy:.1%}"
            running.add_row(
                f"trial {trial.trial}",
                f"{format_count(trial.parameters)} parameters",
                ProgressBar(trial.epochs, trial.epoch, width=16),
                f"epoch {trial.epoch}/{trial.epochs}",
                accuracy,
            )
        parts.append(running)
    if snapshot.front and snapshot.state == "searching":
        front = Table.grid(padding=(0, 2))
        for record in spread(snapshot.front, MOST_ROWS):
            front.add_row("front", f"{format_count(record['parameters'])} parameters", f"{record['accuracy']:.2%}")
        parts.append(front)
    return Group(*parts)
