"""`environment.json` of a run directory: what was searched, with which settings, on which machine."""

import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import RunDirectoryError
from dacnn_search.common.files import read_json
from dacnn_search.common.machine import git_commit, gpu_names, package_versions, processor_name
from dacnn_search.space.count import count_networks
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.ledger import now

__all__ = ["FORMAT", "describe_run", "given_facts", "read_environment"]


FORMAT = 1  # of the files in a run directory; a run of a later format is refused


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


# What environment.json must say: (part, key) -> rule, whether a value keeps it.
FACTS: dict[tuple[str, str], tuple[str, Callable[[Any], bool]]] = {
    ("data", "input_shape"): (
        "three whole numbers from 1 on",
        lambda value: isinstance(value, list) and len(value) == 3 and all(map(_whole(1), value)),
    ),
    ("data", "num_classes"): ("a whole number from 1 on", _whole(1)),
    ("space", "least"): ("a whole number from 1 on", _whole(1)),
    ("space", "most"): ("a whole number from 1 on", _whole(1)),
}


def read_environment(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """What an `environment.json` says. Raises RunDirectoryError if it can't be read, lacks one of the parts that are
    `needed`, or says of data or space what can't be."""
    values = read_json(path)
    for (part, key), (rule, kept) in FACTS.items():
        facts = values.get(part, {})
        found = facts.get(key) if isinstance(facts, dict) else None
        if (part in needed or facts != {}) and not kept(found):
            raise RunDirectoryError(f"{path}: {part} must have {key}, {rule}, but has {found!r}")
    return values


def describe_run(name: str, space: SearchSpace, class_names: Sequence[str], settings: dict[str, Any]) -> dict[str, Any]:
    data = space.settings.data
    return {
        "format": FORMAT,
        "name": name,
        "started": now(),
        **settings,
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **package_versions()},
        "machine": {
            "host": platform.node(),
            "platform": platform.platform(),
            "cpu": processor_name(),
            "cpus": os.cpu_count(),
            "gpus": gpu_names(),
        },
        "git_commit": git_commit(),
        "data": {
            "name": data.name if data.root is None else f"{data.name} {data.root}",
            "input_shape": space.input_shape,
            "num_classes": space.num_classes,
            "class_names": list(class_names),
            "train": space.summary.train_size,
            "validation": space.summary.validation_size,
            "test": space.summary.test_size,
        },
        "epochs": space.settings.recipe.epochs,
        "recipe": space.settings.recipe.model_dump(mode="json"),
        **given_facts(space),
    }


def given_facts(space: SearchSpace) -> dict[str, Any]:
    """What a run's file may say otherwise when the run goes on."""
    least, most = space.extremes()
    limits = space.settings.constraints
    return {
        "description": space.settings.description,
        "references": [reference.model_dump(mode="json") for reference in space.settings.references],
        "space": {
            "networks": count_networks(space.tree),
            "least": least.parameters,
            "most": most.parameters,
            "given": space.values,
            "constraints": {
                key: limit.max if (limit := getattr(limits, key)) else None for key in ("parameters", "macs")
            },
        },
    }
