"""`environment.json` of a run directory: what was searched, with which settings, on which machine."""

import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

from dacnn_search.common.machine import git_commit, gpu_names, package_versions, processor_name
from dacnn_search.common.privacy import mask_command
from dacnn_search.space.count import count_networks
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.ledger import now

__all__ = ["FORMAT", "describe_run", "describe_space"]

FORMAT = 1  # of the files in a run directory; a run of a later format is refused


def describe_run(name: str, space: SearchSpace, class_names: Sequence[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of a new run's `environment.json`. Secrets of the command line are masked."""
    data = space.settings.data
    return {
        "format": FORMAT,
        "name": name,
        "started": now(),
        **settings,
        "command": mask_command(sys.argv),
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
        **describe_space(space),
    }


def describe_space(space: SearchSpace) -> dict[str, Any]:
    """Return the parts of `environment.json` that follow from the space file, which may change on resuming."""
    least, most = space.extremes()
    return {
        "description": space.settings.description,
        "references": [reference.model_dump(mode="json") for reference in space.settings.references],
        "space": {
            "networks": count_networks(space.tree),
            "least": least.parameters,
            "most": most.parameters,
            "given": space.values,
            "constraints": {name: limit and limit.max for name, limit in space.settings.constraints},
        },
    }
