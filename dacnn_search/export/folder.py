"""The folder of one trained network: config, weights, metrics, model card. Needs no torch.

| file | content |
|---|---|
| `config.yaml` | architecture, data and recipe: `python -m dacnn_search.train --config` trains the network again |
| `weights.safetensors` | the parameters in float32, each shared kernel once |
| `metrics.json` | what was computed and measured, and the network's `input`: shape, mean, std, classes |
| `README.md` | the model card, written from `metrics.json` |

An export adds the files in `EXPORTS`.
"""

import json
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from dacnn_search.common.errors import InputError
from dacnn_search.common.files import new_folder, sha256_of, write_atomic
from dacnn_search.common.machine import package_versions
from dacnn_search.common.yaml import dump_yaml
from dacnn_search.data.dataset import DataConfig, ImageData
from dacnn_search.export.card import model_card
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import estimate_cost
from dacnn_search.space.settings import TrainSettings
from dacnn_search.space.validation import read_settings
from dacnn_search.storage.trained import deviation_of

__all__ = [
    "CONFIG",
    "METRICS",
    "WEIGHTS",
    "NetworkInput",
    "NetworkSettings",
    "config_text",
    "describe_network",
    "describe_training",
    "read_config",
    "read_input",
    "read_metrics",
    "rewrite_folder",
    "write_folder",
]

CONFIG, WEIGHTS, METRICS, CARD = "config.yaml", "weights.safetensors", "metrics.json", "README.md"
EXPORTS = ("weights-float16.safetensors", "model.pt2", "model.onnx", "model-float16.onnx", "model-int8.onnx")
FORMAT = 1


Size = Annotated[int, Field(ge=1, strict=True)]


class NetworkInput(BaseModel):
    """The images that a network takes and the classes that it tells apart.

    The network's own input is (pixel - mean) / std, with pixels in [0, 1].
    """

    model_config = ConfigDict(frozen=True)

    shape: tuple[Size, Size, Size]  # (C, H, W)
    mean: tuple[FiniteFloat, ...]  # per channel
    std: tuple[FiniteFloat, ...]  # per channel
    classes: tuple[str, ...] = Field(min_length=1)  # the names of the outputs, in order

    @model_validator(mode="after")
    def _check_channels(self) -> "NetworkInput":
        if not (len(self.mean) == len(self.std) == self.shape[0] and all(self.std)):
            raise ValueError(f"mean and std are {self.mean} and {self.std}")
        return self

    @classmethod
    def of(cls, data: ImageData) -> "NetworkInput":
        """Return the input of a network that was trained on `data`."""
        return cls(shape=data.input_shape, mean=data.mean, std=data.std, classes=data.class_names)


class NetworkSettings(TrainSettings):
    """A `config.yaml` that may lack data: the network was not trained by this package, or is to be on other data."""

    data: DataConfig | None = None  # type: ignore[assignment]


def config_text(
    architecture: Architecture,
    data: DataConfig | None = None,
    recipe: Mapping[str, Any] | None = None,
    seed: int = 0,
    name: str | None = None,
) -> str:
    """Return the text of `config.yaml`, which is read as `TrainSettings`.

    A network that was not trained by this package has no data and no recipe.
    """
    values: dict[str, Any] = {"name": name, "architecture": architecture.to_dict()}
    if data is not None:
        values["data"] = data.model_dump(mode="json", exclude_none=True)
        if data.root is not None:
            values["data"]["root"] = _portable_path(data.root)
        if data.name != "folder":
            del values["data"]["channels"]
    if recipe is not None:
        values |= {"recipe": dict(recipe), "seed": seed}
    return dump_yaml({key: value for key, value in values.items() if value is not None})


def _portable_path(path: str) -> str:
    """Return a path that says as little as possible of this machine and still leads there.

    An absolute path below the working directory becomes a relative one, one below the home folder begins with `~`.
    Others stay as they are.
    """
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~")):
        if Path(path).is_relative_to(base):
            return str(Path(prefix, Path(path).relative_to(base)))
    return path


def describe_network(architecture: Architecture, given: NetworkInput, name: str | None = None) -> dict[str, Any]:
    """Return what `metrics.json` says of any network, trained or not."""
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
        "input": given.model_dump(mode="json"),
        "versions": package_versions(),
    }


def describe_training(
    records: Sequence[Mapping[str, Any]], data: ImageData, config: DataConfig, run: str | None = None
) -> dict[str, Any]:
    """Return the part `training` of `metrics.json`: the mean over the seeds and their standard deviation.

    Args:
        records: The records of one network's trainings, one per seed, with the keys of `retrained.jsonl`.
        data: The data that were trained on.
        config: Where they are from.
        run: The name of the search that found the network.
    """
    first = records[0]
    tested = [record["test_accuracy"] for record in records if record["test_accuracy"] is not None]
    return {
        "run": run,
        "trial": first.get("trial"),
        "data": data.name,
        "data_set": config.name,
        "recipe": first["recipe"],
        "epochs": first["epochs"],
        "train_images": first["train_images"],
        "test_images": len(data.test),
        "search_accuracy": first.get("accuracy"),
        "test_accuracy": statistics.fmean(tested) if tested else None,
        "test_accuracy_spread": deviation_of(tested),
        "seeds": [
            {key: record[key] for key in ("seed", "test_accuracy", "test_loss", "seconds")} for record in records
        ],
    }


@contextmanager
def rewrite_folder(folder: Path, *, keep_exports: bool = False) -> Iterator[Path]:
    """Yield a folder to write a network to, which takes the place of `folder` at the end. After an error all is as
    before.

    It begins with what `folder` holds, so that a user's own files stay, but without exported files (unless they are to
    be kept). Raises InputError if `folder` holds anything but is not a network's.
    """
    own = {CONFIG, WEIGHTS, METRICS, CARD, *EXPORTS}
    if folder.exists():
        foreign = sorted({path.name for path in folder.iterdir()} - own) if folder.is_dir() else ["a file"]
        if foreign:
            try:
                read_metrics(folder)
            except InputError:
                shown = ", ".join(foreign[:5])
                raise InputError(f"{folder}: must be new or hold an export, but holds {shown}") from None
    with new_folder(folder, replace=True) as new:
        if folder.exists():
            shutil.copytree(folder, new, symlinks=True, dirs_exist_ok=True)
        for name in () if keep_exports else EXPORTS:
            (new / name).unlink(missing_ok=True)
        yield new


def write_folder(folder: Path, config: str, weights: bytes, metrics: Mapping[str, Any], name: str) -> None:
    """Write config, weights, metrics and model card.

    Args:
        folder: Where to write.
        config: The text of `config.yaml`.
        weights: The bytes of the weight file. Its size and checksum are added to the metrics.
        metrics: What `describe_network` returns, and more.
        name: The folder's name, which it may get later.
    """
    write_atomic(folder / CONFIG, config)
    write_atomic(folder / WEIGHTS, weights)
    files = dict(metrics.get("files", {}))
    stored = {"bytes": len(weights), "sha256": sha256_of(folder / WEIGHTS)}
    complete = {**metrics, "folder": name, "files": {WEIGHTS: {**stored, **files.pop(WEIGHTS, {})}, **files}}
    write_atomic(folder / METRICS, json.dumps(complete, indent=2, ensure_ascii=False) + "\n")
    write_atomic(folder / CARD, model_card(complete, name))


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read `metrics.json`. Raises InputError if the folder is not a network's, or of a later format."""
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
    """Return what the network of a folder takes. Raises InputError if `metrics.json` does not say it."""
    given = read_metrics(folder).get("input")
    try:
        return NetworkInput.model_validate(given)
    except ValidationError as error:
        needed = "shape (C, H, W), C values of mean and std, and classes"
        raise InputError(f"{folder / METRICS}: input must have {needed}, but is {given}") from error


def read_config(folder: Path) -> NetworkSettings:
    """Read `config.yaml`. Raises InputError with file and line."""
    return read_settings(folder / CONFIG, NetworkSettings)
