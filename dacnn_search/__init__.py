"""Neural architecture search over weight-sharing CNNs (Deep Anchored CNNs).

The names below are loaded when they are first used, so that `import dacnn_search` takes no time:

| name | what it is |
|---|---|
| `Architecture` | a frozen description of one network |
| `build` | an architecture, or a name of the zoo, as a `torch.nn.Module` |
| `count_parameters` | trainable scalars of an architecture, a shared kernel counted once |
| `SearchSpace` | the networks that a YAML file describes: `SearchSpace.from_yaml("space.yaml")` |
| `run_search` | search a space; returns its run directory |
| `retrain` | train networks of a run's front in full |
| `load_run` | a run directory: `load_run("results/digits").best(max_parameters=50_000)` |
| `export_network` | write a network to a folder: weights, ONNX, `torch.export`, C code, model card |
| `load_model` | a network from such a folder, ready for use |
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dacnn_search.export.classifier import load_model
    from dacnn_search.export.exporter import export_network
    from dacnn_search.network.architecture import Architecture
    from dacnn_search.network.cost import count_parameters
    from dacnn_search.network.model import build
    from dacnn_search.search.retrain import retrain
    from dacnn_search.search.search import run_search
    from dacnn_search.space.search_space import SearchSpace
    from dacnn_search.storage.run_directory import load_run

__all__ = [
    "Architecture",
    "SearchSpace",
    "build",
    "count_parameters",
    "export_network",
    "load_model",
    "load_run",
    "retrain",
    "run_search",
]

_HOMES = {
    "Architecture": "dacnn_search.network.architecture",
    "SearchSpace": "dacnn_search.space.search_space",
    "build": "dacnn_search.network.model",
    "count_parameters": "dacnn_search.network.cost",
    "export_network": "dacnn_search.export.exporter",
    "load_model": "dacnn_search.export.classifier",
    "load_run": "dacnn_search.storage.run_directory",
    "retrain": "dacnn_search.search.retrain",
    "run_search": "dacnn_search.search.search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
