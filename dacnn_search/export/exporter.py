"""From a run directory to folders that can be given away, one per network that was trained in full.

`write_best` needs no torch: config, weights, metrics and card of every retrained network. `export_run`,
`export_folder` and `export` add ONNX and `torch.export` files to such folders, each run and checked before the folder
takes its place.
"""

import json
import shlex
import shutil
import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dacnn_search.common.errors import DataError, InputError, RunDirectoryError
from dacnn_search.common.files import lock, replace_folder, sha256_of, sweep, write_atomic
from dacnn_search.data.dataset import DataConfig, ImageData, load
from dacnn_search.export.artifacts import FORMATS, Formats, check_target, holds_export, write_files
from dacnn_search.export.folder import (
    CONFIG,
    METRICS,
    WEIGHTS,
    NetworkInput,
    config_text,
    describe_network,
    read_data_config,
    read_metrics,
    write_metrics,
)
from dacnn_search.network.cost import InputShape
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.storage.trained import TrainedNetwork, deviation_of

if TYPE_CHECKING:
    from dacnn_search.export.classifier import Classifier
    from dacnn_search.network.model import Network

__all__ = ["describe_training", "export_folder", "export_network", "export_run", "write_best"]


def write_best(run: RunDirectory, data: ImageData | None = None) -> list[Path]:
    """Write `best/<rank>-<parameters>/` for every network that was trained in full, and return these folders, from few
    parameters to many.

    Each holds config, weights, metrics and model card. A folder that is right already stays, with what was exported
    into it, and is renamed if the network's rank is another now. Exports of networks that are no longer there go.
    data: the run's, if they are loaded already.

    Raises DataError if the data can't be loaded, InputError if a weight file is missing, RunDirectoryError if another
    process is at it.
    """
    networks = run.networks
    if not networks:
        return []
    best = run.folder / "best"
    best.mkdir(exist_ok=True)
    with lock(best):
        sweep(best)
        data = data or load(run.space.settings.data)
        _follow_ranks(best, networks)
        for network in networks:
            _write_network(run, network, data)
        wanted = {network.folder.name for network in networks}
        for other in best.iterdir():
            if other.name not in wanted and holds_export(other):
                shutil.rmtree(other)
    return [network.folder for network in networks]


def export_run(run: RunDirectory, to: Path | None = None, formats: Formats | None = None, **limits: Any) -> list[Path]:
    """Export the networks of a run that were trained in full and keep the limits of `RunDirectory.best`.

    to: where the folders go; by default they stay in the run's `best/`. Returns the folders, the most accurate network
    first. Raises RunDirectoryError if there is no such network, ExportError if a file does not do what its network
    does, and what `write_best` raises.
    """
    chosen = run.best(**limits)
    if not chosen:
        raise RunDirectoryError(_nothing_found(run, limits))
    data = load(run.space.settings.data)
    write_best(run, data)
    return [
        _export_folder(network.folder, (to or network.folder.parent) / network.folder.name, formats, data)
        for network in chosen
    ]


def export_folder(folder: Path, to: Path | None = None, formats: Formats | None = None) -> Path:
    """The same for the folder of one trained network, such as `dacnn_search.train` writes; returns where it is.

    The files are checked on the data that `config.yaml` names or, with a warning, on random images if they are not
    there. Raises DataError for int8 without them: it is quantised by real images.
    """
    config = read_data_config(folder)
    try:
        data = None if config is None else load(config)
    except DataError as error:
        if formats is not None and formats.int8:
            raise
        data = None
        warnings.warn(f"the files are checked on random images only, as {error}", stacklevel=2)
    return _export_folder(folder, (to / folder.resolve().name) if to else folder, formats, data)


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
    """Write any network to a folder: weights, ONNX, `torch.export`, config, metrics and model card; returns the folder.

    data: what the network was trained on: gives normalisation, class names and the images that the files are checked
    on. Without them pixels go into a `Network` as they are, classes are numbers and files are checked on random images.
    input_shape: (C, H, W) for a `Network` without data, by default 32x32 pixels or as many as its poolings need.

    Raises ExportError if a file does not do what the network does, InputError for a combination that can't be.
    """
    from dacnn_search.export.classifier import as_classifier
    from dacnn_search.export.parity import CheckImages
    from dacnn_search.training.weights import write_weights

    chosen = Formats(tuple(formats), float16, int8)
    folder = Path(folder)
    check_target(folder)
    classifier = as_classifier(model, data, input_shape)
    with replace_folder(folder) as new:
        write_atomic(new / CONFIG, config_text(classifier.architecture))
        write_weights(classifier.weights, new / WEIGHTS)
        metrics = describe_network(classifier.architecture, classifier.input)
        metrics |= write_files(new, classifier, chosen, CheckImages.of(data, classifier.input))
        write_metrics(new, metrics, folder.name)
    return folder


def describe_training(
    records: Sequence[Mapping[str, Any]], data: ImageData, config: DataConfig, run: str | None = None
) -> dict[str, Any]:
    """The part `training` of `metrics.json`, from the records of one network's trainings, one per seed.

    The accuracy is the mean over the seeds, the spread their standard deviation (None for one seed).
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


def _follow_ranks(best: Path, networks: Sequence[TrainedNetwork]) -> None:
    """Give the folders of networks whose rank has changed their new names."""
    homes = {network.architecture.fingerprint: network.folder for network in networks}
    wanted = {network.folder for network in networks}
    for folder in sorted(best.glob("[0-9]*-[0-9]*"), reverse=True):  # ranks grow: the place of the next is free by then
        try:
            metrics = read_metrics(folder)
            home = homes.get(metrics["fingerprint"])
            whole = holds_export(folder) and metrics["files"][WEIGHTS]["sha256"] == sha256_of(folder / WEIGHTS)
            if folder in wanted or home is None or home.exists() or not whole:
                continue
            write_metrics(folder, metrics, home.name)
        except (InputError, OSError, KeyError, TypeError):  # damaged: it is written again
            continue
        folder.rename(home)


def _write_network(run: RunDirectory, network: TrainedNetwork, data: ImageData) -> None:
    first = network.records[0]
    weights = run.weights_file(first["fingerprint"], first["seed"])
    again = f"to train it again: python -m dacnn_search.run --resume {shlex.quote(str(run.folder))}"
    if not weights.is_file():
        raise InputError(f"{weights}: the weights of trial {network.trial} must be there, but are not; {again}")
    if not run.has_weights(first):
        raise InputError(f"{weights}: the weights of trial {network.trial} must be as written, but aren't; {again}")
    environment, settings = run.environment, run.space.settings.data
    name = f"{environment['name']}, trial {network.trial}"
    metrics = describe_network(network.architecture, NetworkInput.of(data), name)
    metrics["versions"] = environment["versions"]
    metrics["training"] = describe_training(network.records, data, settings, environment["name"])
    content = weights.read_bytes()
    config = config_text(network.architecture, settings, first["recipe"], seed=first["seed"], name=name)
    if _is_current(network.folder, metrics, config, content):
        return
    with replace_folder(network.folder) as folder:
        write_atomic(folder / CONFIG, config)
        write_atomic(folder / WEIGHTS, content)
        write_metrics(folder, metrics, network.folder.name)


def _is_current(folder: Path, metrics: Mapping[str, Any], config: str, weights: bytes) -> bool:
    """Whether the folder holds these weights and says at least this of them."""
    try:
        found = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        return (
            (folder / CONFIG).read_text(encoding="utf-8") == config
            and (folder / WEIGHTS).read_bytes() == weights
            and {key: found.get(key) for key in metrics} == json.loads(json.dumps(metrics))
        )
    except (OSError, ValueError, AttributeError):
        return False


def _export_folder(source: Path, target: Path, formats: Formats | None, data: ImageData | None) -> Path:
    from dacnn_search.export.classifier import load_model
    from dacnn_search.export.parity import CheckImages

    check_target(target)
    model = load_model(source)
    metrics = {key: value for key, value in read_metrics(source).items() if key not in ("files", "measured")}
    with replace_folder(target) as new:
        for name in (CONFIG, WEIGHTS):
            write_atomic(new / name, (source / name).read_bytes())
        metrics |= write_files(new, model, formats or Formats(), CheckImages.of(data, model.input))
        write_metrics(new, metrics, target.name)
    return target


def _nothing_found(run: RunDirectory, limits: Mapping[str, Any]) -> str:
    given = {name: value for name, value in limits.items() if value is not None}
    trial = given.get("trial")
    networks = run.networks
    if trial is not None and all(network.trial != trial for network in networks):
        trials = [record["trial"] for record in run.records]
        if trial not in trials:
            return f"{run.folder}: the trial must be one of {len(trials)} that have ended, but is {trial}"
        again = f"python -m dacnn_search.train --run {shlex.quote(str(run.folder))} --trial {trial}"
        return f"{run.folder}: trial {trial} was not trained in full; to do that, and then export its folder: {again}"
    if not networks:
        return f"{run.folder}: an export needs networks that were trained in full, but there are none yet"
    smallest, best = networks[0], max(networks, key=lambda network: network.accuracy)
    wanted = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())
    return (
        f"{run.folder}: a network must keep {wanted}, but none of {len(networks)} does; the smallest has "
        f"{smallest.parameters:,} parameters, the best an accuracy of {best.accuracy:.2%}"
    )
