"""The folder of all trainings that were done for the paper's experiments, whichever table or figure needed them.

| | |
|---|---|
| `trainings.jsonl` | a ledger with a line per network, data, recipe and seed |
| `networks/<name>-<key>/` | the trained networks, as folders like those of an export |
| `checkpoints/` | of trainings that are not finished |
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from dacnn_search.common.files import replace_folder
from dacnn_search.common.machine import package_versions
from dacnn_search.export.folder import (
    WEIGHTS,
    NetworkInput,
    config_text,
    describe_network,
    describe_training,
    write_network,
)
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import Cost, estimate_cost
from dacnn_search.paper.data import PaperData
from dacnn_search.paper.experiments import Conditions, Member
from dacnn_search.storage.checkpoint import Checkpoints
from dacnn_search.storage.ledger import Ledger, now
from dacnn_search.training.recipe import Recipe

__all__ = ["LEDGER", "NETWORKS", "Archive", "Task"]

LEDGER, NETWORKS = "trainings.jsonl", "networks"

Record = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Task:
    """One training of one network. `scale` is the factor of its widths."""

    member: Member
    data: PaperData
    architecture: Architecture
    recipe: Recipe
    seed: int
    scale: float = 1.0

    @classmethod
    def of(cls, member: Member, data: PaperData, conditions: Conditions, seed: int = 0) -> Self:
        """Return the training of a network under some conditions."""
        architecture, recipe = conditions.architecture(member.network), conditions.recipe_for(member.dataset)
        return cls(member, data, architecture, recipe, seed, conditions.scale)

    def __str__(self) -> str:
        return f"{self.member.network} on {self.member.dataset}, seed {self.seed}"

    @cached_property
    def key(self) -> str:
        """The identity of network, data, recipe and seed: 16 hex digits."""
        recipe = self.recipe.model_dump(mode="json", exclude={"compiled"})
        identity = [self.architecture.fingerprint, self.data.digest, recipe, self.seed]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    @cached_property
    def cost(self) -> Cost:
        """The size of the network."""
        return estimate_cost(self.architecture, self.data.images.input_shape, self.data.images.num_classes)

    @property
    def work(self) -> float:
        """Multiply-accumulates of the training: a training image takes three times those of a test image."""
        images = self.data.images
        return self.cost.macs * self.recipe.epochs * (3.0 * len(images.train) + len(images.test))

    def has(self, record: Record) -> bool:
        """Return whether a record is of this network, data and recipe, compiled or not, with whatever seed."""
        if (record["fingerprint"], record["data"]["digest"]) != (self.architecture.fingerprint, self.data.digest):
            return False
        recipe = Recipe.model_validate(record["recipe"])
        return recipe.model_copy(update={"compiled": self.recipe.compiled}) == self.recipe


class Archive:
    """Keeps trainings. The caller holds the lock of the folder."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.networks = folder / NETWORKS
        self._ledger = ledger
        self.checkpoints = Checkpoints(folder / "checkpoints")

    def records_of(self, task: Task) -> list[Record]:
        """Return the records of a task's network, one per seed, also of seeds that are not asked for."""
        by_seed = {record["seed"]: record for record in self._ledger.records if task.has(record)}
        return [by_seed[seed] for seed in sorted(by_seed)]

    def has(self, task: Task, *, weights: bool) -> bool:
        """Return whether a training is done; with `weights` the trained network must still be there, too."""
        keys = [record["key"] for record in self.records_of(task) if record["seed"] == task.seed]
        return any(not weights or (self._folder(task, key) / WEIGHTS).is_file() for key in keys)

    def keep(self, task: Task, result: dict[str, Any]) -> Record:
        """Write the trained network, then the record that speaks of it, which is returned."""
        images = task.data.images
        weights = result.pop("weights")
        record = {
            "key": task.key,
            "network": task.member.network,
            "scale": task.scale,
            "fingerprint": task.architecture.fingerprint,
            "architecture": task.architecture.to_dict(),
            "data": {"name": images.name, "digest": task.data.digest, "test": len(images.test)},
            "parameters": task.cost.parameters,
            "macs": task.cost.macs,
            "seed": task.seed,
            "epochs": task.recipe.epochs,
            "train_images": len(images.train),
            **result,
            "recipe": task.recipe.model_dump(mode="json"),
            "versions": package_versions(),
            "command": [_without_folder(argument) for argument in sys.argv],
            "time": now(),
        }
        if record["reason"] is None:
            self._write_network(task, record, weights)
        kept = self._ledger.append(record)
        self.checkpoints.drop(task.key)
        return kept

    def _write_network(self, task: Task, record: Record, weights: bytes) -> None:
        name = task.member.network + (f", widths times {task.scale:g}" if task.scale != 1 else "")
        metrics = describe_network(task.architecture, NetworkInput.of(task.data.images), name)
        metrics["training"] = describe_training([record], task.data.images, task.data.config)
        config = config_text(task.architecture, task.data.config, record["recipe"], task.seed, name)
        target = self._folder(task, task.key)
        with replace_folder(target) as folder:
            write_network(folder, config, weights, metrics, target.name)

    def _folder(self, task: Task, key: str) -> Path:
        return self.networks / f"{task.member.network}-{key}"


def _without_folder(argument: str) -> str:
    """Strip a command's argument of the folder in which this machine keeps a file."""
    key, equals, value = argument.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if Path(value).is_absolute() else argument
