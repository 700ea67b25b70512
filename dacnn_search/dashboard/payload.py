"""What the page of a run shows, computed from its directory: plain values for JSON, small enough for a page.

Trials are columns (one list per field, in the order of the ledger), curves are whole numbers of 1e-4, and a
network's drawing is a short text: sections are joined by `/`, blocks by a space, layers by `,`. A layer is `t`
(a transition) or the number of its anchor, then `r` if a regulator follows; a block ends in `=` (identity
shortcut), `+` (projection) or nothing.
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

from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.common.files import read_json
from dacnn_search.dashboard.importance import importance
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import count_parameters, tensor_shapes
from dacnn_search.space.settings import SpaceSettings
from dacnn_search.space.validation import validate
from dacnn_search.storage.environment import read_environment
from dacnn_search.storage.front import Record, Scale, front_of
from dacnn_search.storage.ledger import read_ledger
from dacnn_search.storage.resume import FREE
from dacnn_search.storage.run_directory import RETRAINED, TRIAL
from dacnn_search.storage.trained import TrainedNetwork, judge, trained_networks

__all__ = ["Run", "hypervolumes", "read_run", "run_payload"]

STATES = ("COMPLETE", "PRUNED", "FAIL")
SHORTCUTS = {"none": "", "identity": "=", "projection": "+"}
# Which part of a network a tensor belongs to: the first of these that its name contains.
PART_OF = {
    "kernels.stem": "stem",
    "kernels.anchor": "kernels",
    "kernels.transition": "transitions",
    ".regulator": "regulators",
    ".projection": "shortcuts",
    "norm": "batch norm",
    "classifier": "classifier",
}
PARTS = tuple(PART_OF.values())
MOST_CURVE_POINTS = 240_000  # of all trials together, about 1.2 MB


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
    def description(self) -> str:
        return str(self.environment.get("description") or "")

    @property
    def state(self) -> str:
        return str(self.status.get("state", "unknown"))

    @property
    def data(self) -> dict[str, Any]:
        return self.environment.get("data") or {}

    @property
    def scale(self) -> Scale:
        """What hypervolume is measured in; of a run that doesn't say, from its own trials."""
        space = self.environment.get("space") or {}
        sizes = [r["parameters"] for r in self.records] or [1]
        chance = 1 / (self.data.get("num_classes") or 10)
        return Scale(space.get("least") or min(sizes), space.get("most") or max(sizes), chance)

    @functools.cached_property
    def front(self) -> list[Record]:
        return front_of(self.records)

    @functools.cached_property
    def networks(self) -> list[TrainedNetwork]:
        return trained_networks(self.folder, self.data, self.retrained)

    @functools.cached_property
    def given(self) -> dict[str, Any] | None:
        """The search space as the run was given it, with all defaults; None if the run does not know it."""
        given = (self.environment.get("space") or {}).get("given")
        if not given:
            return None
        settings, _ = validate(given, SpaceSettings)
        return None if settings is None else settings.model_dump(mode="json")

    @functools.cached_property
    def space_hash(self) -> str:
        """The same for runs of one space, whatever their budgets: a hash of what the run was given; if it does not know
        that, of `space.yaml`; without that file, of the folder's path."""
        file = self.folder / "space.yaml"
        if self.given is not None:
            content = json.dumps({key: value for key, value in self.given.items() if key not in FREE}, sort_keys=True)
        else:
            content = file.read_text(encoding="utf-8") if file.is_file() else str(self.folder.resolve())
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def read_run(folder: Path) -> Run:
    """Read a run directory; only `trials.jsonl` and `environment.json` must be there.

    Raises RunDirectoryError if one of the two is missing or anything is damaged.
    """
    for name in ("environment.json", "trials.jsonl"):
        if not (folder / name).is_file():
            raise RunDirectoryError(f"{folder}: a run directory must hold {name}, but this one does not")
    retrained, status = folder / "retrained.jsonl", folder / "status.json"
    trainings = read_ledger(retrained, RETRAINED) if retrained.exists() else []
    return Run(
        folder,
        read_environment(folder / "environment.json", ("data",) if trainings else ()),
        read_ledger(folder / "trials.jsonl", TRIAL),
        trainings,
        read_json(status) if status.exists() else {},
    )


def run_payload(run: Run) -> dict[str, Any]:
    """Everything the page of one run shows."""
    indices = {record["trial"]: index for index, record in enumerate(run.records)}
    shares, note = importance(run.records)
    return {
        "run": {**run.environment, "name": run.name, "folder": _shown_path(run.folder)},
        "status": run.status,
        "references": run.environment.get("references") or [],
        "states": STATES,
        "parts": PARTS,
        "trials": _columns(run),
        "curves": _curves(run.records),
        "front": [indices[record["trial"]] for record in run.front],
        "hypervolume": hypervolumes(run.records, run.scale),
        "retrained": _retrained(run, indices),
        "judgement": str(judge(run.networks) or "") or None,
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


def _columns(run: Run) -> dict[str, list[Any]]:
    channels = (run.data.get("input_shape") or [1])[0]
    classes = run.data.get("num_classes") or 10
    facts = [_facts(json.dumps(r["architecture"]), channels, classes) for r in run.records]
    plain = ("trial", "parameters", "macs", "epochs", "reason", "duplicates", "fingerprint")
    columns: dict[str, list[Any]] = {name: [r.get(name) for r in run.records] for name in plain}
    for name in ("seconds", "finished", "accuracy"):
        columns[name] = [_rounded(r.get(name)) for r in run.records]
    columns["trainings"] = [len(r.get("accuracies") or [None]) for r in run.records]  # whose mean the accuracy is
    columns["state"] = [STATES.index(r["state"]) for r in run.records]
    for name in ("network", "config", "drawing", "unshared", "parts"):
        columns[name] = [fact[name] for fact in facts]
    return columns


@functools.lru_cache(maxsize=20_000)
def _facts(text: str, channels: int, classes: int) -> dict[str, Any]:
    """What the page shows of one network beside its record; cached, for a page is often rewritten during a run.

    unshared: parameters of the same network with free weights. parts: parameters per entry of PARTS.
    """
    architecture = Architecture.from_dict(json.loads(text))
    free = dataclasses.replace(architecture, sharing="none", anchors=1, residual=architecture.is_residual)
    sections = [[s.depth, s.width, s.regulators] for s in architecture.sections]
    parts: Counter[str] = Counter()
    for name, shape in tensor_shapes(architecture, channels, classes):
        part = next(part for key, part in PART_OF.items() if key in name)
        parts[part] += math.prod(shape)
    return {
        "network": str(architecture),
        "config": [
            sections,
            architecture.sharing,
            architecture.anchors,
            architecture.residual,
            architecture.batch_norm,
        ],
        "drawing": _drawing(architecture),
        "unshared": count_parameters(free, channels, classes),
        "parts": [parts[part] for part in PARTS],
    }


def _drawing(architecture: Architecture) -> str:
    sections: list[list[str]] = [[] for _ in architecture.sections]
    for block in architecture.blocks:
        layers = [
            ("t" if layer.kernel.startswith("transition") else layer.kernel.removeprefix("anchor"))
            + "r" * layer.regulator
            for layer in block.layers
        ]
        sections[block.section].append(",".join(layers) + SHORTCUTS[block.shortcut])
    return "/".join(" ".join(blocks) for blocks in sections)


def _curves(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Per trial the number of epochs, and accuracy and losses in whole numbers of 1e-4, thinned if there are many.

    Point i of m stands for epoch 1 + round(i (n - 1) / (m - 1)) of n.
    """
    kinds = ("accuracy", "loss", "train_loss")
    most = max(10, MOST_CURVE_POINTS // (len(kinds) * max(len(records), 1)))
    curves = [r.get("curve") or {} for r in records]
    columns: dict[str, list[Any]] = {kind: [_thinned(c.get(kind), most) for c in curves] for kind in kinds}
    columns["length"] = [len(c.get("accuracy") or []) for c in curves]
    return columns


def _thinned(values: Sequence[float | None] | None, most: int) -> list[int | None]:
    values = values or []
    if len(values) > most:
        values = [values[math.floor(i * (len(values) - 1) / (most - 1) + 0.5)] for i in range(most)]
    return [None if value is None else round(1e4 * value) for value in values]


def _retrained(run: Run, indices: Mapping[int, int]) -> list[dict[str, Any]]:
    """One entry per retrained network with its seeds, smallest network first."""
    networks = []
    for network in run.networks:
        if network.trial not in indices:  # a trial that the ledger lost: it is to be trained again
            continue
        config = network.folder / "config.yaml"
        networks.append(
            {
                "index": indices[network.trial],
                "folder": network.folder.relative_to(run.folder).as_posix(),
                "config": config.read_text(errors="replace") if config.is_file() else None,
                "seeds": [{key: r[key] for key in ("seed", "epochs", "test_accuracy")} for r in network.records],
            }
        )
    return networks


def _choices(records: Sequence[Record]) -> dict[str, list[Any]]:
    """A column per choice; null where a trial did not have it."""
    names = dict.fromkeys(name for r in records for name in r.get("choices") or {})
    return {name: [(r.get("choices") or {}).get(name) for r in records] for name in names}


def _beats(one: Record, other: Record) -> bool:
    return bool(one["parameters"] <= other["parameters"] and one["accuracy"] >= other["accuracy"])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _shown_path(folder: Path) -> str:
    """The folder as a user would type it: relative to the working directory if it lies below."""
    absolute = folder.resolve()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)
