"""Compare trained networks with a reference in size and accuracy, as the paper's Table 8 does."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import InputError
from dacnn_search.common.units import format_bytes
from dacnn_search.export.folder import METRICS, WEIGHTS, describe_network, read_input, read_metrics
from dacnn_search.network.zoo import get, names
from dacnn_search.paper.markup import markdown_table

Metrics = Mapping[str, Any]  # of a network, as in `metrics.json`; its `training` is empty if it was not trained
TEST_SET, CONDITIONS = ("data", "test_images"), ("data", "train_images", "recipe")  # of a training


def compression_report(folders: Sequence[Path], against: str, trained: Path | None = None) -> str:
    """Return a Markdown table that compares the networks of folders with a reference, and what there is to say of it.

    Raises InputError as `reference_for` does, which explains `against` and `trained`.
    """
    pairs = [(measure(folder), reference_for(against, folder, trained)) for folder in folders]
    rows = [_row(*pair) for pair in pairs]
    text = markdown_table(rows, right=list(rows[0])[2:])
    if any(reference["training"].get("test_accuracy") is None for _, reference in pairs):
        text += (
            f"\n{against} has no accuracy here: no training of it on the same data by the same recipe was found"
            f"{f' in {trained}' if trained else ''}; a folder of a trained network can be named instead.\n"
        )
    if any(not _are_alike(*pair, TEST_SET) for pair in pairs):
        text += "\nNo accuracy drop is told between networks that were tested on different data.\n"
    return text


def _row(network: Metrics, reference: Metrics) -> dict[str, str]:
    accuracy, other = (each["training"].get("test_accuracy") for each in (network, reference))
    comparable = None not in (accuracy, other) and _are_alike(network, reference, TEST_SET)
    return {
        "network": network["name"],
        "reference": reference["name"],
        "parameters": f"{network['parameters']:,}",
        "prune ratio": f"{prune_ratio(network['parameters'], reference['parameters']):.1f}%",
        "accuracy": "" if accuracy is None else f"{accuracy:.2%}",
        "accuracy drop": f"{100 * (other - accuracy):+.2f} points" if comparable else "",
        "weights": format_bytes(network["file_bytes"]),
        "reference weights": format_bytes(reference["file_bytes"]),
        "MACs ratio": f"{network['macs'] / reference['macs']:.1%}",
    }


def _are_alike(a: Metrics, b: Metrics, keys: Sequence[str]) -> bool:
    return all(a["training"].get(key) == b["training"].get(key) for key in keys)


def prune_ratio(parameters: int, reference: int) -> float:
    """Return the share of a reference's parameters that is saved, in percent; negative for a larger network."""
    return 100 * (1 - parameters / reference)


def measure(folder: Path) -> Metrics:
    """Return the metrics of the network in a folder; `file_bytes` is the size of its weights.

    Raises InputError if the folder is not a network's, or lacks sizes or weights.
    """
    metrics = _read(folder)
    for key in ("parameters", "macs"):
        if key not in metrics:
            raise InputError(f"{folder / METRICS}: must have the size of the network, but lacks {key!r}")
    try:
        file_bytes = (folder / WEIGHTS).stat().st_size
    except OSError as error:
        raise InputError(f"{folder / WEIGHTS}: the weights must be there, but: {error.strerror}") from error
    return {**metrics, "name": metrics.get("name") or folder.name, "file_bytes": file_bytes}


def reference_for(against: str, like: Path, trained: Path | None = None) -> Metrics:
    """Return the metrics of the reference that `--against` names. Raises InputError if there is none.

    Args:
        against: The folder of a trained network, or a network of the zoo.
        like: The folder of the compared network. Its images and classes decide how large a network of the zoo is.
        trained: A folder of trained networks. The accuracy of a network of the zoo is the mean over those in it that
            were trained as the compared network was.
    """
    if (Path(against) / METRICS).is_file():
        return measure(Path(against))
    if against not in names():
        raise InputError(
            f"the reference must be the folder of a trained network or one of {', '.join(names())}, but is {against!r}"
        )
    network = _read(like)
    _, reference = describe_network(get(against), read_input(like), against)
    paths = sorted(trained.glob(f"*/{METRICS}")) if trained and network["training"] else []
    known = [other for path in paths if (other := _read(path.parent))["fingerprint"] == reference["fingerprint"]]
    scores = [other["training"].get("test_accuracy") for other in known if _are_alike(other, network, CONDITIONS)]
    tested = [score for score in scores if score is not None]
    accuracy = statistics.fmean(tested) if tested else None
    return {**reference, "training": {**network["training"], "test_accuracy": accuracy}}


def _read(folder: Path) -> Metrics:
    return {"training": {}, **read_metrics(folder)}
