"""Runs of the main command in a process of their own, to be killed, interrupted and looked after."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from dacnn_search.storage.ledger import read_ledger

SPACE = """\
name: small
data: {name: digits, validation: 0.3, subset: 400}
architecture:
  sections: {choice: [1, 2]}
  depth: {range: {low: 1, high: 3}}
  width: {choice: [3, 4, 5, 6, 8]}
  sharing: {choice: [network, section]}
  regulators: {choice: [none, block]}
recipe: {epochs: 2}
search: {trials: 6, seed: 1, stopping: none}
retrain: {top: 0}
"""
ENDLESS = """\
name: small
data: {name: digits, validation: 0.3, subset: 400}
architecture:
  sections: {choice: [1, 2]}
  depth: {range: {low: 1, high: 6}}
  width: {range: {low: 3, high: 24}}
  sharing: {choice: [network, section]}
  regulators: {choice: [none, block]}
recipe: {epochs: 30}
search: {trials: 5000, seed: 1}
retrain: {top: 0}
"""  # thousands of networks, each trained for about a second
PATIENCE = 900.0  # seconds; the machine may be busy


def no_space(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


class Run:
    """A running command, and the processes below it."""

    def __init__(self, *arguments: object, before: str = "", cwd: Path | None = None, **environment: str) -> None:
        """before: Python code to run in that process first."""
        self._seen: dict[int, tuple[str, str]] = {}  # process id -> start, command
        # A shell lets what it runs in the background ignore SIGINT, and that is inherited.
        heed = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
        code = f"{heed}\n{before}\nfrom dacnn_search.run import main\nmain(sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            start_new_session=True,
        )

    def end(self) -> tuple[int, str]:
        """Wait for it: exit code and output."""
        output, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def processes(self) -> dict[int, str]:
        """What runs of those processes that were below it at this or an earlier call: process id -> command."""
        table = dict(process_table())
        known = {self.process.pid, *(p for p, (start, _) in self._seen.items() if p in table and table[p][1] == start)}
        while below := {p for p, (parent, _, _) in table.items() if parent in known} - known:
            known |= below
        self._seen |= {p: table[p][1:] for p in known if p in table}
        return {p: table[p][2] for p in known if p in table}

    def training(self) -> list[int]:
        """The workers that train."""
        return [p for p, name in self.processes().items() if "Trial" in name or "Trainable" in name]

    def workers(self) -> list[int]:
        """The processes that train, or wait to; Ray's agents, which have names like theirs, are none of them."""
        named = [(process, name) for process, name in self.processes().items() if name.startswith("ray::")]
        return [process for process, name in named if "Agent" not in name]


def process_table() -> Iterator[tuple[int, tuple[int, str, str]]]:
    """Every process but zombies, as (process id, (parent, start, command))."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            _, _, stat = (folder / "stat").read_text().rpartition(")")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue
        state, parent, *rest = stat.split()
        if state != "Z":
            yield int(folder.name), (int(parent), rest[17], command)


@contextmanager
def running(*arguments: object, **more: object) -> Iterator[Run]:
    """A run that does not outlive the test."""
    run = Run(*arguments, **more)  # type: ignore[arg-type]
    try:
        yield run
    finally:
        for process in run.processes():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        run.process.wait()
        if run.process.stdout is not None:
            run.process.stdout.close()


def let_run(run: Run, folder: Path, generator: random.Random, longest: float) -> None:
    """Return at a random moment: one in four while it starts or is resumed, else up to `longest` seconds after it has
    finished its first trial. Fails if it ends before."""
    before = len(records_in(folder))
    if generator.random() > 0.25:
        wait_until(lambda: run.processes() and len(records_in(folder)) > before, run)
    end = time.monotonic() + generator.uniform(0.3, longest)
    while time.monotonic() < end:
        run.processes()  # remembers them, for when they have lost their parent
        time.sleep(0.1)
        assert run.process.poll() is None, run.end()


def wait_until(condition: Callable[[], object], run: Run | None = None, patience: float = PATIENCE) -> None:
    """Return once `condition` holds. Fails if the run ends before, or after a generous time."""
    end = time.monotonic() + patience
    while not condition():
        if run is not None and run.process.poll() is not None:
            raise AssertionError(f"it ended with {run.process.returncode}: {run.process.communicate()[0]}")
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def records_in(folder: Path) -> list[dict]:
    """The records on disk so far, of a run that may not have begun or may be writing."""
    return read_ledger(folder / "trials.jsonl")


def status_of(folder: Path) -> dict:
    path = folder / "status.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"state": None, "running": []}
