"""The trainings of the paper's experiments: their images, their identity, what is kept of them."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dacnn_search.common.files import new_folder
from dacnn_search.common.machine import package_versions
from dacnn_search.common.privacy import relative_path
from dacnn_search.data.dataset import DataConfig, ImageData, load
from dacnn_search.data.published import KNOWN_SETS
from dacnn_search.export.folder import describe_trained, write_folder
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import Cost, estimate_cost
from dacnn_search.paper.experiments import Conditions, Member
from dacnn_search.storage.front import Record
from dacnn_search.storage.ledger import now
from dacnn_search.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class PaperData:
    """A data set in memory, without a validation part."""

    dataset: str  # its name in the paper
    config: DataConfig  # where the images were read from
    images: ImageData
    digest: str  # the identity of all images and labels, wherever they were read from: 16 hex digits

    def cost(self, architecture: Architecture) -> Cost:
        """Return the size of a network for these images."""
        return estimate_cost(architecture, self.images.input_shape, self.images.num_classes)

    @property
    def is_whole(self) -> bool:
        """True if there are as many images and classes as in the published data set."""
        known, images = KNOWN_SETS[self.dataset], self.images
        published = (sum(known.train_counts), sum(known.test_counts), len(known.train_counts))
        return (len(images.train), len(images.test), images.num_classes) == published

    @property
    def note(self) -> str:
        """The sizes, and how uncertain an error on these test images is."""
        known, images = KNOWN_SETS[self.dataset], self.images
        origin = "" if images.name == self.dataset else f" (from {Path(self.config.root or '').name})"
        deviation = 50 / len(images.test) ** 0.5  # points: the largest standard error of a share of so many images
        published = f"{sum(known.train_counts):,} and {sum(known.test_counts):,} images of {len(known.train_counts)}"
        return (
            f"{self.dataset}{origin}: {len(images.train):,} training and {len(images.test):,} test images, "
            f"{images.num_classes} classes. The test images alone give an error a standard error of up to "
            f"{deviation:.2f} points, a difference of two {2**0.5 * deviation:.2f}; the seed adds to that."
            f"{'' if self.is_whole else f' The published set has {published}.'}"
        )


def load_data(dataset: str, path: str, subset: int | None) -> PaperData:
    """Load a data set from an .npz file, or a folder to which it is downloaded. Raises DataError."""
    name = "npz" if path.endswith(".npz") else dataset
    config = DataConfig(name=name, root=path, validation=0.0, subset=subset)  # type: ignore[arg-type]
    images = load(config).with_validation_in_train()
    digest = hashlib.sha256(str(images.num_classes).encode())
    for split in (images.train, images.test):
        digest.update(str(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return PaperData(dataset, config, images, digest.hexdigest()[:16])


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

    def find(self, records: Sequence[Record]) -> list[Record]:
        """Return the records of this network, data and recipe, compiled or not: one per seed, whichever it is."""
        by_seed = {
            record["seed"]: record
            for record in records
            if (record["fingerprint"], record["data"]["digest"]) == (self.architecture.fingerprint, self.data.digest)
            and Recipe.model_validate({**record["recipe"], "compiled": self.recipe.compiled}) == self.recipe
        }
        return [by_seed[seed] for seed in sorted(by_seed)]

    def write_network(self, record: Record, weights: bytes, results: Path) -> None:
        """Write the trained network to a folder like those of an export."""
        scale = self.conditions.scale
        name = self.member.network + (f", widths times {scale:g}" if scale != 1 else "")
        config, metrics = describe_trained(self.architecture, [record], self.data.images, self.data.config, name)
        target = network_folder(results, record)
        with new_folder(target, replace=True) as folder:
            write_folder(folder, config, weights, metrics, target.name)


def network_folder(results: Path, record: Record) -> Path:
    """Return the folder of a record's trained network."""
    return results / "networks" / f"{record['network']}-{record['key']}"
