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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dacnn_search.common.files import new_folder
from dacnn_search.common.machine import package_versions
from dacnn_search.common.privacy import relative_path
from dacnn_search.export.folder import NetworkInput, config_text, describe_network, describe_training, write_folder
from dacnn_search.network.architecture import Architecture
from dacnn_search.paper.data import PaperData
from dacnn_search.paper.experiments import Conditions, Member
from dacnn_search.storage.ledger import now
from dacnn_search.training.recipe import Recipe

__all__ = ["CHECKPOINTS", "LEDGER", "Record", "Task", "network_folder", "records_of", "write_network"]

LEDGER, CHECKPOINTS = "trainings.jsonl", "checkpoints"

Record = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Task:
    """One training of one network under some conditions."""

    member: Member
    data: PaperData
    conditions: Conditions
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.member.network} on {self.member.dataset}, seed {self.seed}"

    @cached_property
    def architecture(self) -> Architecture:
        return self.conditions.architecture(self.member.network)

    @cached_property
    def recipe(self) -> Recipe:
        return self.conditions.recipe_for(self.member.dataset)

    @cached_property
    def key(self) -> str:
        """The identity of network, data, recipe and seed: 16 hex digits."""
        recipe = self.recipe.model_dump(mode="json", exclude={"compiled"})
        identity = [self.architecture.fingerprint, self.data.digest, recipe, self.seed]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    @property
    def work(self) -> float:
        """Multiply-accumulates of the training: a training image takes three times those of a test image."""
        images = 3.0 * len(self.data.images.train) + len(self.data.images.test)
        return self.data.cost(self.architecture).macs * self.recipe.epochs * images

    def record(self, result: Mapping[str, Any]) -> Record:
        """Return what the ledger is told of this training, with its result."""
        images, cost = self.data.images, self.data.cost(self.architecture)
        return {
            "key": self.key,
            "network": self.member.network,
            "scale": self.conditions.scale,
            "fingerprint": self.architecture.fingerprint,
            "architecture": self.architecture.to_dict(),
            "data": {"name": images.name, "digest": self.data.digest, "test": len(images.test)},
            "parameters": cost.parameters,
            "macs": cost.macs,
            "seed": self.seed,
            "epochs": self.recipe.epochs,
            "train_images": len(images.train),
            **{name: value for name, value in result.items() if name != "weights"},
            "recipe": self.recipe.model_dump(mode="json"),
            "versions": package_versions(),
            "command": list(map(relative_path, sys.argv)),
            "time": now(),
        }


def records_of(task: Task, records: Sequence[Record]) -> list[Record]:
    """Return the records of a task's network, data and recipe, compiled or not: one per seed, whichever it is."""
    by_seed = {
        record["seed"]: record
        for record in records
        if (record["fingerprint"], record["data"]["digest"]) == (task.architecture.fingerprint, task.data.digest)
        and Recipe.model_validate({**record["recipe"], "compiled": task.recipe.compiled}) == task.recipe
    }
    return [by_seed[seed] for seed in sorted(by_seed)]


def network_folder(results: Path, record: Record) -> Path:
    """Return the folder of a record's trained network."""
    return results / "networks" / f"{record['network']}-{record['key']}"


def write_network(task: Task, record: Record, weights: bytes, target: Path) -> None:
    """Write a trained network to a folder like those of an export."""
    scale, images, config = task.conditions.scale, task.data.images, task.data.config
    name = task.member.network + (f", widths times {scale:g}" if scale != 1 else "")
    metrics = describe_network(task.architecture, NetworkInput.of(images), name)
    metrics["training"] = describe_training([record], images, config)
    with new_folder(target, replace=True) as folder:
        text = config_text(task.architecture, config, record["recipe"], task.seed, name)
        write_folder(folder, text, weights, metrics, target.name)
