"""What the dashboard shows, computed from a run directory: plain values that JSON holds, compact enough for a page.

Trials are columns (one list per field, in the order of the ledger), curves are whole numbers of 1e-4, and a network's
drawing is a short text: sections are joined by `/`, blocks by a space, layers by `,`. A layer is `t` (a transition) or
the number of its anchor, then `r` if a regulator follows; a block ends in `=` (identity shortcut), `+` (projection) or
nothing.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dacnn_search.architecture import Architecture
from dacnn_search.cost import count_parameters, tensor_shapes
from dacnn_search.errors import RunDirectoryError
from dacnn_search.ledger import read_ledger
from dacnn_search.pareto import Scale, front_of

__all__ = ["Run", "hypervolumes", "importance", "read_run", "run_payload"]

Record = Mapping[str, Any]

STATES = ("COMPLETE", "PRUNED", "FAIL")
PARTS = ("stem", "shared kernels", "transitions", "regulators", "shortcuts", "batch norm", "classifier")
MOST_CURVE_POINTS = 240_000  # of all trials together, about 1.2 MB
FEWEST_FOR_IMPORTANCE = 20  # finished trials
MOST_GROUPS = 8  # distinct values of a choice that are told apart; more are put into this many quantiles


@dataclass(frozen=True)
class Run:
    """The contents of a run directory."""

    folder: Path
    environment: dict[str, Any]
    records: list[dict[str, Any]]  # the ledger
    retrained: list[dict[str, Any]]
    status: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.environment.get("name") or self.folder.resolve().name)

    @property
    def state(self) -> str:
        return str(self.status.get("state", "unknown"))

    @property
    def scale(self) -> Scale:
        """What hypervolume is measured in; of a run that doesn't say, from its own trials."""
        space, sizes = self.environment.get("space", {}), [r["parameters"] for r in self.records] or [1]
        classes = self.environment.get("data", {}).get("num_classes", 10)
        return Scale(space.get("least") or min(sizes), space.get("most") or max(sizes), 1 / classes)

    @functools.cached_property
    def front(self) -> list[Record]:
        return front_of(self.records)


def read_run(folder: Path) -> Run:
    """Read a run directory; only `trials.jsonl` and `environment.json` must be there.

    Raises RunDirectoryError if one of the two is missing or anything is damaged.
    """
    for name in ("environment.json", "trials.jsonl"):
        if not (folder / name).is_file():
            raise RunDirectoryError(f"{folder} is not a run directory: it has no {name}")
    retrained = folder / "retrained.jsonl"
    return Run(
        folder,
        _read_json(folder / "environment.json"),
        read_ledger(folder / "trials.jsonl"),
        read_ledger(retrained) if retrained.exists() else [],
        _read_json(folder / "status.json") if (folder / "status.json").exists() else {},
    )


def run_payload(run: Run) -> dict[str, Any]:
    """Everything the page of one run shows."""
    indices = {record["trial"]: index for index, record in enumerate(run.records)}
    shares, note = importance(run.records)
    return {
        "run": {"name": run.name, "folder": _shown_path(run.folder), **_without(run.environment, "name", "references")},
        "status": run.status,
        "references": run.environment.get("references") or [],
        "states": STATES,
        "parts": PARTS,
        "trials": _columns(run),
        "curves": _curves(run.records),
        "front": [indices[record["trial"]] for record in run.front],
        "hypervolume": hypervolumes(run.records, run.scale),
        "retrained": _retrained(run, indices),
        "choices": _choices(run.records),
        "importance": {"choices": shares, "note": note},
    }


def hypervolumes(records: Sequence[Record], scale: Scale) -> list[float]:
    """The hypervolume after each record, in the order of the ledger; in [0, 1], see `pareto.Scale`."""
    front: list[Record] = []
    value, curve = 0.0, []
    for record in records:
        if record["state"] == "COMPLETE" and not any(_beats(other, record) for other in front):
            front = front_of([*front, record])
            value = scale.hypervolume(front)
        curve.append(round(value, 5))
    return curve


def importance(records: Sequence[Record]) -> tuple[list[dict[str, Any]], str]:
    """How much of the accuracy that size does not explain goes with each choice; most important first.

    A cubic in log10 parameters is fitted to the accuracies of the COMPLETE trials; what remains is cut off at three
    robust standard deviations. A choice's `share` is the part of that remainder's variance between the values of the
    choice, less what chance would give (epsilon squared; Kelley 1935), and its `effects` are the mean remainders
    (accuracy, in [0, 1]) per value, of the trials that had the choice. Also returns a sentence for people.
    """
    finished = [r for r in records if r["state"] == "COMPLETE" and math.isfinite(r["accuracy"])]
    if len(finished) < FEWEST_FOR_IMPORTANCE:
        return [], f"Needs {FEWEST_FOR_IMPORTANCE} trials at full length; so far there are {len(finished)}."
    rest = _remainders(finished)
    names = dict.fromkeys(name for r in finished for name in r.get("choices") or {})
    shares = [_share(name, finished, rest) for name in names]
    shares.sort(key=lambda entry: -entry["share"])
    return shares, (
        f"Of {len(finished)} trials at full length: a cubic in log parameters is fitted to accuracy, and each bar is the "
        "share of the remaining variance that one choice explains, less what chance would give."
    )


def _remainders(finished: Sequence[Record]) -> np.ndarray:
    """Accuracy less what size predicts. Shape: (trials,)."""
    accuracy = np.array([r["accuracy"] for r in finished])
    size = np.log10([r["parameters"] for r in finished])
    degree = min(3, len(np.unique(size)) - 1)
    size = (size - size.mean()) / (size.std() or 1.0)
    weights = np.ones_like(accuracy)
    for _ in range(5):  # a few collapsed trainings must not bend the fit
        rest = accuracy - np.polyval(np.polyfit(size, accuracy, degree, w=weights), size)
        spread = 1.4826 * float(np.median(np.abs(rest))) or 1e-9
        weights = 1.0 / np.maximum(1.0, np.abs(rest) / (1.5 * spread))
    return np.clip(rest - np.median(rest), -3 * spread, 3 * spread)


def _share(name: str, finished: Sequence[Record], rest: np.ndarray) -> dict[str, Any]:
    having = [i for i, r in enumerate(finished) if name in (r.get("choices") or {})]
    labels = _groups([finished[i]["choices"][name] for i in having])
    values = rest[having]
    groups = {label: values[[i for i, other in enumerate(labels) if other == label]] for label in dict.fromkeys(labels)}
    between = sum(len(group) * (group.mean() - values.mean()) ** 2 for group in groups.values())
    within = sum(((group - group.mean()) ** 2).sum() for group in groups.values())
    chance = (len(groups) - 1) * within / max(len(values) - len(groups), 1)
    share = max(0.0, float(between - chance)) / (float(((rest - rest.mean()) ** 2).sum()) or 1.0)
    effects = [
        {"value": label, "trials": len(group), "effect": round(float(group.mean()), 5)} for label, group in groups.items()
    ]
    return {"choice": name, "share": round(min(share, 1.0), 4), "effects": effects}


def _groups(values: Sequence[Any]) -> list[str]:
    """The label of each value's group: the value itself, or a range where there are many numbers."""
    distinct = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    if len(distinct) <= MOST_GROUPS or any(isinstance(value, str) for value in distinct):
        rank = {value: position for position, value in enumerate(distinct)}
        assert rank
        return [_word(value) for value in values]
    edges = np.unique(np.quantile(np.array(values, float), np.linspace(0, 1, MOST_GROUPS + 1)[1:-1]))
    bins = np.searchsorted(edges, np.array(values, float))
    ranges = {b: [v for v, other in zip(values, bins, strict=True) if other == b] for b in set(bins.tolist())}
    return [f"{min(ranges[b]):g} to {max(ranges[b]):g}" for b in bins.tolist()]


def _word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) or value is None else str(value)


def _columns(run: Run) -> dict[str, list[Any]]:
    data = run.environment.get("data", {})
    facts = [
        _facts(json.dumps(r["architecture"]), data.get("input_shape", [1])[0], data.get("num_classes", 10))
        for r in run.records
    ]
    plain = ("trial", "parameters", "macs", "epochs", "reason", "seed", "worker", "peak_bytes", "duplicates")
    columns: dict[str, list[Any]] = {name: [r.get(name) for r in run.records] for name in plain}
    for name in ("seconds", "started", "finished", "accuracy", "loss"):
        columns[name] = [_rounded(r.get(name)) for r in run.records]
    columns["state"] = [STATES.index(r["state"]) for r in run.records]
    columns["fingerprint"] = [r["fingerprint"] for r in run.records]
    for name in ("network", "config", "drawing", "unshared", "parts"):
        columns[name] = [fact[name] for fact in facts]
    return columns


@functools.lru_cache(maxsize=20_000)
def _facts(text: str, channels: int, classes: int) -> dict[str, Any]:
    """What the page shows of one network beside its record; cached, for a page is rewritten many times during a run.

    unshared: parameters of the same network with free weights. parts: parameters per entry of PARTS.
    """
    architecture = Architecture.from_dict(json.loads(text))
    free = dataclasses.replace(architecture, sharing="none", anchors=1, residual=architecture.is_residual)
    sections = [[s.depth, s.width, s.regulators] for s in architecture.sections]
    parts: Counter[str] = Counter()
    for name, shape in tensor_shapes(architecture, channels, classes):
        parts[_part(name)] += math.prod(shape)
    return {
        "network": str(architecture),
        "config": [sections, architecture.sharing, architecture.anchors, architecture.residual, architecture.batch_norm],
        "drawing": _drawing(architecture),
        "unshared": count_parameters(free, channels, classes),
        "parts": [parts[part] for part in PARTS],
    }


def _part(tensor: str) -> str:
    keys = {"kernels.stem": "stem", "kernels.anchor": "shared kernels", "kernels.transition": "transitions"}
    keys |= {".regulator": "regulators", ".projection": "shortcuts", "classifier": "classifier", "norm": "batch norm"}
    return next(part for key, part in keys.items() if key in tensor)


def _drawing(architecture: Architecture) -> str:
    sections: list[list[str]] = [[] for _ in architecture.sections]
    for block in architecture.blocks:
        layers = [
            ("t" if layer.kernel.startswith("transition") else layer.kernel.removeprefix("anchor"))
            + "r" * layer.regulator
            for layer in block.layers
        ]
        sections[block.section].append(",".join(layers) + {"none": "", "identity": "=", "projection": "+"}[block.shortcut])
    return "/".join(" ".join(blocks) for blocks in sections)


def _curves(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Per trial the number of epochs and, thinned if there are many, accuracy and losses in whole numbers of 1e-4.

    Point i of m stands for epoch 1 + round(i (n - 1) / (m - 1)) of n.
    """
    kinds = ("accuracy", "loss", "train_loss")
    most = max(10, MOST_CURVE_POINTS // (len(kinds) * max(len(records), 1)))
    curves = [r.get("curve") or {} for r in records]
    columns: dict[str, list[Any]] = {kind: [_thinned(c.get(kind) or [], most) for c in curves] for kind in kinds}
    columns["length"] = [len(c.get("accuracy") or []) for c in curves]
    return columns


def _thinned(values: Sequence[float | None], most: int) -> list[int | None]:
    if len(values) > most:
        values = [values[math.floor(i * (len(values) - 1) / (most - 1) + 0.5)] for i in range(most)]
    return [None if value is None else round(1e4 * value) for value in values]


def _retrained(run: Run, indices: Mapping[int, int]) -> list[dict[str, Any]]:
    """One entry per retrained network with its seeds, smallest network first."""
    networks: dict[str, dict[str, Any]] = {}
    for record in run.retrained:
        if record["trial"] not in indices:
            continue
        config = run.folder / record["folder"] / "config.yaml"
        entry = networks.setdefault(
            record["fingerprint"],
            {
                "index": indices[record["trial"]],
                "folder": record["folder"],
                "config": config.read_text(errors="replace")[:20_000] if config.is_file() else None,
                "epochs": record["epochs"],
                "seeds": [],
            },
        )
        seed = {key: record.get(key) for key in ("seed", "test_accuracy", "test_loss", "seconds")}
        seed["train_loss"] = _thinned((record.get("curve") or {}).get("train_loss") or [], 200)
        entry["seeds"].append(seed)
    return sorted(networks.values(), key=lambda entry: run.records[entry["index"]]["parameters"])


def _choices(records: Sequence[Record]) -> dict[str, list[Any]]:
    """A column per choice; null where a trial did not have it."""
    names = dict.fromkeys(name for r in records for name in r.get("choices") or {})
    return {name: [(r.get("choices") or {}).get(name) for r in records] for name in names}


def _beats(one: Record, other: Record) -> bool:
    return one["parameters"] <= other["parameters"] and one["accuracy"] >= other["accuracy"]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _shown_path(folder: Path) -> str:
    """The folder as a user would type it: relative to the working directory if it lies below."""
    absolute = folder.resolve()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise RunDirectoryError(f"{path} must hold a mapping, but holds {type(values).__name__}")
    return values


def space_hash(folder: Path) -> str:
    """Tells whether two runs searched the same space: a hash of `space.yaml`, or of the folder's path without one."""
    space = folder / "space.yaml"
    return hashlib.sha256(space.read_bytes() if space.is_file() else str(folder.resolve()).encode()).hexdigest()[:16]
