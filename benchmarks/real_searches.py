"""Seconds to a hypervolume in real searches: this version, an earlier one, and Ray Tune with OptunaSearch.

    python benchmarks/real_searches.py search_spaces/default.yaml --earlier ../earlier --limit 120

Each stack searches the space for so many seconds with each seed, two trials at once, one search after the other. Ours
have their default sampler, stopping rule and recipe; the other is `naive_search.py`. A trial counts from when the
command has reported it, start of the interpreter and of Ray included. The hypervolume is that of validation accuracies
against log10 parameters, as a share of the largest that any of the searches reached. A median time is null if most
searches did not get there. Our ledger tells whole seconds, so that our times may be up to a second too short.

`--earlier` is the folder of another checkout of this package. A space whose images lie elsewhere has them by `--data`.
"""

import datetime
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from results_file import RESULTS, make_parser, write_figures
from simulator import scale_of

from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.front import Scale, front_of
from dacnn_search.storage.ledger import read_ledger

HERE = Path(__file__).parent
SHARES = (0.90, 0.95, 0.97, 0.98)
PLACES = (0.25, 0.5, 1.0)  # shares of the limit after which the hypervolume is told
MOST_TRIALS = 10_000
SECONDS_TO_END = 120  # that a search has for its end after Ctrl-C


def search(stack: str, code: Path, space: Path, seed: int, limit: float) -> list[dict[str, Any]]:
    """Run one search and return its full trainings, each with `after`: the seconds since the command began."""
    with tempfile.TemporaryDirectory(prefix="search-") as name:
        folder = Path(name)
        ours = ("-m", "dacnn_search.run", "--space", space, "--results", folder, "--name", "run", "--concurrency", 2)
        naive = (HERE / "naive_search.py", space, "--output", folder / "naive.jsonl")
        command = (*(naive if stack == "naive" else ours), "--trials", MOST_TRIALS, "--seed", seed)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (code, HERE)))}
        begun = time.time()
        with subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=environment,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                process.wait(SECONDS_TO_END)
        records = _naive_records(folder) if stack == "naive" else _our_records(folder)
    done = [record | {"after": record["ended"] - begun} for record in records if record["ended"] - begun <= limit]
    return sorted(done, key=lambda record: record["after"])


def _our_records(folder: Path) -> list[dict[str, Any]]:
    return [
        record | {"ended": datetime.datetime.fromisoformat(record["time"]).timestamp()}
        for record in read_ledger(folder / "run" / "trials.jsonl")
        if record["state"] == "COMPLETE"
    ]


def _naive_records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "naive.jsonl").read_text(encoding="utf-8").splitlines()
    return [{**json.loads(line), "sequence": number, "state": "COMPLETE"} for number, line in enumerate(lines)]


def hypervolumes(records: Sequence[dict[str, Any]], scale: Scale) -> list[float]:
    """Return the hypervolume after each record."""
    return [scale.hypervolume(front_of(records[: count + 1])) for count in range(len(records))]


def seconds_to(target: float, records: Sequence[dict[str, Any]], volumes: Sequence[float]) -> float | None:
    """Return when a search reached a hypervolume."""
    return next((r["after"] for r, volume in zip(records, volumes, strict=True) if volume >= target), None)


def volume_at(seconds: float, records: Sequence[dict[str, Any]], volumes: Sequence[float]) -> float:
    """Return the hypervolume of a search after so many seconds."""
    return max((v for r, v in zip(records, volumes, strict=True) if r["after"] <= seconds), default=0.0)


def _median(values: Sequence[float | None]) -> float | None:
    """Return the median, None for a value beyond the limit."""
    middle = statistics.median(float("inf") if value is None else value for value in values)
    return None if middle == float("inf") else round(middle, 1)


def main() -> None:
    """Search by each stack in turn, then print and write the figures."""
    parser = make_parser(__doc__)
    parser.add_argument("space", type=Path)
    parser.add_argument("--earlier", type=Path, help="folder of an earlier checkout of this package")
    parser.add_argument("--data", type=Path, help="an .npz file instead of the space's images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of a search")
    parser.add_argument("--output", type=Path, help="(default: results/real_searches-NAME.json)")
    options = parser.parse_args()
    given = yaml.safe_load(options.space.read_text(encoding="utf-8"))
    if options.data:
        given["data"] |= {"name": "npz", "root": str(options.data.absolute())}
    stacks = {"ours": HERE.parent, "naive": HERE.parent}
    if options.earlier:
        stacks["earlier"] = options.earlier.absolute()
    found: dict[str, list[list[dict[str, Any]]]] = {stack: [] for stack in stacks}
    with tempfile.TemporaryDirectory(prefix="space-") as folder:
        space = Path(folder) / options.space.name
        space.write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")
        scale = scale_of(SearchSpace.from_yaml(space))
        for seed in range(options.seeds):
            for stack, code in stacks.items():
                found[stack].append(search(stack, code, space, seed, options.limit))
                print(stack, seed, len(found[stack][-1]), "trials", flush=True)
    volumes = {stack: [hypervolumes(records, scale) for records in runs] for stack, runs in found.items()}
    best = max(max(of) for runs in volumes.values() for of in runs)
    figures: dict[str, Any] = {"best_hypervolume": round(best, 5), "limit_seconds": options.limit}
    for stack in stacks:
        runs = list(zip(found[stack], volumes[stack], strict=True))
        figures[stack] = {
            "trials": [len(records) for records in found[stack]],
            **{
                f"seconds_to_{share:.2f}": _median([seconds_to(share * best, *run) for run in runs]) for share in SHARES
            },
            **{
                f"after_{place * options.limit:.0f}_s": [
                    round(volume_at(place * options.limit, *run) / best, 4) for run in runs
                ]
                for place in PLACES
            },
        }
    searches = {
        stack: [
            [{"after": round(r["after"], 1)} | {n: r[n] for n in ("fingerprint", "parameters", "accuracy")} for r in of]
            for of in runs
        ]
        for stack, runs in found.items()
    }
    output = options.output or RESULTS / f"real_searches-{options.space.stem}.json"
    about = {"space": options.space.name, "data": options.data and options.data.name, "seeds": options.seeds}
    write_figures(output, figures, **about, searches=searches)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
