"""Measure what a search costs beyond training, against Ray Tune with OptunaSearch as one writes it and plain Optuna.

    python benchmarks/overhead.py --quick

Measured side by side, each in processes of its own with a stopwatch outside, in rounds one after the other:

- a whole search of ours, of the networks of `search_spaces/default.yaml` in full (stopping none), from the command to
  its end, dashboard included; then the naive stack, the same tuned, and plain Optuna in one process on one core
  (`naive_search.py`) on a sample of the same networks, every k-th by training time, for as many epochs. Their time for
  all networks is that of their start and their end, once, and that of a trial and the gap to the next one for each, so
  that a smaller sample does not count against them;
- start-up: from the command to the first line of the ledger of a search whose first trial is one epoch of 60 images,
  against `ray.init` and importing torch in a worker, ready for use;
- driver CPU per trial at trial 100 and 2,000 (at 260 for the default sampler with `--quick`): all threads of a driver
  that does all it does in a search, Ray Tune, ledger, status and sampler, while workers only pretend to train
  (`pretended_search.py`); tables, study and dashboard are written at the end and counted by themselves.

The gaps of our workers are the time between the epochs of one trial and those of the next, and between reports: what
the ledger's times leave when the seconds of epochs are taken from them.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from results_file import RESULTS, make_parser, write_figures

from dacnn_search.storage.ledger import read_ledger

HERE = Path(__file__).parent
DEFAULT = HERE.parent / "search_spaces" / "default.yaml"
TRIVIAL = """\
name: trivial
data: {name: digits, validation: 0.3, subset: 60}
architecture: {sections: 1, depth: {choice: [1, 2, 3]}, width: {choice: [3, 4, 5]}}
recipe: {epochs: 1}
retrain: {top: 0}
"""
BARE = """\
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
@ray.remote
def load():
    import torch
ray.get(load.remote())
import pathlib, sys
pathlib.Path(sys.argv[1]).write_text("ready")
"""
PARTS = ["start", "whole", "driver"]
SAMPLERS, QUICK_SAMPLERS = {"random": 2000, "auto": 2000}, {"random": 2000, "auto": 260}  # trials of the driver's part
CONCURRENCY = 2


class Process:
    """A program that is watched: its seconds, and the memory of Ray's workers below it."""

    def __init__(self, *command: object) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self.begun = time.time()
        self._popen = subprocess.Popen([sys.executable, *map(str, command)], stdout=self._log, stderr=self._log)
        self.worker_bytes = 0

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def wait_for(self, path: Path) -> float:
        """Wait until a file has a first line: seconds since the beginning."""
        while self.running and not (path.exists() and path.stat().st_size):
            time.sleep(0.01)
        return time.time() - self.begun

    def wait(self, *, look: float = 2.0) -> float:
        """Wait for its end: seconds it took. Raises RuntimeError if it failed."""
        while self.running:
            self.worker_bytes = max([self.worker_bytes, *_worker_bytes(self._popen.pid)])
            time.sleep(look)
        seconds = time.time() - self.begun
        if self._popen.returncode:
            self._log.seek(0)
            raise RuntimeError(self._log.read().decode(errors="replace")[-5000:])
        self._log.close()
        return seconds


def _worker_bytes(parent: int) -> Iterator[int]:
    """Yield the memory, shared pages counted in part, of each of Ray's workers below a process that is training."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(stat[1])
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:
            continue
    for process, name in names.items():
        above = process
        while above in parents and above != parent:
            above = parents[above]
        if above == parent and name.startswith(b"ray::") and b"IDLE" not in name:
            try:
                lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            yield next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def ours(folder: Path, trials: int) -> dict[str, Any]:
    """Run a whole search of the default space."""
    space = folder / "space.yaml"
    text = DEFAULT.read_text(encoding="utf-8").replace("top: 4", "top: 0")
    space.write_text(text, encoding="utf-8")
    process = Process(
        *("-m", "dacnn_search.run", "--space", space, "--results", folder, "--name", "ours"),
        *("--trials", trials, "--concurrency", CONCURRENCY, "--stopping", "none"),
    )
    seconds = process.wait()
    records = read_ledger(folder / "ours" / "trials.jsonl")
    return {
        "seconds": seconds,
        "records": records,
        "gaps": _gaps(records),
        "worker_mb": process.worker_bytes / 1e6,
    }


def _gaps(records: Sequence[dict[str, Any]]) -> list[float]:
    """Return the seconds before each trial in which its worker did not train; first trials are left out."""
    ended: dict[str, float] = {}
    gaps = []
    for record in records:
        if record["worker"] in ended:
            gaps.append(record["finished"] - ended[record["worker"]] - record["seconds"])
        ended[record["worker"]] = record["finished"]
    return gaps


def theirs(folder: Path, stack: str, networks: list[dict[str, Any]]) -> dict[str, Any]:
    """Run the naive stack on these networks."""
    output, chosen = folder / f"{stack}.jsonl", folder / f"{stack}.json"
    chosen.write_text(json.dumps(networks))
    arguments = ("--stack", stack, "--trials", len(networks), "--networks", chosen, "--output", output)
    process = Process(HERE / "naive_search.py", folder / "space.yaml", *arguments)
    seconds = process.wait()
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    slots = 1 if stack == "optuna" else CONCURRENCY
    begun, ended = sorted(line["begun"] for line in lines), sorted(line["ended"] for line in lines)
    gaps = [later - end for later, end in zip(begun[slots:], ended, strict=False)]  # of the slot that became free
    trial = statistics.mean(line["ended"] - line["begun"] for line in lines)
    return {
        "start_and_end": seconds - (ended[-1] - begun[0]),
        "seconds_per_trial": (trial + statistics.mean(gaps)) / slots,
        "training": [line["ended"] - line["first_step"] for line in lines],
        "worker_mb": process.worker_bytes / 1e6,
    }


def whole_searches(trials: int, sample: int) -> dict[str, float]:
    """Measure ours, the naive stack, the tuned one and plain Optuna once each, on the same networks."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        folder = Path(name)
        mine = ours(folder, trials)
        by_time = sorted(mine["records"], key=lambda record: record["seconds"])
        every = len(by_time) / sample
        networks = [by_time[int((number + 0.5) * every)]["choices"] for number in range(sample)]
        tune, tuned, optuna = (theirs(folder, stack, networks) for stack in ("tune", "tuned", "optuna"))
    naive_seconds, tuned_seconds, optuna_seconds = (
        stack["start_and_end"] + trials * stack["seconds_per_trial"] for stack in (tune, tuned, optuna)
    )
    trained = sum(record["seconds"] for record in mine["records"])
    gap = statistics.median(mine["gaps"])
    return {
        "ours_trials_per_minute": 60 * trials / mine["seconds"],
        "naive_trials_per_minute": 60 * trials / naive_seconds,
        "tuned_trials_per_minute": 60 * trials / tuned_seconds,
        "optuna_trials_per_minute": 60 * trials / optuna_seconds,
        "trials_per_minute_vs_naive": naive_seconds / mine["seconds"],
        "trials_per_minute_vs_tuned": tuned_seconds / mine["seconds"],
        "trials_per_minute_and_core_vs_optuna": optuna_seconds / mine["seconds"] / CONCURRENCY,
        "ours_training_seconds_per_trial": trained / trials,
        "naive_training_seconds_per_trial": statistics.mean(tune["training"]),
        "tuned_training_seconds_per_trial": statistics.mean(tuned["training"]),
        "ours_seconds_beyond_training": CONCURRENCY * mine["seconds"] / trials - trained / trials,
        "naive_seconds_beyond_training": CONCURRENCY * naive_seconds / trials - statistics.mean(tune["training"]),
        "tuned_seconds_beyond_training": CONCURRENCY * tuned_seconds / trials - statistics.mean(tuned["training"]),
        "optuna_seconds_beyond_training": optuna_seconds / trials - statistics.mean(optuna["training"]),
        "worker_gap_seconds": gap,
        "worker_gap_of_2_seconds": gap / (2 + gap),
        "ours_worker_mb": mine["worker_mb"],
        "naive_worker_mb": tune["worker_mb"],
    }


def start_up() -> dict[str, float]:
    """Measure the start of ours and the bare minimum once each, after one that does not count."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        space, ledger = Path(name) / "space.yaml", Path(name) / "ours" / "trials.jsonl"
        space.write_text(TRIVIAL, encoding="utf-8")
        Process("-c", BARE, Path(name) / "warm").wait(look=0.1)  # what both read from disk is in memory then
        process = Process(
            *("-m", "dacnn_search.run", "--space", space, "--results", name, "--name", "ours"),
            *("--trials", 1, "--concurrency", 2),
        )
        first = process.wait_for(ledger)
        process.wait()
        ready = Path(name) / "ready"
        process = Process("-c", BARE, ready)
        bare = process.wait_for(ready)
        process.wait()
    return {"start_up_seconds": first, "bare_start_up_seconds": bare, "start_up_vs_bare": first / bare}


def driver_cpu(samplers: dict[str, int]) -> dict[str, float]:
    """CPU seconds of the driver per trial, around trial 100 and at the end, with each sampler for so many trials, and
    those of writing tables, study and dashboard at the end, per trial. The samplers have a driver each, at the same
    time: CPU seconds are counted, and the workers do nothing."""
    figures = {}
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        outputs = {sampler: Path(name) / f"{sampler}.json" for sampler in samplers}
        drivers = [
            Process(HERE / "pretended_search.py", sampler, trials, Path(name) / sampler, outputs[sampler])
            for sampler, trials in samplers.items()
        ]
        for driver in drivers:
            driver.wait(look=1.0)
        for sampler, trials in samplers.items():
            early, late, files = json.loads(outputs[sampler].read_text())
            figures[f"driver_cpu_{sampler}_100"] = early
            figures[f"driver_cpu_{sampler}_{trials}"] = late
            figures[f"driver_cpu_{sampler}_ratio"] = late / early
            figures[f"driver_cpu_{sampler}_files"] = files
    return figures


def main() -> None:
    parser = make_parser(__doc__, "one round, a smaller sample: 5 minutes on 2 cores", RESULTS / "overhead.json")
    parser.add_argument("--rounds", type=int, help="default 3, quick 1")
    parser.add_argument("--trials", type=int, help="of the whole search of ours (default 50, quick 20)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    rounds, trials = options.rounds or (1 if options.quick else 3), options.trials or (20 if options.quick else 50)
    measured: list[dict[str, float]] = []
    for _ in range(rounds):
        figures: dict[str, float] = {}
        if "start" in options.parts:
            figures |= start_up()
        if "whole" in options.parts:
            figures |= whole_searches(trials, 3 if options.quick else trials // 2)
        measured.append(figures)
        print({key: round(value, 3) for key, value in figures.items()}, flush=True)
    result = {key: statistics.median(figures[key] for figures in measured) for key in measured[0]}
    if "driver" in options.parts:
        result |= driver_cpu(QUICK_SAMPLERS if options.quick else SAMPLERS)
    result = {key: round(value, 4) for key, value in result.items()}
    write_figures(options.output, result, rounds=rounds, quick=options.quick)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
