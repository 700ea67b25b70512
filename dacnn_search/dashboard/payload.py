"""The contents of the page of one run: plain values for JSON, small enough for a page.

Trials are columns (one list per field, in the order of the ledger), curves are whole numbers of 1e-4. A network's
drawing is a list of sections, a section a list of blocks `[layers, shortcut]`, a layer `[anchors, regulated, history]`:
the numbers of the anchors that it uses or mixes (none in a transition), whether a regulator follows, and how many of
its last inputs it adds.
"""

import dataclasses
import functools
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dacnn_search.common.files import read_json
from dacnn_search.common.privacy import mask_command, mask_secrets, relative_path
from dacnn_search.dashboard.importance import importance
from dacnn_search.network.architecture import Architecture, Layer
from dacnn_search.network.cost import count_parameters, tensor_shapes
from dacnn_search.storage.front import Record, hypervolumes
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.storage.trained import judge

STATES = ("COMPLETE", "PRUNED", "FAIL")
# The part of a network that a tensor belongs to: the first of these that its name contains.
PART_OF = {
    "kernels.stem": "stem",
    "kernels.anchor": "kernels",
    ".mixing": "mixing scalars",
    "kernels.transition": "transitions",
    ".regulator": "regulators",
    ".projection": "shortcuts",
    ".history": "history scalars",
    "norm": "batch norm",
    "classifier": "classifier",
}
NETWORK = ("network", "config", "drawing", "unshared", "parts")
INT8 = ("accuracy", "float_accuracy", "part")  # of the C code of a network, in its metrics.json
SETTINGS = ("sampler", "prior", "fidelity", "stopping", "seed", "epochs", "recipe")
ORIGIN = ("description", "started", "machine", "versions", "git_commit")
MOST_CURVE_POINTS = 240_000  # of all trials together, about 1.2 MB


def run_payload(run: RunDirectory) -> dict[str, Any]:
    """Return everything the page of one run shows. `run` is a snapshot."""
    records, folder = run.records, run.folder.resolve()
    message = (run.status.get("message") or "").replace(str(folder), os.path.relpath(folder))
    indices = {record["trial"]: index for index, record in enumerate(records)}
    shares, note = importance(records, run.objective)
    choices = dict.fromkeys(name for r in records for name in r["choices"])
    return {
        "run": _facts_of(run),
        "status": {**run.status, "elapsed": run.elapsed, "message": mask_secrets(message) or None},
        "references": run.environment.get("references") or [],
        "states": STATES,
        "parts": list(PART_OF.values()),
        "trials": _columns(run),
        "curves": _curves(records),
        "front": [indices[record["trial"]] for record in run.front],
        "hypervolume": hypervolumes(records, run.scale),
        "retrained": _retrained(run),
        "judgement": judge(run.networks),
        "choices": {name: [r["choices"].get(name) for r in records] for name in choices},
        "importance": {"choices": shares, "note": note},
    }


def shown_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts about a run's images without the absolute path of their folder."""
    return {**data, "name": relative_path(str(data["name"]))} if data.get("name") else dict(data)


def _facts_of(run: RunDirectory) -> dict[str, Any]:
    """Return what the page tells of a run as a whole: no secret and, as far as possible, no absolute path."""
    facts = {name: run.environment.get(name) for name in (*SETTINGS, *ORIGIN)}
    space = run.environment.get("space") or {}
    return facts | {
        "name": run.name,
        "objective": run.objective,
        "folder": os.path.relpath(run.folder.resolve()),  # from where the page's commands are run
        "command": _shown_command(run.environment.get("command") or []),
        "data": shown_data(run.data),
        "space": {key: value for key, value in space.items() if key != "given"},
    }


def _shown_command(command: Sequence[str]) -> str:
    """Return a command as it would be typed, with secrets masked and absolute paths made relative."""
    program, *arguments = mask_command(command) or [""]
    module = re.search(r"dacnn_search[\\/](\w+?)(?:[\\/]__main__)?\.py$", program)
    shown = f"python -m dacnn_search.{module[1]}" if module else Path(program).name
    return " ".join([shown, *map(relative_path, arguments)])


def _columns(run: RunDirectory) -> dict[str, list[Any]]:
    records = run.records
    channels, classes = run.data.get("input_shape", [1])[0], run.data.get("num_classes", 10)
    networks = [_describe(Architecture.from_dict(r["architecture"]), channels, classes) for r in records]
    plain = ("trial", "parameters", "macs", "flash", "ram", "epochs", "reason", "duplicates", "fingerprint")
    columns: dict[str, list[Any]] = {name: [r.get(name) for r in records] for name in plain}
    for name in ("seconds", "finished", "accuracy"):
        columns[name] = [None if r.get(name) is None else round(r[name], 5) for r in records]
    columns["trainings"] = [len(r.get("accuracies") or [None]) for r in records]  # whose mean the accuracy is
    columns["state"] = [STATES.index(r["state"]) for r in records]
    return columns | {name: [network[name] for network in networks] for name in NETWORK}


@functools.lru_cache(maxsize=20_000)
def _describe(architecture: Architecture, channels: int, classes: int) -> dict[str, Any]:
    """Describe a network; cached, as a page is often rewritten during a search.

    `unshared` are the parameters of the same network with free weights, `parts` the parameters of each part.
    """
    free = dataclasses.replace(architecture, sharing="none", anchors=1, shortcuts=architecture.decided_shortcuts)
    parts = dict.fromkeys(PART_OF.values(), 0)
    for name, shape in tensor_shapes(architecture, channels, classes):
        parts[next(part for key, part in PART_OF.items() if key in name)] += math.prod(shape)
    drawing: list[list[Any]] = [[] for _ in architecture.sections]
    for block in architecture.blocks:
        layers = [[_anchors(layer), layer.regulator, layer.history] for layer in block.layers]
        drawing[block.section].append([layers, block.shortcut])
    return {
        "network": str(architecture),
        "config": _config(architecture),
        "drawing": drawing,
        "unshared": count_parameters(free, channels, classes),
        "parts": list(parts.values()),
    }


def _config(architecture: Architecture) -> dict[str, Any]:
    """Return what `Architecture.from_dict` reads, without mixing, history and separable kernels where it has none."""
    layers = [layer for block in architecture.blocks for layer in block.layers]
    unused = {"mixing"} if all(len(layer.kernels) == 1 for layer in layers) else set()
    unused |= {"history"} if architecture.decided_shortcuts != "history" else set()
    unused |= set() if architecture.separable else {"convolutions"}
    return {key: value for key, value in architecture.to_dict().items() if key not in unused}


def _anchors(layer: Layer) -> list[int]:
    return [int(kernel.removeprefix("anchor")) for kernel in layer.kernels if kernel.startswith("anchor")]


def _curves(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Return per trial its accuracies and losses in whole numbers of 1e-4, thinned if there are many, and its `length`.

    Point i of m stands for epoch 1 + round(i (length - 1) / (m - 1)).
    """
    kinds = ("accuracy", "loss", "train_loss")
    most = max(10, MOST_CURVE_POINTS // (len(kinds) * max(len(records), 1)))
    thinned = {kind: [_thinned(r["curve"][kind], most) for r in records] for kind in kinds}
    return {**thinned, "length": [len(r["curve"]["accuracy"]) for r in records]}


def _thinned(values: Sequence[float | None], most: int) -> list[int | None]:
    if len(values) > most:
        values = [values[math.floor(i * (len(values) - 1) / (most - 1) + 0.5)] for i in range(most)]
    return [None if value is None else round(1e4 * value) for value in values]


def _retrained(run: RunDirectory) -> list[dict[str, Any]]:
    """Return one entry per retrained network with its seeds, from few parameters to many."""
    networks = run.networks
    indices = {record["fingerprint"]: index for index, record in enumerate(run.records)}
    folders = {network.fingerprint: network.folder.relative_to(run.folder).as_posix() for network in networks}
    return [
        {
            "index": indices[network.fingerprint],
            "folder": folders[network.fingerprint],
            "teacher": folders.get(str(network.records[0].get("teacher"))),
            "config": _shown_config(network.folder / "config.yaml"),
            "int8": _int8(network.folder / "metrics.json"),
            "seeds": [{key: r[key] for key in ("seed", "epochs", "test_accuracy")} for r in network.records],
        }
        for network in networks
        if network.fingerprint in indices  # else the ledger lost the trial: it is to be trained again
    ]


def _int8(file: Path) -> dict[str, Any] | None:
    """Return what an export measured of a network's C code, None if none was exported.

    It was run on the images of `part`, and so was the network in float32.
    """
    measured = read_json(file).get("c") if file.is_file() else None
    return measured and {key: measured.get(key) for key in INT8}


def _shown_config(file: Path) -> str | None:
    """Return a `config.yaml` with the folder of its images relative to the working directory, where it still works."""
    if not file.is_file():
        return None
    root = re.compile(r"^( +root: '?)(/[^'\n]+)", re.MULTILINE)
    return root.sub(lambda found: found[1] + os.path.relpath(found[2]), file.read_text(errors="replace"))
