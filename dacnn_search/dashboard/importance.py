"""The importance of a search space's choices: the share that each has in the accuracy that size does not explain."""

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dacnn_search.storage.front import Record

FEWEST = 20  # finished trials; with fewer, chance decides
MOST_GROUPS = 8  # values of a numeric choice that are told apart; more are put into this many quantiles


def importance(records: Sequence[Record], objective: str = "parameters") -> tuple[list[dict[str, Any]], str]:
    """Return the choices of a space, most important first, and a sentence that says how this was found.

    A cubic in the log10 of the `objective` is fitted to the accuracies of the COMPLETE trials; what remains is cut off
    at three robust standard deviations. A choice's `share` is the part of that remainder's variance that lies
    between its values, less what chance would give (epsilon squared; Kelley, PNAS 1935). Its `effects` are the
    mean remainders (accuracy in [0, 1]) per value, of the trials that had the choice; where several numbers are taken
    together, with their `range`.
    """
    finished = [r for r in records if r["state"] == "COMPLETE" and math.isfinite(r["accuracy"])]
    if len(finished) < FEWEST:
        return [], f"Needs {FEWEST} trials at full length; so far there are {len(finished)}."
    rest = _remainders(finished, objective)
    names = dict.fromkeys(name for r in finished for name in r["choices"])
    return sorted((_share(name, finished, rest) for name in names), key=lambda entry: -entry["share"]), (
        f"What went with more accuracy than size explains, over {len(finished)} trials at full length. Each bar is the "
        f"share that one choice has in the variance around a cubic of accuracy in log {objective}, less what chance "
        "would give. It tells what goes together, not what causes it."
    )


def _remainders(finished: Sequence[Record], objective: str) -> np.ndarray:
    """Return the accuracies less what size predicts, with mean 0. Shape: (trials,)."""
    accuracy = np.array([r["accuracy"] for r in finished])
    size = np.log10([r[objective] for r in finished])
    degree = min(3, len(np.unique(size)) - 1)
    size = (size - size.mean()) / (size.std() or 1.0)
    weights = np.ones_like(accuracy)
    for _ in range(5):  # a few collapsed trainings must not bend the fit
        rest = accuracy - np.polyval(np.polyfit(size, accuracy, degree, w=weights), size)
        spread = 1.4826 * float(np.median(np.abs(rest))) or 1e-9
        weights = 1.0 / np.maximum(1.0, np.abs(rest) / (1.5 * spread))
    rest = np.clip(rest - np.median(rest), -3 * spread, 3 * spread)
    return rest - rest.mean()


def _share(name: str, finished: Sequence[Record], rest: np.ndarray) -> dict[str, Any]:
    having = [(r["choices"][name], value) for r, value in zip(finished, rest, strict=True) if name in r["choices"]]
    having.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]))  # numbers by size, before words
    choices, values = [choice for choice, _ in having], np.array([value for _, value in having])
    labels: list[Any] = [_word(choice) for choice in choices]
    ranges = len(set(choices)) > MOST_GROUPS and not isinstance(choices[-1], str)
    if ranges:
        edges = np.unique(np.quantile(choices, np.linspace(0, 1, MOST_GROUPS + 1)[1:-1]))
        labels = np.searchsorted(edges, choices).tolist()
    between, effects = 0.0, []
    for _, places in itertools.groupby(range(len(having)), key=labels.__getitem__):
        group = list(places)
        mean = values[group].mean()
        between += len(group) * (mean - values.mean()) ** 2
        low, high = choices[group[0]], choices[group[-1]]
        words = {"value": f"{_word(low)} to {_word(high)}", "range": [low, high]} if ranges else {"value": _word(low)}
        effects.append({**words, "trials": len(group), "effect": round(float(mean), 5)})
    within = len(values) * values.var() - between
    chance = (len(effects) - 1) * within / max(len(values) - len(effects), 1)
    share = max(0.0, float(between - chance)) / (float((rest**2).sum()) or 1.0)
    return {"choice": name, "share": round(min(share, 1.0), 4), "effects": effects}


def _word(value: Any) -> str:
    """Return a value as JavaScript writes it: whole numbers without a point."""
    return value if isinstance(value, str) else json.dumps(value).removesuffix(".0")
