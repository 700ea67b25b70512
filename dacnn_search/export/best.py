"""Write a run's `best/`: the folder of every retrained network. Needs no torch."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from dacnn_search.common.errors import DacnnSearchError, InputError
from dacnn_search.common.files import lock, sweep
from dacnn_search.data.dataset import ImageData, load
from dacnn_search.export.folder import (
    CODE,
    describe_trained,
    read_folder,
    read_metrics,
    rewrite_folder,
    stored_checksum,
    write_folder,
)
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.storage.trained import TrainedNetwork


def write_best(run: RunDirectory, data: ImageData | None = None) -> list[Path]:
    """Write `best/<rank>-<size>/` for every retrained network; return these folders, from the smallest to the largest.

    What is right already stays. If the rank of a network has changed, its folder is renamed. Exported files stay as
    long as the weights do. Nothing else in `best/` is touched: neither a user's files in these folders nor copies and
    folders under other names. The run's `data` can be given if they are loaded already.

    Raises DataError if they can't be loaded, InputError if weights are missing or damaged, RunDirectoryError if another
    process writes there.
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


def refresh_best(folder: Path) -> None:
    """Write a run's `best/` if `folder` belongs there and is missing or holds the weights of an earlier retraining."""
    folder = folder.absolute()
    if folder.parent.name != "best" or not (folder.parents[1] / "retrained.jsonl").is_file():
        return
    try:
        run = RunDirectory(folder.parents[1])
        latest = {network.folder: network.records[0].get("weights_sha256") for network in run.networks}
        outdated = folder in latest and (not folder.exists() or stored_checksum(folder) not in (None, latest[folder]))
    except DacnnSearchError:  # a run that can't be read, or a damaged folder, which is reported when it is read
        return
    if outdated:
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
    environment, folder = run.environment, network.folder
    weights = _read_weights(run, network)
    config, metrics = describe_trained(
        network.architecture,
        network.records,
        data,
        run.space.settings.data,
        name=f"{environment['name']}, trial {network.trial}",
        run=environment["name"],
    )
    metrics |= {"versions": environment["versions"], "folder": folder.name}
    try:
        found_config, found_weights, found = read_folder(folder)
        same_weights = found_weights == weights
        exports = {key: dict(found[key]) for key in ("files", "measured", CODE) if key in found and same_weights}
        current = found_config == config and found | json.loads(json.dumps(metrics)) == found
    except (InputError, OSError, ValueError, TypeError):  # missing or damaged
        same_weights, exports, current = False, {}, False
    if not (same_weights and current):
        with rewrite_folder(folder, keep_exports=same_weights) as new:
            write_folder(new, config, weights, metrics | exports, folder.name)


def _read_weights(run: RunDirectory, network: TrainedNetwork) -> bytes:
    """Return the weights of a network's first retraining. Raises InputError if they are missing or damaged."""
    record = network.records[0]
    path = run.weights_file(record["fingerprint"], record["seed"])
    if not run.has_weights(record):
        rule = "as written, but aren't" if path.is_file() else "there, but are not"
        again = f"to train it again: python -m dacnn_search.run --resume {shlex.quote(str(run.folder))}"
        raise InputError(f"{path}: the weights of trial {network.trial} must be {rule}; {again}")
    return path.read_bytes()
