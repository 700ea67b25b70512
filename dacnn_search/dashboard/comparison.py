"""What the comparison of several runs shows: their fronts, hypervolume on one scale, and where they differ."""

import bisect
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dacnn_search.dashboard.payload import Run, hypervolumes
from dacnn_search.storage.front import Scale, best_under

__all__ = ["comparison_payload"]

MOST_POINTS = 2000  # of a curve of quartiles

SETTINGS = (
    "sampler",
    "stopping",
    "confirm",
    "trials",
    "time_budget",
    "seed",
    "concurrency",
    "gpus_per_trial",
    "epochs",
    "git_commit",
    "data",
    "space",
    "recipe",
    "versions",
    "machine",
)


def comparison_payload(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything the page of a comparison shows.

    Runs of one space on the same data with the same sampler, stopping rule and confirmation make a group: repeated
    seeds.
    """
    scale = _common_scale(runs)
    curves = [hypervolumes(run.records, scale) for run in runs]
    times = [[round(r.get("finished") or 0.0, 2) for r in run.records] for run in runs]
    groups = _groups(runs)
    return {
        "runs": [
            {
                "name": run.name,
                "group": next(i for i, group in enumerate(groups) if run in group),
                "front": [[r["parameters"], round(r["accuracy"], 5), r["trial"]] for r in run.front],
                "hypervolume": curve,
                "finished": finished,
            }
            for run, curve, finished in zip(runs, curves, times, strict=True)
        ],
        "groups": [
            {"label": label, **_bands([(times[i], curves[i]) for i, run in enumerate(runs) if run in group])}
            for label, group in zip(_labels(groups), groups, strict=True)
        ],
        "results": _results(runs, curves),
        "differences": _differences(runs),
        "comparable": _are_alike([run.data for run in runs]) and _are_alike(filter(None, map(_split, runs))),
    }


def _common_scale(runs: Sequence[Run]) -> Scale:
    scales = [run.scale for run in runs]
    return Scale(min(s.least for s in scales), max(s.most for s in scales), max(s.chance for s in scales))


def _key(run: Run) -> tuple[str, ...]:
    settings = (str(run.environment.get(name)) for name in ("sampler", "stopping", "confirm"))
    return (run.space_hash, *settings, json.dumps([run.data, _split(run)], sort_keys=True))


def _split(run: Run) -> dict[str, Any] | None:
    """Which images of its data a run has, and how they were divided; None if it does not know."""
    return None if run.given is None else run.given.get("data")


def _are_alike(values: Iterable[Any]) -> bool:
    return len({json.dumps(value, sort_keys=True) for value in values}) <= 1


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    return list(groups.values())


def _labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """What tells the groups apart: the sampler if that does, otherwise the names of the runs."""
    samplers = [str(group[0].environment.get("sampler")) for group in groups]
    if len(groups) > 1 and len(set(samplers)) == len(groups) and any(len(group) > 1 for group in groups):
        return [
            f"{name} ({len(group)} seed{'s' * (len(group) > 1)})" for name, group in zip(samplers, groups, strict=True)
        ]
    more = [len(group) - 1 for group in groups]
    words = [f" and {count} more seed{'s' * (count > 1)}" if count else "" for count in more]
    return [group[0].name + text for group, text in zip(groups, words, strict=True)]


def _bands(runs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> dict[str, dict[str, list[float]] | None]:
    """The quartiles of a group's hypervolumes, given as (times, values) per run, against trials and against time."""
    curves = [values for _, values in runs]
    counts = [range(1, len(values) + 1) for values in curves]
    return {"trials": _quartiles(counts, curves), "time": _quartiles([times for times, _ in runs], curves)}


def _quartiles(
    positions: Sequence[Sequence[float]], curves: Sequence[Sequence[float]]
) -> dict[str, list[float]] | None:
    """First quartile, median and third quartile of step curves, as far as the shortest reaches; None for one curve."""
    if len(curves) < 2 or not all(curves):
        return None
    end = min(steps[-1] for steps in positions)
    x = sorted({position for steps in positions for position in steps if position <= end})
    x = x[:: math.ceil(len(x) / MOST_POINTS)]
    at = [
        [[0.0, *c][bisect.bisect_right(steps, here)] for here in x] for steps, c in zip(positions, curves, strict=True)
    ]
    low, middle, high = np.quantile(at, [0.25, 0.5, 0.75], axis=0).round(5).tolist()
    return {"x": x, "low": low, "middle": middle, "high": high}


def _results(runs: Sequence[Run], curves: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Rows of the table: a name, a kind of number, a value per run, whether more is better."""
    states = [[r["state"] for r in run.records] for run in runs]
    rows: list[dict[str, Any]] = [
        {
            "name": "hypervolume",
            "kind": "share",
            "values": [c[-1] if c else 0.0 for c in curves],
            "best": "most",
        },
        {"name": "finished trials", "kind": "count", "values": [s.count("COMPLETE") for s in states]},
        {"name": "stopped early", "kind": "count", "values": [s.count("PRUNED") for s in states]},
        {"name": "failed", "kind": "count", "values": [s.count("FAIL") for s in states], "best": "least"},
        {"name": "time of search", "kind": "duration", "values": [run.status.get("elapsed") for run in runs]},
        {"name": "training time", "kind": "duration", "values": [_training(run) for run in runs]},
        {"name": "highest accuracy", "kind": "accuracy", "values": [_top(run, math.inf) for run in runs]},
    ]
    for budget in _budgets(runs):
        rows.append({"name": f"best with at most {budget:,} parameters", "kind": "accuracy"})
        rows[-1]["values"] = [_top(run, budget) for run in runs]
    for row in rows:
        row.setdefault("best", "most" if row["kind"] == "accuracy" else None)
    return rows


def _training(run: Run) -> float:
    return round(sum(r.get("seconds") or 0.0 for r in run.records), 3)


def _top(run: Run, budget: float) -> float | None:
    best = best_under(run.front, budget)  # type: ignore[arg-type]
    return None if best is None else round(best["accuracy"], 5)


def _budgets(runs: Sequence[Run]) -> list[int]:
    """1, 3, 10, 30, ... times as many parameters, as far as the fronts reach."""
    sizes = [r["parameters"] for run in runs for r in run.front]
    if not sizes:
        return []
    decades = range(math.floor(math.log10(min(sizes))), math.ceil(math.log10(max(sizes))) + 1)
    budgets = [step * 10**decade for decade in decades for step in (1, 3)]
    return [budget for budget in budgets if min(sizes) <= budget <= max(sizes)]


def _differences(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The settings that are not the same in all runs, as words per run."""
    flat = [{name: text for key in SETTINGS for name, text in _flatten(key, run.environment.get(key))} for run in runs]
    names = dict.fromkeys(name for settings in flat for name in settings)
    rows = [{"name": name, "values": [settings.get(name, "–") for settings in flat]} for name in names]
    return [row for row in rows if len(set(row["values"])) > 1]


def _flatten(name: str, value: Any) -> list[tuple[str, str]]:
    if name == "git_commit":
        return [(name, str(value)[:10])]
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flatten(f"{name}.{key}", inner)]
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]
