"""Export networks: from a run directory or a network in memory to folders that can be given away.

`write_best` writes config, weights, metrics and card of every retrained network, and needs no torch. The others add
ONNX and `torch.export` files, each run and checked before its folder takes its place.
"""

import json
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dacnn_search.common.errors import DacnnSearchError, DataError, InputError, RunDirectoryError
from dacnn_search.common.files import lock, sweep
from dacnn_search.data.dataset import ImageData, load
from dacnn_search.export.folder import (
    CONFIG,
    WEIGHTS,
    NetworkInput,
    config_text,
    describe_network,
    describe_training,
    read_config,
    read_metrics,
    rewrite_folder,
    write_folder,
)
from dacnn_search.network.cost import InputShape
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.storage.trained import TrainedNetwork

if TYPE_CHECKING:
    from dacnn_search.export.classifier import Classifier
    from dacnn_search.network.model import Network

__all__ = ["FORMATS", "Formats", "export_folder", "export_network", "export_run", "refresh_best", "write_best"]

FORMATS = ("safetensors", "onnx", "pt2")


@dataclass(frozen=True)
class Formats:
    """The files that an export writes. Raises InputError for an unknown name, and for int8 without onnx."""

    names: tuple[str, ...] = FORMATS  # some of these; the weights as safetensors are always written
    float16: bool = False  # the weights, and the ONNX file if there is one, in half precision too
    int8: bool = False  # a quantised ONNX file too

    def __post_init__(self) -> None:
        if not self.names or not set(self.names) <= set(FORMATS):
            raise InputError(f"formats must be some of {', '.join(FORMATS)}, but are {', '.join(self.names)!r}")
        if self.int8 and "onnx" not in self.names:
            raise InputError(f"int8 needs the format onnx, but formats are {', '.join(self.names)}")


def write_best(run: RunDirectory, data: ImageData | None = None) -> list[Path]:
    """Write `best/<rank>-<parameters>/` for every retrained network and return these folders, from few parameters to
    many.

    Each folder holds config, weights, metrics and model card; what is right already stays. If the rank of a network
    has changed, its folder is renamed. Exported files stay as long as the weights do. Nothing else in `best/` is
    touched: neither a user's files in these folders nor copies and folders under other names.

    Args:
        run: The run directory.
        data: The run's data, if they are loaded already.

    Raises DataError if the data can't be loaded, InputError if weights are missing or damaged, RunDirectoryError if
    another process writes there.
    """
    networks = run.networks
    if not networks:
        return []
    best = run.folder / "best"
    best.mkdir(exist_ok=True)
    with lock(best):
        sweep(best)
        data = data or load(run.space.settings.data)
        _follow_ranks(best, networks, run.environment["name"])
        for network in networks:
            _write_network(run, network, data)
    return [network.folder for network in networks]


def export_run(run: RunDirectory, to: Path | None = None, formats: Formats | None = None, **limits: Any) -> list[Path]:
    """Export the retrained networks of a run that keep the limits of `RunDirectory.best`.

    Returns their folders, the most accurate network first. They are written to the folder `to`, by default to the
    run's `best/`. Raises RunDirectoryError if no network keeps the limits, ExportError if a file does not do what its
    network does, and what `write_best` raises.
    """
    chosen = run.best(**limits)
    if not chosen:
        raise RunDirectoryError(_explain_no_network(run, limits))
    data = load(run.space.settings.data)
    write_best(run, data)
    return [_export(network.folder, to, formats, data) for network in chosen]


def export_folder(folder: Path, to: Path | None = None, formats: Formats | None = None) -> Path:
    """Export the network of one folder, such as `dacnn_search.train` writes, there or to a folder below `to`.

    Returns that folder. The files are checked on the data that `config.yaml` names or, with a warning, on random images
    if the data are not there. Raises DataError if int8 is wanted without them, since real images set its ranges.
    """
    config = read_config(folder).data
    try:
        data = None if config is None else load(config)
    except DataError as error:
        if formats is not None and formats.int8:
            raise
        data = None
        warnings.warn(f"the files are checked on random images only, as {error}", stacklevel=2)
    return _export(folder, to, formats, data)


def export_network(
    model: "Network | Classifier",
    folder: Path | str,
    *,
    data: ImageData | None = None,
    input_shape: InputShape | None = None,
    formats: Sequence[str] = FORMATS,
    float16: bool = False,
    int8: bool = False,
) -> Path:
    """Write any network to a folder: config, weights, ONNX, `torch.export`, metrics, model card. Returns the folder.

    Args:
        model: The network.
        folder: It must be new, empty or a network's folder.
        data: What the network was trained on. They give normalisation, class names and the images that the files are
            checked on. Without them a `Network` takes pixels as they are, classes are numbers and files are checked
            on random images.
        input_shape: (C, H, W) for a `Network` without data; by default 32x32 pixels or as many as its poolings need.
        formats: Some of `FORMATS`.
        float16: Write the weights in half precision too.
        int8: Write a quantised ONNX file too.

    Raises ExportError if a file does not do what the network does, InputError for a combination that can't be.
    """
    from safetensors.torch import save

    from dacnn_search.export.classifier import as_classifier
    from dacnn_search.export.formats import write_export

    chosen = Formats(tuple(formats), float16, int8)
    classifier = as_classifier(model, data, input_shape)
    config = config_text(classifier.architecture)
    metrics = describe_network(classifier.architecture, classifier.input)
    return write_export(Path(folder), config, save(classifier.weights), metrics, classifier, chosen, data)


def refresh_best(folder: Path) -> None:
    """Write a run's `best/` if `folder` belongs there and is missing or holds the weights of an earlier retraining."""
    folder = folder.absolute()
    if folder.parent.name != "best" or not (folder.parents[1] / "retrained.jsonl").is_file():
        return
    try:
        run = RunDirectory(folder.parents[1])
        network = next(network for network in run.networks if network.folder == folder)
    except (DacnnSearchError, StopIteration):  # another folder, or a run that can't be read
        return
    try:
        stored = read_metrics(folder)["files"][WEIGHTS]["sha256"]
    except (InputError, KeyError, TypeError):  # a damaged folder is reported when it is read
        stored = None
    if not folder.exists() or stored not in (None, network.records[0].get("weights_sha256")):
        write_best(run)


def _follow_ranks(best: Path, networks: Sequence[TrainedNetwork], run: str) -> None:
    """Rename the folders of networks whose rank has changed, but none that a user copied or renamed."""
    homes = {network.architecture.fingerprint: network.folder for network in networks}
    for folder in sorted(best.glob("[0-9]*-[0-9]*"), reverse=True):  # ranks grow: the place of the next is free by then
        try:
            metrics = read_metrics(folder)
            home = homes[metrics["fingerprint"]]
            written_as = metrics.get("folder", folder.name), metrics["training"]["run"]
        except (InputError, KeyError, TypeError):  # damaged, or another network
            continue
        if written_as == (folder.name, run) and not home.exists():
            folder.rename(home)


def _write_network(run: RunDirectory, network: TrainedNetwork, data: ImageData) -> None:
    """Write the folder of a retrained network, unless it is right already."""
    record, environment, settings = network.records[0], run.environment, run.space.settings.data
    weights = _read_weights(run, network)
    name = f"{environment['name']}, trial {network.trial}"
    metrics = describe_network(network.architecture, NetworkInput.of(data), name)
    metrics["versions"] = environment["versions"]
    metrics["training"] = describe_training(network.records, data, settings, environment["name"])
    metrics["folder"] = network.folder.name
    config = config_text(network.architecture, settings, record["recipe"], seed=record["seed"], name=name)
    try:
        found = read_metrics(network.folder)
        same_weights = (network.folder / WEIGHTS).read_bytes() == weights
        exports = {key: dict(found[key]) for key in ("files", "measured") if key in found and same_weights}
        current = (network.folder / CONFIG).read_text(encoding="utf-8") == config
        current &= found | json.loads(json.dumps(metrics)) == found
    except (InputError, OSError, ValueError, TypeError):  # missing or damaged
        same_weights, exports, current = False, {}, False
    if same_weights and current:
        return
    with rewrite_folder(network.folder, keep_exports=same_weights) as folder:
        write_folder(folder, config, weights, metrics | exports, network.folder.name)


def _read_weights(run: RunDirectory, network: TrainedNetwork) -> bytes:
    """Return the weights of a network's first retraining. Raises InputError if they are missing or damaged."""
    record = network.records[0]
    path = run.weights_file(record["fingerprint"], record["seed"])
    again = f"to train it again: python -m dacnn_search.run --resume {shlex.quote(str(run.folder))}"
    if not path.is_file():
        raise InputError(f"{path}: the weights of trial {network.trial} must be there, but are not; {again}")
    if not run.has_weights(record):
        raise InputError(f"{path}: the weights of trial {network.trial} must be as written, but aren't; {again}")
    return path.read_bytes()


def _export(source: Path, to: Path | None, formats: Formats | None, data: ImageData | None) -> Path:
    """Write the network of a folder, with its files in other formats, there or to a folder of its name below `to`."""
    from dacnn_search.export.classifier import load_model
    from dacnn_search.export.formats import write_export

    model = load_model(source)
    metrics = {key: value for key, value in read_metrics(source).items() if key not in ("files", "measured")}
    config, weights = (source / CONFIG).read_text(encoding="utf-8"), (source / WEIGHTS).read_bytes()
    target = to / source.resolve().name if to else source
    return write_export(target, config, weights, metrics, model, formats or Formats(), data)


def _explain_no_network(run: RunDirectory, limits: Mapping[str, Any]) -> str:
    """Return the message for an export that finds no network within its limits."""
    networks, trial = run.networks, limits.get("trial")
    if trial is not None and all(network.trial != trial for network in networks):
        trials = [record["trial"] for record in run.records]
        if trial not in trials:
            return f"{run.folder}: the trial must be one of {len(trials)} that have ended, but is {trial}"
        again = f"python -m dacnn_search.train --run {shlex.quote(str(run.folder))} --trial {trial}"
        return f"{run.folder}: trial {trial} was not trained in full; to do that, and then export its folder: {again}"
    if not networks:
        return f"{run.folder}: an export needs networks that were trained in full, but there are none yet"
    smallest, best = networks[0], max(networks, key=lambda network: network.accuracy)
    wanted = ", ".join(f"--{key.replace('_', '-')} {value}" for key, value in limits.items() if value is not None)
    return (
        f"{run.folder}: a network must keep {wanted}, but none of {len(networks)} does; the smallest has "
        f"{smallest.parameters:,} parameters, the best an accuracy of {best.accuracy:.2%}"
    )
