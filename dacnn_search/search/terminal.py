"""Progress in the terminal: a live display where there is one, plain lines elsewhere, and lines in a log file."""

import contextlib
import datetime
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dacnn_search.common.units import format_bytes, format_count, format_duration
from dacnn_search.network.architecture import Architecture
from dacnn_search.search.listener import Listener, RunningTrial, Snapshot
from dacnn_search.storage.front import Record, spread
from dacnn_search.storage.ledger import now
from dacnn_search.storage.trained import TrainedNetwork, deviation_of

__all__ = ["Terminal", "front_table"]

PLAIN_WIDTH = 160  # of tables where there is no terminal
SECONDS_PER_LINE = 10.0  # between two summaries where there is no terminal
MOST_ROWS = 8  # of running trials, and of the front
BAR = 16  # characters
RUNNING = ("searching", "retraining")  # states


class Terminal(Listener):
    """Shows a run on a stream and writes its lines to the run directory's `log.txt`. A context manager."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = RichConsole(file=stream, highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            self._console.width = PLAIN_WIDTH
        self._live: Live | None = None
        self._log: TextIO | None = None
        self._next_line = 0.0
        self._snapshot: Snapshot | None = None
        self._received = 0.0  # when the snapshot was, by the monotonic clock
        self._rows: list[int | None] = []  # the running trial shown in each row; it keeps its row

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._display, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.close()

    def began(self, folder: Path) -> None:
        """Keep the lines in the run directory's `log.txt` as well, each with the time."""
        self._log = (folder / "log.txt").open("a", encoding="utf-8", buffering=1)

    def say(self, text: str) -> None:
        self._console.print(Text(text))
        self._write_log(text)

    def update(self, snapshot: Snapshot) -> None:
        changed = self._snapshot is None or snapshot.state != self._snapshot.state
        self._snapshot, self._received = snapshot, time.monotonic()
        if changed:
            self._rows = []
        self._assign_rows([running.trial for running in snapshot.running])
        ended = changed and snapshot.state not in RUNNING
        if ended or (self._live is None and (changed or time.monotonic() >= self._next_line)):
            self._next_line = time.monotonic() + SECONDS_PER_LINE
            self.say(_line(snapshot))

    def finished(self, record: Mapping[str, Any]) -> None:
        self._write_log(_trial_line(record))

    def retrained(self, record: Mapping[str, Any]) -> None:
        score = "" if record["test_accuracy"] is None else f", test accuracy {record['test_accuracy']:.2%}"
        self.say(f"retrained trial {record['trial']} ({record['parameters']:,} parameters){score}")

    def table(self, table: Table) -> None:
        """Print a table; what is too wide for the terminal is cut off."""
        self._console.print(table, soft_wrap=False)

    def _assign_rows(self, trials: Sequence[int]) -> None:
        """Give each running trial a row: it keeps the one it has, a new one gets a free row."""
        self._rows = [trial if trial in trials else None for trial in self._rows]
        for trial in trials:
            if trial in self._rows:
                continue
            if None in self._rows:
                self._rows[self._rows.index(None)] = trial
            elif len(self._rows) < MOST_ROWS:
                self._rows.append(trial)

    def _display(self) -> RenderableType:
        """Return the last snapshot as a few rows: the whole run, the running trials, the front so far."""
        if (snapshot := self._snapshot) is None:
            return ""
        finished, wanted = _counts(snapshot)
        bar = ProgressBar(wanted, finished, width=BAR)
        parts = [_grid([[snapshot.state, bar, self._progress(snapshot)]])]
        facts = _facts(snapshot)
        if facts:
            parts.append(_grid([[", ".join(facts)]]))
        running = {trial.trial: trial for trial in snapshot.running}
        parts.append(_grid([_running_row(running[row]) if row in running else [""] for row in self._rows]))
        if facts:
            parts.append(_grid(_front_row(record) for record in spread(snapshot.front, MOST_ROWS)))
        return Group(*parts)

    def _progress(self, snapshot: Snapshot) -> str:
        """Return how far a run is and when it should end, counted on from when the snapshot came."""
        since = time.monotonic() - self._received
        finished, wanted = _counts(snapshot)
        parts = [_done(snapshot)]
        if snapshot.message:
            parts.append(snapshot.message)
        elif not snapshot.running and finished < wanted:
            waited = since if snapshot.retraining else snapshot.elapsed + since
            parts.append(f"starting the workers, {format_duration(waited)}")
        elif snapshot.remaining is not None and snapshot.state == "searching":
            left = max(snapshot.remaining - since, 0.0)
            end = datetime.datetime.now() + datetime.timedelta(seconds=left)
            parts.append(f"{_left(left)} (until {end:%H:%M})")
        return ", ".join(parts)

    def _write_log(self, text: str) -> None:
        if self._log is not None:
            with contextlib.suppress(OSError):  # a full disk is reported where the ledger is written
                self._log.write(f"{now()} {text}\n")


def front_table(front: Sequence[Record], networks: Sequence[TrainedNetwork]) -> Table:
    """Return the front as a table, from few parameters to many.

    Retrained networks have their test accuracy: the mean over the seeds and, if there are several, their standard
    deviation.
    """
    tested = {network.trial: network for network in networks if network.tested}
    table = Table(title="Pareto front", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("trial", "parameters", "float32", "MACs", "validation", "test"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("network")
    for record in front:
        table.add_row(
            str(record["trial"]),
            f"{record['parameters']:,}",
            format_bytes(4 * record["parameters"]),
            format_count(record["macs"]),
            f"{record['accuracy']:.2%}",
            _test_accuracy(tested.get(record["trial"])),
            Text(str(Architecture.from_dict(record["architecture"])), no_wrap=True, overflow="ellipsis"),
        )
    return table


def _test_accuracy(network: TrainedNetwork | None) -> str:
    if network is None:
        return ""
    deviation = deviation_of(network.tested)
    return f"{network.accuracy:.2%}" + ("" if deviation is None else f" ±{100 * deviation:.2f}")


def _line(snapshot: Snapshot) -> str:
    """Return a snapshot in one line."""
    done = f"{snapshot.state}: {_done(snapshot)}"
    parts = [done, *_facts(snapshot), _left(snapshot.remaining) if snapshot.state == "searching" else ""]
    if snapshot.running and snapshot.state in RUNNING:
        parts.insert(1, f"{len(snapshot.running)} running")
    return ", ".join(part for part in [*parts, snapshot.message] if part)


def _done(snapshot: Snapshot) -> str:
    finished, wanted = _counts(snapshot)
    return f"{finished}/{wanted} {'networks' if snapshot.retraining else 'trials'}"


def _counts(snapshot: Snapshot) -> tuple[int, int]:
    """Return how much is done, of how much."""
    if snapshot.retraining:
        return snapshot.retraining.finished, snapshot.retraining.trainings
    return snapshot.finished, snapshot.trials


def _facts(snapshot: Snapshot) -> list[str]:
    """Return the front in words; nothing during the retraining, as it does not change."""
    if not snapshot.front or snapshot.state == "retraining":
        return []
    best = snapshot.front[-1]
    return [
        f"best {best['accuracy']:.2%} with {format_count(best['parameters'])} parameters",
        f"front of {len(snapshot.front)}",
        f"hypervolume {snapshot.hypervolume:.3f}",
    ]


def _left(remaining: float | None) -> str:
    return "" if remaining is None else f"about {format_duration(remaining)} left"


def _trial_line(record: Mapping[str, Any]) -> str:
    accuracy = "" if record["accuracy"] is None else f", validation accuracy {record['accuracy']:.2%}"
    reason = f" ({record['reason']})" if record["reason"] else ""
    return (
        f"trial {record['trial']} {record['state']}{reason}: {record['parameters']:,} parameters{accuracy}, "
        f"{record['epochs']} epochs in {format_duration(record['seconds'])}"
    )


def _running_row(trial: RunningTrial) -> list[RenderableType]:
    size = f"{format_count(trial.parameters):>6} parameters"
    bar = ProgressBar(trial.epochs, trial.epoch, width=BAR)
    done = f"epoch {trial.epoch:>{len(str(trial.epochs))}}/{trial.epochs}"
    return [f"trial {trial.trial:<4}", size, bar, done, "" if trial.accuracy is None else f"{trial.accuracy:6.1%}"]


def _front_row(record: Record) -> list[RenderableType]:
    network = str(Architecture.from_dict(record["architecture"]))
    return ["front     ", f"{format_count(record['parameters']):>6} parameters", f"{record['accuracy']:7.2%}", network]


def _grid(rows: Iterable[Sequence[RenderableType]]) -> Table:
    """Return rows in columns. In a narrow terminal the last cell of a row is cut off; nothing is wrapped."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for *cells, last in rows:
        grid.add_row(*cells, Text(str(last), no_wrap=True, overflow="ellipsis"))
    for column in grid.columns[:-1]:
        column.no_wrap = True
    return grid
