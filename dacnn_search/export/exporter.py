"""Export networks, from a run directory, a folder or memory, to folders that can be given away."""

import shlex
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save

from dacnn_search.common.errors import DataError, RunDirectoryError
from dacnn_search.common.machine import processor_name
from dacnn_search.dashboard.page import write_dashboard
from dacnn_search.data.dataset import ImageData, load
from dacnn_search.export.best import write_best
from dacnn_search.export.c.code import write_code
from dacnn_search.export.c.options import CodeOptions
from dacnn_search.export.classifier import Classifier, as_classifier, load_model
from dacnn_search.export.folder import (
    CODE,
    FORMATS,
    WEIGHTS,
    describe_network,
    read_config,
    read_folder,
    rewrite_folder,
    write_folder,
)
from dacnn_search.export.formats import Formats, write_files
from dacnn_search.export.parity import accuracy_of, choose_images, measure_file
from dacnn_search.network.cost import UNITS, InputShape
from dacnn_search.network.model import Network
from dacnn_search.storage.run_directory import RunDirectory


def export_run(run: RunDirectory, to: Path | None, formats: Formats, **limits: Any) -> list[Path]:
    """Export the retrained networks of a run that keep the limits of `RunDirectory.best`.

    Returns their folders, the most accurate network first: in the folder `to`, by default in the run's `best/`. Raises
    RunDirectoryError if no network keeps the limits, ExportError if a file does not do what its network does, and what
    `write_best` raises.
    """
    chosen = run.best(**limits)
    if not chosen:
        raise RunDirectoryError(_explain_no_network(run, limits))
    data = load(run.space.settings.data)
    if "c" in formats.names:
        for network in chosen:
            formats.code.check(network.architecture, data.input_shape, data.num_classes)
    write_best(run, data)
    folders = [network.folder for network in chosen]
    written = [_export(folder, to / folder.name if to else folder, formats, data) for folder in folders]
    if to is None and (run.folder / "dashboard.html").exists():
        write_dashboard(run.folder)  # which shows what was measured of C code
    return written


def export_folder(folder: Path, to: Path | None, formats: Formats) -> Path:
    """Export the network of one folder, such as `dacnn_search.train` writes, there or to a folder below `to`.

    Returns that folder. The files are checked on the data that `config.yaml` names or, with a warning, on random images
    if the data are not there. Raises DataError if int8 or C code is wanted without them, as real images set its ranges.
    """
    source = read_config(folder).data
    try:
        data = None if source is None else load(source)
    except DataError as error:
        if formats.calibrated:
            raise
        data = None
        warnings.warn(f"the files are checked on random images only, as {error}", stacklevel=2)
    return _export(folder, to / folder.resolve().name if to else folder, formats, data)


def export_network(
    model: Network | Classifier,
    folder: Path | str,
    *,
    data: ImageData | None = None,
    input_shape: InputShape | None = None,
    formats: Sequence[str] = FORMATS,
    float16: bool = False,
    int8: bool = False,
    c_name: str = "network",
) -> Path:
    """Write any network to a folder: config, weights, metrics, model card, and other formats. Returns the folder.

    Args:
        model: The network.
        folder: It must be new, empty or a network's folder.
        data: What the network was trained on. They give normalisation, class names and the images that the files are
            checked on. Without them a `Network` takes pixels as they are, classes are numbers and files are checked
            on random images.
        input_shape: (C, H, W) for a `Network` without data; by default 32x32 pixels or as many as its poolings need.
        formats, float16, int8: See `Formats`. C code ("c") and int8 need data.
        c_name: What the names in C code begin with.

    Raises ExportError if a file does not do what the network does, InputError for a combination that can't be.
    """
    chosen = Formats(tuple(formats), float16, int8, CodeOptions(c_name))
    classifier = as_classifier(model, data, input_shape)
    config, metrics = describe_network(classifier.architecture, classifier.input)
    with tempfile.TemporaryDirectory(prefix="dacnn-search-") as source:
        write_folder(Path(source), config, save(classifier.weights), metrics, Path(folder).name)
        return _export(Path(source), Path(folder), chosen, data)


def _export(source: Path, target: Path, formats: Formats, data: ImageData | None) -> Path:
    """Write the network of a folder to the folder `target`, with its files in other formats, each run and checked."""
    model = load_model(source)
    config, weights, metrics = read_folder(source)
    metrics.pop(CODE, None)
    part, images, labels = choose_images(data, model)
    calibration = images[:0] if data is None else (data.validation if len(data.validation) else data.train).images
    reference = model.logits(images)
    files: dict[str, dict[str, Any]] = {WEIGHTS: {"accuracy": accuracy_of(reference, labels)}}
    metrics["files"] = files
    metrics["measured"] = {"part": part, "images": len(images), "processor": processor_name()}
    with rewrite_folder(target) as new:
        if "c" in formats.names:
            title = metrics["name"] or target.name
            metrics[CODE] = write_code(
                new / CODE, model, formats.code, title, calibration, part, images, labels, reference
            )
        for path in write_files(new, model, formats, calibration):
            files[path.name] = measure_file(path, model, images, labels, reference)
        write_folder(new, config, weights, metrics, target.name)
    return target


def _explain_no_network(run: RunDirectory, limits: Mapping[str, Any]) -> str:
    """Return the message for an export that finds no network within its limits."""
    networks, trial = run.networks, limits.get("trial")
    if trial not in (None, *(network.trial for network in networks)):
        trials = [record["trial"] for record in run.records]
        if trial not in trials:
            return f"{run.folder}: the trial must be one of {len(trials)} that have ended, but is {trial}"
        again = f"python -m dacnn_search.train --run {shlex.quote(str(run.folder))} --trial {trial}"
        return f"{run.folder}: trial {trial} was not trained in full; to do that, and then export its folder: {again}"
    if not networks:
        return f"{run.folder}: an export needs networks that were trained in full, but there are none yet"
    wanted = ", ".join(f"--{key.replace('_', '-')} {value}" for key, value in limits.items() if value is not None)
    least = [
        f"{min(getattr(network, name) for network in networks):,} {unit}"
        for name, unit in {**UNITS, "file_bytes": "bytes of weights"}.items()
        if limits.get(f"max_{name.removeprefix('file_')}") is not None
    ]
    best = max(network.accuracy for network in networks)
    told = ", ".join([*least, f"an accuracy of {best:.2%}"])
    return f"{run.folder}: a network must keep {wanted}, but none of {len(networks)} does; the best of each are {told}"
