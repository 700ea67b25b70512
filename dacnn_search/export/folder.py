"""The folder of one trained network: config, weights, metrics, model card. An export adds the files in `EXPORTS`."""

import json
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from dacnn_search.common.errors import InputError
from dacnn_search.common.files import new_folder, sha256_of, write_atomic
from dacnn_search.common.machine import package_versions
from dacnn_search.common.units import format_bytes, format_count, format_duration
from dacnn_search.common.yaml import dump_yaml
from dacnn_search.data.dataset import DataConfig, ImageData
from dacnn_search.export.c.options import describe_loss
from dacnn_search.export.standalone import UNSHARING
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import estimate_cost
from dacnn_search.network.drawing import LEGEND, draw
from dacnn_search.space.settings import TrainSettings
from dacnn_search.space.validation import read_settings
from dacnn_search.storage.trained import deviation_of

CONFIG, WEIGHTS, METRICS, CARD = "config.yaml", "weights.safetensors", "metrics.json", "README.md"
FORMATS = ("safetensors", "onnx", "pt2")  # that an export writes by default
ALL_FORMATS = (*FORMATS, "c")
CODE = "c"  # the folder of C code
EXPORTS = ("weights-float16.safetensors", "model.pt2", "model.onnx", "model-float16.onnx", "model-int8.onnx")
FORMAT = 1
TEMPLATE = Path(__file__).with_name("card.md.jinja")
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


def describe_network(
    architecture: Architecture, given: NetworkInput, name: str | None = None
) -> tuple[str, dict[str, Any]]:
    """Return `config.yaml` and `metrics.json` of any network, trained or not."""
    config: dict[str, Any] = {} if name is None else {"name": name}
    config["architecture"] = architecture.to_dict()
    cost = estimate_cost(architecture, given.shape, len(given.classes))
    return dump_yaml(config), {
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


def describe_trained(
    architecture: Architecture,
    records: Sequence[Mapping[str, Any]],
    data: ImageData,
    source: DataConfig,
    name: str | None = None,
    run: str | None = None,
) -> tuple[str, dict[str, Any]]:
    """Return `config.yaml` and `metrics.json` of a trained network, with mean and standard deviation over its seeds.

    The records of its trainings, one per seed, have the keys of `retrained.jsonl`; the weights are the first one's.
    `source` is where the data are from, `run` the name of the search that found the network.
    """
    first = records[0]
    tested = [record["test_accuracy"] for record in records if record["test_accuracy"] is not None]
    config, metrics = describe_network(architecture, NetworkInput.of(data), name)
    config += dump_yaml({"data": _portable(source), "recipe": dict(first["recipe"]), "seed": first["seed"]})
    metrics["training"] = {
        "run": run,
        "trial": first.get("trial"),
        "data": data.name,
        "data_set": source.name,
        "recipe": first["recipe"],
        "teacher": first.get("teacher"),  # the fingerprint of the network that taught it; None without one
        "precision": first.get("precision"),  # the one that the recipe's `auto` became; None if it was not recorded
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
    return config, metrics


def _portable(source: DataConfig) -> dict[str, Any]:
    """Return data for `config.yaml`, with a path that says as little as possible of this machine and still leads there.

    An absolute path below the working directory becomes a relative one, one below the home folder begins with `~`.
    """
    unused = None if source.name == "folder" else {"channels"}
    values = source.model_dump(mode="json", exclude_none=True, exclude=unused)
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~")):
        if Path(source.root or "").is_relative_to(base):
            return values | {"root": str(Path(prefix, Path(values["root"]).relative_to(base)))}
    return values


@contextmanager
def rewrite_folder(folder: Path, *, keep_exports: bool = False) -> Iterator[Path]:
    """Yield a folder to write a network to, which replaces `folder` at the end. After an error all is as before.

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
        if not keep_exports:
            _remove_exports(new)
        yield new


def _remove_exports(folder: Path) -> None:
    """Remove all files that an export wrote, but none that a user added."""
    try:
        code = [Path(name).name for name in read_metrics(folder)[CODE]["files"]]
    except (InputError, KeyError, TypeError):
        code = []
    for path in (*(folder / name for name in EXPORTS), *(folder / CODE / name for name in code)):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # there is none, or it holds a user's files
        (folder / CODE).rmdir()


def write_folder(folder: Path, config: str, weights: bytes, metrics: Mapping[str, Any], name: str) -> None:
    """Write config, weights, metrics and model card to a folder that is called `name` or will be.

    Size and checksum of the weights are added to the metrics.
    """
    write_atomic(folder / CONFIG, config)
    write_atomic(folder / WEIGHTS, weights)
    files = dict(metrics.get("files", {}))
    stored = {"bytes": len(weights), "sha256": sha256_of(folder / WEIGHTS)}
    complete = {**metrics, "folder": name, "files": {WEIGHTS: {**stored, **files.pop(WEIGHTS, {})}, **files}}
    write_atomic(folder / METRICS, json.dumps(complete, indent=2, ensure_ascii=False) + "\n")
    write_atomic(folder / CARD, _model_card(complete))


def _model_card(metrics: Mapping[str, Any]) -> str:
    """Return the model card as Markdown."""
    from jinja2 import Environment  # here, since few commands write cards

    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"bytes": format_bytes, "count": format_count, "duration": format_duration}
    environment.filters |= {"number": format, "plain": escape_markdown}
    architecture = Architecture.from_dict(metrics["architecture"])
    drawing = draw(architecture, tuple(metrics["input"]["shape"]))
    mixes = any(len(layer.kernels) > 1 for block in architecture.blocks for layer in block.layers)
    loss = describe_loss(metrics[CODE]) if CODE in metrics else None
    added = {"loss": loss, "mixes": mixes, "separable": architecture.separable, "unsharing": json.dumps(UNSHARING)}
    added |= {"drawing": drawing, "legend": LEGEND}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render({**metrics, **added})


def escape_markdown(text: str) -> str:
    """Return a text on one line, with everything escaped that Markdown would take as markup."""
    line = " ".join(str(text).split())
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in line)


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


def read_folder(folder: Path) -> tuple[str, bytes, dict[str, Any]]:
    """Read config, weights and metrics as `write_folder` takes them. Raises OSError, and what `read_metrics` raises."""
    return (folder / CONFIG).read_text(encoding="utf-8"), (folder / WEIGHTS).read_bytes(), read_metrics(folder)


def stored_checksum(folder: Path) -> str | None:
    """Return the SHA-256 that the weights must have by `metrics.json`; None if it does not say."""
    try:
        return read_metrics(folder)["files"][WEIGHTS]["sha256"]
    except (KeyError, TypeError):
        return None


def read_config(folder: Path) -> TrainSettings:
    """Read `config.yaml`. Raises InputError with file and line."""
    return read_settings(folder / CONFIG, TrainSettings)
