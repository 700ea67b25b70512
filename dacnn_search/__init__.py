"""Neural architecture search over weight-sharing CNNs (Deep Anchored CNNs).

The names below are loaded when they are first used, so that `import dacnn_search` takes no time:

| name | what it is |
|---|---|
| `Architecture` | a frozen description of one network |
| `build` | an architecture, or a name of the zoo, as a `torch.nn.Module` |
| `count_parameters` | trainable scalars of an architecture, a shared kernel counted once |
| `SearchSpace` | the networks that a YAML file describes: `SearchSpace.from_yaml("space.yaml")` |
| `search` | search a space; returns its run directory |
| `retrain` | train networks of a run's front in full |
| `load_run` | a run directory: `load_run("results/digits").best(max_parameters=50_000)` |
| `export` | write a network to a folder: weights, ONNX, `torch.export`, model card |
| `load_model` | a network from such a folder, ready for use |
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dacnn_search.architecture import Architecture
    from dacnn_search.cost import count_parameters
    from dacnn_search.exports.classifier import load_model
    from dacnn_search.exports.exporting import export
    from dacnn_search.model import build
    from dacnn_search.retrain import retrain
    from dacnn_search.run_directory import load_run
    from dacnn_search.search import search
    from dacnn_search.space import SearchSpace

__all__ = [
    "Architecture",
    "SearchSpace",
    "build",
    "count_parameters",
    "export",
    "load_model",
    "load_run",
    "retrain",
    "search",
]

_HOMES = {
    "Architecture": "dacnn_search.architecture",
    "SearchSpace": "dacnn_search.space",
    "build": "dacnn_search.model",
    "count_parameters": "dacnn_search.cost",
    "export": "dacnn_search.exports.exporting",
    "load_model": "dacnn_search.exports.classifier",
    "load_run": "dacnn_search.run_directory",
    "retrain": "dacnn_search.retrain",
    "search": "dacnn_search.search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """This package, which keeps `search`, `retrain` and `export` functions although modules have these names too.

    After importing a submodule Python sets it as an attribute of its package; for these names that is left out here,
    so that `__getattr__` above answers, whatever was imported before. `import dacnn_search.search` and
    `from dacnn_search.search import ...` find the module in `sys.modules` as ever.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
