"""Wall time from the command to 95% of the best known hypervolume: ours against Ray Tune with OptunaSearch.

    python benchmarks/time_to_front.py --quick

The space is that of DACNN-Bench A, all networks of which were trained beforehand. Both stacks search it by real
training on this machine, two trials at once, one after the other; ours with its default sampler and stopping rule, the
other as `naive_search.py` has it. After each finished trial the hypervolume is that of what a user would be handed: of
the test accuracies in the table (after full trainings, the mean over seeds) of the networks that are on the front of
the search's own validation accuracies. The best one is that of all networks of the table. A search is ended once it is
there, or at a limit: a time that was not reached counts as the limit, so that a ratio with one of the naive stack is a
lower bound (`naive_reached` tells how many were).

How many trials a search needs is a matter of luck, and few can be run. So the naive search is replayed from the table
as well, for many seeds, in no time (`naive_trials_replayed`): the median of these, at the seconds per trial of the real
ones, is `naive_seconds_expected`.
"""

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from naive_search import flat_space
from results_file import RESULTS, make_parser, write_figures
from simulator import Table, best_hypervolume, scale_of

from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.front import Scale, front_of
from dacnn_search.storage.ledger import read_ledger

HERE = Path(__file__).parent
SPACE, TABLE = HERE / "dacnn_bench" / "digits.yaml", HERE / "dacnn_bench" / "digits.parquet"
SHARE = 0.95  # of the best hypervolume
MOST_TRIALS = 1000
REPLAYS = 30
LOOK_SECONDS = 0.2  # between two looks at what a search has found


class Judge:
    """Judges the front of a search by the table."""

    def __init__(self) -> None:
        self.table = Table(TABLE)
        self._scale: Scale = scale_of(SearchSpace.from_yaml(SPACE))
        self.target = SHARE * best_hypervolume(self.table, self._scale)

    def hypervolume(self, records: Sequence[dict[str, Any]]) -> float:
        front = [record["fingerprint"] for record in front_of(records)]
        return self.table.hypervolume(front, self._scale)


def our_records(folder: Path) -> list[dict[str, Any]]:
    try:
        return read_ledger(folder / "ours" / "trials.jsonl")
    except RunDirectoryError:  # the last line is being written
        return []


def naive_records(folder: Path) -> list[dict[str, Any]]:
    path = folder / "naive.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [{**json.loads(line), "sequence": number, "state": "COMPLETE"} for number, line in enumerate(lines)]


def search(stack: str, seed: int, limit: float, judge: Judge) -> dict[str, Any]:
    """Run one search until its front is good enough."""
    with tempfile.TemporaryDirectory(prefix="front-") as name:
        folder = Path(name)
        ours = ("-m", "dacnn_search.run", "--space", SPACE, "--results", folder, "--name", "ours", "--concurrency", 2)
        naive = (HERE / "naive_search.py", SPACE, "--output", folder / "naive.jsonl")
        command = (*(ours if stack == "ours" else naive), "--trials", MOST_TRIALS, "--seed", seed)
        records_of = our_records if stack == "ours" else naive_records
        begun = time.monotonic()
        with subprocess.Popen(
            [sys.executable, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            found, share = 0, 0.0
            while share < SHARE and time.monotonic() - begun < limit and process.poll() is None:
                time.sleep(LOOK_SECONDS)
                records = records_of(folder)
                if len(records) > found:
                    found, share = len(records), judge.hypervolume(records) / judge.target * SHARE
            seconds = time.monotonic() - begun
            process.send_signal(signal.SIGINT)
    reached = share >= SHARE
    return {"seconds": seconds if reached else limit, "reached": reached, "trials": found, "share": round(share, 4)}


def replay_naive(seed: int, judge: Judge) -> int:
    """Replay the naive search from the table and return how many networks it trains until it is good enough.

    It has Optuna's default sampler, two trials at once, choices side by side whether they are asked or not, and trains
    repeated networks as well.
    """
    space = SearchSpace.from_yaml(SPACE)
    flat = flat_space(space)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed))
    running: list[tuple[optuna.Trial, dict[str, Any]]] = []
    trained: list[dict[str, Any]] = []
    while len(trained) < MOST_TRIALS:
        while len(running) < 2:
            trial = study.ask(flat)
            architecture, _ = space.replay(trial.params)
            fingerprint, parameters = architecture.fingerprint, space.cost(architecture).parameters
            meets = space.meets_constraints(architecture)
            accuracy = judge.table.training(fingerprint, seed).accuracy[-1] if meets else 0.0
            running.append((trial, {"fingerprint": fingerprint, "parameters": parameters, "accuracy": accuracy}))
        trial, record = running.pop(0)
        study.tell(trial, (record["accuracy"], record["parameters"]))
        if record["accuracy"]:
            trained.append(record | {"sequence": len(trained), "state": "COMPLETE"})
            if judge.hypervolume(trained) >= judge.target:
                break
    return len(trained)


def main() -> None:
    quick = "one seed, and the naive stack ended after 150 s"
    parser = make_parser(__doc__, quick, RESULTS / "time_to_front.json")
    parser.add_argument("--seeds", type=int, help="searches of ours (default 5, quick 1)")
    parser.add_argument("--naive-seeds", type=int, help="searches of the naive stack (default 3, quick 1)")
    parser.add_argument("--limit", type=float, help="seconds for a search (default 1800, quick 150)")
    options = parser.parse_args()
    seeds = {"ours": options.seeds or (1 if options.quick else 5)}
    seeds["naive"] = options.naive_seeds or (1 if options.quick else 3)
    limit = options.limit or (150.0 if options.quick else 1800.0)
    judge = Judge()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "naive": []}
    for seed in range(max(seeds.values())):
        for stack in found:
            if seed < seeds[stack]:
                found[stack].append(search(stack, seed, limit, judge))
                print(stack, seed, found[stack][-1], flush=True)
    ours, naive = (statistics.median(run["seconds"] for run in found[stack]) for stack in ("ours", "naive"))
    replayed = [replay_naive(seed, judge) for seed in range(REPLAYS)]
    per_trial = statistics.median(run["seconds"] / run["trials"] for run in found["naive"])
    expected = statistics.median(replayed) * per_trial
    figures = {
        "time_to_front_vs_naive": round(naive / ours, 2),
        "time_to_front_vs_naive_expected": round(expected / ours, 2),
        "naive_seconds_expected": round(expected, 1),
        "naive_trials_replayed": {
            "median": statistics.median(replayed),
            "least": min(replayed),
            "most": max(replayed),
            "searches": REPLAYS,
        },
        "ours_seconds": round(ours, 1),
        "naive_seconds": round(naive, 1),
        "ours_trials": statistics.median(run["trials"] for run in found["ours"]),
        "naive_trials": statistics.median(run["trials"] for run in found["naive"]),
        "ours_reached": f"{sum(run['reached'] for run in found['ours'])} of {seeds['ours']}",
        "naive_reached": f"{sum(run['reached'] for run in found['naive'])} of {seeds['naive']}",
        "limit_seconds": limit,
    }
    write_figures(options.output, figures, options=sys.argv[1:], searches=found)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
