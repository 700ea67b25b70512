"""Kill a search at random moments until it is done, and count what should be zero.

    python benchmarks/soak.py --kills 100

Prints finished trials lost, trials trained twice, zombies in Optuna's study and processes left 10 seconds later, and
exits with 1 unless all of them are zero and the search ends with exactly its budget. One kill in four falls at a random
moment of a session's start, the others after its first trial.

Seen on 2 cores of an AMD EPYC that others kept busy (a load of 10), with Python 3.11, torch 2.15, Ray 2.60, Optuna 5.0:

| run | kills | of which before a trial ended | trials | lost | trained twice | zombies | orphans |
|---|---|---|---|---|---|---|---|
| 1, `--kills 100 --longest 10`, while kills did not wait for a first trial | 100 | 80 | 85 | 0 | 0 | 0 | 0 |
| 2, `--kills 30 --longest 8 --seed 1` | 30 | 10 | 186 | 0 | 0 | 0 | 0 |
"""

import argparse
import random
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from faulty import ENDLESS, let_run, records_in, running

PATIENCE = 10.0  # for processes to end, in seconds


def main() -> int:
    """Parse the command line, kill and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=20.0, help="seconds from a session's first trial to its kill")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        counts = soak(Path(folder), options.kills, options.longest, random.Random(options.seed))
    for name, count in counts.items():
        print(f"{name:<32} {count}")
    told = ("kills", "trials", "kills before a trial ended")
    return 0 if not any(count for name, count in counts.items() if name not in told) else 1


def soak(folder: Path, kills: int, longest: float, generator: random.Random) -> dict[str, int]:
    """Return what was counted, by name."""
    (folder / "space.yaml").write_text(ENDLESS, encoding="utf-8")
    run_folder = folder / "small"
    counts = dict.fromkeys(("kills", "trials", "kills before a trial ended", "lost", "orphans"), 0)
    known: list[dict] = []
    for number in range(kills):
        with running(*_arguments(folder, run_folder)) as run:
            let_run(run, run_folder, generator, longest)
            run.signal(signal.SIGKILL)
            run.process.wait()
            counts["orphans"] += _left(run)
        records = records_in(run_folder)
        counts["lost"] += sum(record not in records for record in known)
        counts["kills before a trial ended"] += len(records) == len(known)
        known = records
        print(f"kill {number + 1}: {len(known)} trials, {counts['lost']} lost, {counts['orphans']} left", flush=True)
    trials = len(known) + 10
    with running(*_arguments(folder, run_folder), "--trials", trials) as run:
        counts["failed to finish"] = int(run.end()[0] != 0)
    records = records_in(run_folder)
    counts["lost"] += sum(record not in records for record in known)
    counts["trained twice"] = len(records) - len({record["fingerprint"] for record in records})
    counts["off the budget"] = abs(len(records) - trials)
    counts["zombies in the study"] = _unfinished(run_folder / "optuna.db")
    return {**counts, "kills": kills, "trials": len(records)}


def _arguments(folder: Path, run_folder: Path) -> list[object]:
    if run_folder.exists():
        return ["--resume", run_folder]
    return ["--space", folder / "space.yaml", "--results", folder]


def _left(run) -> int:  # type: ignore[no-untyped-def]
    """Return the number of processes that are there after the time they have to end."""
    end = time.monotonic() + PATIENCE
    while (left := run.processes()) and time.monotonic() < end:
        time.sleep(0.2)
    return len(left)


def _unfinished(path: Path) -> int:
    database = sqlite3.connect(path)
    try:
        return int(database.execute("SELECT COUNT(*) FROM trials WHERE state IN ('RUNNING', 'WAITING')").fetchone()[0])
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main())
