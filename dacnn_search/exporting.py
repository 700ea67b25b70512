"""From a run directory to folders that can be given away: `best/`, one folder per network that was trained in full."""

import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dacnn_search.data import ImageData, load
from dacnn_search.errors import InputError
from dacnn_search.files import lock, replace_folder, write_atomic
from dacnn_search.model_folder import (
    CONFIG,
    METRICS,
    WEIGHTS,
    NetworkInput,
    config_text,
    describe_network,
    write_metrics,
)
from dacnn_search.networks import TrainedNetwork
from dacnn_search.run_directory import RunDirectory

__all__ = ["describe_training", "write_best"]


def write_best(run: RunDirectory, data: ImageData | None = None) -> list[Path]:
    """Write `best/<rank>-<parameters>/` for every network that was trained in full, and return these folders, from few
    parameters to many.

    Each holds config, weights, metrics and model card. A folder that is right already stays, with what was exported
    into it; those of networks that are no longer there go. data: the run's, if they are loaded already.

    Raises DataError if the data can't be loaded, InputError if a weight file is missing, RunDirectoryError if another
    process is at it.
    """
    networks = run.networks
    if not networks:
        return []
    best = run.folder / "best"
    best.mkdir(exist_ok=True)
    with lock(best):
        data = data or load(run.space.settings.data)
        for network in networks:
            _write_network(run, network, data)
        wanted = {network.folder.name for network in networks}
        for other in best.iterdir():
            if other.is_dir() and other.name not in wanted:
                shutil.rmtree(other)
    return [network.folder for network in networks]


def describe_training(
    records: Sequence[Mapping[str, Any]], data: ImageData, data_set: str, run: str | None = None
) -> dict[str, Any]:
    """The part `training` of `metrics.json`, from the records of one network's trainings, one per seed.

    data_set: the name in `DataConfig`; `data.name` can be that of a user's folder or file. The accuracy is the mean over the seeds, the spread their standard deviation (None for one seed).
    """
    first = records[0]
    tested = [record["test_accuracy"] for record in records if record["test_accuracy"] is not None]
    return {
        "run": run,
        "trial": first.get("trial"),
        "data": data.name,
        "data_set": data_set,
        "recipe": first["recipe"],
        "epochs": first["epochs"],
        "train_images": first["train_images"],
        "test_images": len(data.test),
        "search_accuracy": first.get("accuracy"),
        "test_accuracy": statistics.fmean(tested) if tested else None,
        "test_accuracy_spread": statistics.stdev(tested) if len(tested) > 1 else None,
        "seeds": [
            {key: record[key] for key in ("seed", "test_accuracy", "test_loss", "seconds")} for record in records
        ],
    }


def _write_network(run: RunDirectory, network: TrainedNetwork, data: ImageData) -> None:
    first = network.records[0]
    weights = run.weights_file(first["fingerprint"], first["seed"])
    if not weights.is_file():
        raise InputError(f"{weights}: the weights of trial {network.trial} must be there, but are not; retrain it")
    name = f"{run.environment['name']}, trial {network.trial}"
    metrics = describe_network(network.architecture, NetworkInput.of(data), name)
    metrics["versions"] = run.environment["versions"]
    settings = run.space.settings.data
    metrics["training"] = describe_training(network.records, data, settings.name, run.environment["name"])
    content = weights.read_bytes()
    if _is_current(network.folder, metrics, content):
        return
    config = config_text(network.architecture, settings, first["recipe"], seed=first["seed"], name=name)
    with replace_folder(network.folder) as folder:
        write_atomic(folder / CONFIG, config)
        write_atomic(folder / WEIGHTS, content)
        write_metrics(folder, metrics, network.folder.name)


def _is_current(folder: Path, metrics: Mapping[str, Any], weights: bytes) -> bool:
    """Whether the folder holds these weights and says at least this of them."""
    try:
        found = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        return (
            (folder / CONFIG).is_file()
            and (folder / WEIGHTS).read_bytes() == weights
            and {key: found.get(key) for key in metrics} == json.loads(json.dumps(metrics))
        )
    except (OSError, ValueError, AttributeError):
        return False
