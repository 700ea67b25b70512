"""The comparison of several runs: their fronts, their hypervolumes on one scale, and the settings that differ."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dacnn_search.common.privacy import relative_path
from dacnn_search.network.cost import UNITS
from dacnn_search.space.settings import SearchSettings
from dacnn_search.storage.front import Record, Scale, best_under, front_of, hypervolumes
from dacnn_search.storage.resume import space_id
from dacnn_search.storage.run_directory import RunDirectory

BUDGETS = [step * 10**decade for decade in range(12) for step in (1, 3)]  # of size
MOST_POINTS = 2000  # of a curve of quartiles
RUN_SETTINGS = ("epochs", "git_commit", "data", "space", "recipe", "versions", "machine")


def comparison_payload(runs: Sequence[RunDirectory]) -> dict[str, Any]:
    """Return everything the page of a comparison shows. `runs` are snapshots, grouped by search.

    Size is what all searches kept small; parameters, if they differ in that.
    """
    scale = _common_scale(runs)
    fronts = [front_of(run.records, scale.objective) for run in runs]
    curves = [hypervolumes(run.records, scale) for run in runs]
    times = [[round(r["finished"], 2) for r in run.records] for run in runs]
    keys = [_group_key(run) for run in runs]
    searches = list(dict.fromkeys(keys))
    groups = [[i for i, key in enumerate(keys) if key == search] for search in searches]
    images, splits = [run.data for run in runs], [given.data for run in runs if (given := run.given_settings)]
    return {
        "size": {"key": scale.objective, "words": UNITS[scale.objective]},
        "runs": [
            {
                "name": run.name,
                "group": searches.index(key),
                "front": [[r[scale.objective], round(r["accuracy"], 5), r["trial"]] for r in front],
                "hypervolume": curve,
                "finished": finished,
            }
            for run, front, key, curve, finished in zip(runs, fronts, keys, curves, times, strict=True)
        ],
        "groups": [
            {
                "label": label,
                "trials": _quartiles([range(1, len(curves[i]) + 1) for i in group], [curves[i] for i in group]),
                "time": _quartiles([times[i] for i in group], [curves[i] for i in group]),
            }
            for label, group in zip(_labels(runs, groups), groups, strict=True)
        ],
        "results": _results(runs, fronts, curves, scale.objective),
        "differences": _differences(runs),
        "comparable": all(each == others[0] for others in (images, splits) for each in others),
    }


def _common_scale(runs: Sequence[RunDirectory]) -> Scale:
    """Return the box for all runs. A space whose range is known in another size counts as far as it was searched."""
    objectives = {run.objective for run in runs}
    objective = objectives.pop() if len(objectives) == 1 else "parameters"
    scales = [run.scale for run in runs]
    sizes = [size for s in scales if s.objective == objective for size in (s.least, s.most)]
    sizes += [r[objective] for run in runs if run.objective != objective for r in run.records]
    return Scale(min(sizes), max(sizes), max(s.chance for s in scales), objective)


def _group_key(run: RunDirectory) -> str:
    """Return what repeated seeds of a search share: space, data, objective and the settings of how it searches."""
    if given := run.given_settings:
        space = space_id(given)
    else:  # an old run, known by its file or else by its folder
        space = run.space_file.read_text(encoding="utf-8") if run.space_file.is_file() else str(run.folder.resolve())
    settings = [run.environment.get(name) for name in ("sampler", "prior", "fidelity", "stopping", "confirm")]
    return json.dumps([space, settings, run.objective, run.data], sort_keys=True)


def _labels(runs: Sequence[RunDirectory], groups: Sequence[Sequence[int]]) -> list[str]:
    """Return a label per group: its sampler if that tells all groups apart, otherwise the name of its first run."""
    samplers = [str(runs[group[0]].environment.get("sampler")) for group in groups]
    if 1 < len(groups) == len(set(samplers)) and max(map(len, groups)) > 1:
        counted = [(sampler, len(group)) for sampler, group in zip(samplers, groups, strict=True)]
        return [f"{sampler} ({count} seed{'s' * (count > 1)})" for sampler, count in counted]
    counted = [(runs[group[0]].name, len(group) - 1) for group in groups]
    return [f"{name} and {more} more seed{'s' * (more > 1)}" if more else name for name, more in counted]


def _quartiles(
    positions: Sequence[Sequence[float]], curves: Sequence[Sequence[float]]
) -> dict[str, list[float]] | None:
    """Return the quartiles of step curves, as far as the shortest reaches; None for one curve."""
    if len(curves) < 2 or not all(curves):
        return None
    end = min(steps[-1] for steps in positions)
    x = sorted({position for steps in positions for position in steps if position <= end})
    x = x[:: math.ceil(len(x) / MOST_POINTS)]
    values = [
        np.array([0.0, *curve])[np.searchsorted(steps, x, side="right")]
        for steps, curve in zip(positions, curves, strict=True)
    ]
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0).round(5).tolist()
    return {"x": x, "low": low, "middle": middle, "high": high}


def _results(
    runs: Sequence[RunDirectory], fronts: Sequence[Sequence[Record]], curves: Sequence[Sequence[float]], objective: str
) -> list[dict[str, Any]]:
    """Return rows of the table: a name, a kind of number, a value per run, and whether most or least is best."""
    states = [[r["state"] for r in run.records] for run in runs]
    seconds = [sum(r["seconds"] or 0.0 for r in run.records) for run in runs]
    sizes = [r[objective] for front in fronts for r in front]
    rows: list[tuple[str, str, Sequence[Any], str | None]] = [
        ("hypervolume", "share", [curve[-1] if curve else 0.0 for curve in curves], "most"),
        ("finished trials", "count", [s.count("COMPLETE") for s in states], None),
        ("stopped early", "count", [s.count("PRUNED") for s in states], None),
        ("failed", "count", [s.count("FAIL") for s in states], "least"),
        ("time of search", "duration", [run.elapsed for run in runs], None),
        ("training time", "duration", [round(of_run, 3) for of_run in seconds], None),
    ]
    budgets = [budget for budget in BUDGETS if sizes and min(sizes) <= budget <= max(sizes)]
    for budget in (math.inf, *budgets):
        name = "highest accuracy" if budget == math.inf else f"best with at most {budget:,} {UNITS[objective]}"
        chosen = [best_under(front, budget, objective) for front in fronts]
        rows.append((name, "accuracy", [record and round(record["accuracy"], 5) for record in chosen], "most"))
    return [dict(zip(("name", "kind", "values", "best"), row, strict=True)) for row in rows]


def _differences(runs: Sequence[RunDirectory]) -> list[dict[str, Any]]:
    """Return the settings that are not the same in all runs, as words per run."""
    keys = (*SearchSettings.model_fields, *RUN_SETTINGS)
    environments = [{**run.environment, "objective": run.objective} for run in runs]  # which old runs do not state
    flat = [dict(pair for key in keys for pair in _flatten(key, environment.get(key))) for environment in environments]
    names = dict.fromkeys(name for settings in flat for name in settings)
    rows = [(name, [settings.get(name, "–") for settings in flat]) for name in names]
    return [{"name": name, "values": list(map(relative_path, row))} for name, row in rows if len(set(row)) > 1]


def _flatten(name: str, value: Any) -> list[tuple[str, str]]:
    if name == "git_commit":
        return [(name, str(value)[:10])]
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flatten(f"{name}.{key}", inner)]
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]
