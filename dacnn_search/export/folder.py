"""The folder of one trained network: config, weights, what was measured, model card. Needs no torch.

| file | what it holds |
|---|---|
| `config.yaml` | architecture, data and recipe: `python -m dacnn_search.train --config` trains it again |
| `weights.safetensors` | the parameters in float32, each shared kernel once |
| `metrics.json` | what is known and measured, and what the network takes (`input`): shape, mean, std, classes |
| `README.md` | the model card, written from `metrics.json` |

An export adds `model.onnx`, `model.pt2` and smaller variants of the weights.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import InputError
from dacnn_search.common.files import sha256_of, write_atomic
from dacnn_search.common.machine import package_versions
from dacnn_search.common.yaml import dump_yaml, read_yaml
from dacnn_search.data.dataset import DataConfig, ImageData
from dacnn_search.export.card import model_card
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import InputShape, estimate_cost
from dacnn_search.space.settings import TrainSettings
from dacnn_search.space.validation import read_settings

__all__ = [
    "CONFIG",
    "METRICS",
    "WEIGHTS",
    "NetworkInput",
    "config_text",
    "describe_network",
    "read_architecture",
    "read_data_config",
    "read_input",
    "read_metrics",
    "write_metrics",
]

CONFIG, WEIGHTS, METRICS, CARD = "config.yaml", "weights.safetensors", "metrics.json", "README.md"
FORMAT = 1


@dataclass(frozen=True)
class NetworkInput:
    """What a network takes and what its outputs mean.

    shape: (C, H, W). mean, std: per channel, of pixels in [0, 1]; the network's own input is (pixel - mean) / std.
    """

    shape: InputShape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, data: ImageData) -> "NetworkInput":
        """That of a network trained on `data`."""
        return cls(data.input_shape, data.mean, data.std, data.class_names)


def config_text(
    architecture: Architecture,
    data: DataConfig | None = None,
    recipe: Mapping[str, Any] | None = None,
    seed: int = 0,
    name: str | None = None,
) -> str:
    """`config.yaml`, to be read as `TrainSettings`; the root of the data made absolute. A network that was not trained
    by this package has no data or recipe there."""
    values: dict[str, Any] = {"name": name} if name is not None else {}
    values["architecture"] = architecture.to_dict()
    if data is not None:
        values["data"] = _data_values(data)
    if recipe is not None:
        values |= {"recipe": dict(recipe), "seed": seed}
    return dump_yaml(values)


def describe_network(architecture: Architecture, given: NetworkInput, name: str | None = None) -> dict[str, Any]:
    """What `metrics.json` says of any network, trained or not."""
    cost = estimate_cost(architecture, given.shape, len(given.classes))
    return {
        "format": FORMAT,
        "name": name,
        "network": str(architecture),
        "architecture": architecture.to_dict(),
        "fingerprint": architecture.fingerprint,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "file_bytes": cost.file_bytes,
        "input": asdict(given),
        "versions": package_versions(),
    }


def write_metrics(folder: Path, metrics: Mapping[str, Any], name: str | None = None) -> None:
    """Write `metrics.json`, the weights' size and checksum added, and the model card.

    name: what the folder will be called, if it is still being built.
    """
    weights = folder / WEIGHTS
    files = {WEIGHTS: {"bytes": weights.stat().st_size, "sha256": sha256_of(weights)}, **metrics.get("files", {})}
    complete = {**metrics, "files": files}
    write_atomic(folder / METRICS, json.dumps(complete, indent=2, ensure_ascii=False) + "\n")
    write_atomic(folder / CARD, model_card(complete, name or folder.name))


def read_metrics(folder: Path) -> dict[str, Any]:
    """Raises InputError if the folder is not one of a trained network or of a later format."""
    path = folder / METRICS
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{folder}: the folder of a trained network must hold {METRICS}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: must be JSON, but: {error}") from error
    found = values.get("format") if isinstance(values, dict) else None
    if not isinstance(found, int) or not 1 <= found <= FORMAT:
        raise InputError(f"{path}: the format must be 1 to {FORMAT}, but is {found!r}")
    return dict(values)


def read_input(folder: Path) -> NetworkInput:
    """What the network of a folder takes. Raises InputError if `metrics.json` does not say it."""
    given = read_metrics(folder).get("input")
    try:
        shape, mean, std, classes = (tuple(given[key]) for key in ("shape", "mean", "std", "classes"))  # type: ignore[index]
        channels, height, width = shape
        sizes = all(type(size) is int and size > 0 for size in shape)
        numbers = all(type(value) in (int, float) and math.isfinite(value) for value in (*mean, *std))
        if not (sizes and numbers and len(mean) == len(std) == channels and all(std) and classes):
            raise ValueError(f"they are {given}")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / METRICS}: input must have shape (C, H, W), C values of mean and std, and classes, but: {error}"
        ) from error
    return NetworkInput((channels, height, width), mean, std, tuple(str(name) for name in classes))


def read_architecture(folder: Path) -> Architecture:
    """The architecture in `config.yaml`, whatever else stands there. Raises InputError with file and line."""
    document = read_yaml(folder / CONFIG)
    values = document.data.get("architecture") if isinstance(document.data, dict) else None
    try:
        return Architecture.from_dict(values)  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{document.where(('architecture',))}: {error}") from error


def read_data_config(folder: Path) -> DataConfig | None:
    """The data that `config.yaml` names, None if it names none. Raises InputError with file and line."""
    document = read_yaml(folder / CONFIG)
    if not isinstance(document.data, dict) or "data" not in document.data:
        return None
    settings: TrainSettings = read_settings(folder / CONFIG, TrainSettings)[0]
    return settings.data


def _data_values(data: DataConfig) -> dict[str, Any]:
    values = {key: value for key, value in data.model_dump(mode="json").items() if value is not None}
    if data.root is not None:
        values["root"] = str(Path(data.root).expanduser().resolve())
    if data.name != "folder":
        del values["channels"]
    return values
