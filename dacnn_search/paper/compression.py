"""Compare trained networks with a reference in size and accuracy, as the paper's Table 8 does."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import InputError
from dacnn_search.common.units import format_bytes
from dacnn_search.export.folder import METRICS, WEIGHTS, read_config, read_input, read_metrics
from dacnn_search.network.cost import estimate_cost
from dacnn_search.network.zoo import get, names
from dacnn_search.paper.markdown import markdown_table

__all__ = ["Measured", "compression_report", "measure", "reference_for"]

COLUMNS = (
    *("network", "reference", "parameters", "prune ratio", "accuracy", "accuracy drop", "weights"),
    *("reference weights", "MACs ratio"),
)


@dataclass(frozen=True)
class Measured:
    """The size of a network and, if it was trained, its accuracy.

    Args:
        macs: Multiply-accumulates for one image.
        file_bytes: The size of its float32 weights as a safetensors file.
        accuracy: On the test images, in [0, 1].
        tested_on: Any value that is equal for equal test images.
    """

    name: str
    parameters: int
    macs: int
    file_bytes: int
    accuracy: float | None = None
    tested_on: Any = None

    def prune_ratio(self, reference: "Measured") -> float:
        """Return the share of the reference's parameters that is saved, in percent; negative for a larger network."""
        return 100 * (1 - self.parameters / reference.parameters)

    def accuracy_drop(self, reference: "Measured") -> float | None:
        """Return points of accuracy; None if one of the two was not trained, or their test images differ."""
        if self.accuracy is None or reference.accuracy is None or self.tested_on != reference.tested_on:
            return None
        return 100 * (reference.accuracy - self.accuracy)


def compression_report(folders: Sequence[Path], against: str, trained: Path | None = None) -> str:
    """Return a Markdown table that compares the networks of folders with a reference, and what there is to say of it.

    Raises InputError as `reference_for` does, which explains `against` and `trained`.
    """
    pairs = [(measure(folder), reference_for(against, folder, trained)) for folder in folders]
    text = markdown_table(COLUMNS, [_cells(*pair) for pair in pairs], right=COLUMNS[2:])
    if any(reference.accuracy is None for _, reference in pairs):
        text += (
            f"\n{against} has no accuracy here: no training of it on the same data by the same recipe was found"
            f"{f' in {trained}' if trained else ''}; a folder of a trained network can be named instead.\n"
        )
    if any(network.tested_on != reference.tested_on for network, reference in pairs):
        text += "\nNo accuracy drop is told between networks that were tested on different data.\n"
    return text


def measure(folder: Path) -> Measured:
    """Return the size of the network in a folder, and the accuracy that its `metrics.json` has.

    Raises InputError if the folder is not one of a trained network.
    """
    metrics, given = read_metrics(folder), read_input(folder)
    cost = estimate_cost(read_config(folder).architecture, given.shape, len(given.classes))
    try:
        size = (folder / WEIGHTS).stat().st_size
    except OSError as error:
        raise InputError(f"{folder / WEIGHTS}: the weights must be there, but: {error.strerror}") from error
    accuracy = metrics.get("training", {}).get("test_accuracy")
    return Measured(metrics.get("name") or folder.name, cost.parameters, cost.macs, size, accuracy, _test_set(metrics))


def reference_for(against: str, like: Path, trained: Path | None = None) -> Measured:
    """Return the reference that `--against` names. Raises InputError if there is none.

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
    metrics, given = read_metrics(like), read_input(like)
    known = [read_metrics(path.parent) for path in sorted(trained.glob(f"*/{METRICS}"))] if trained else []
    fingerprint = get(against).fingerprint
    alike = [other for other in known if other["fingerprint"] == fingerprint and _trained_alike(other, metrics)]
    accuracies = [other["training"]["test_accuracy"] for other in alike]
    accuracies = [accuracy for accuracy in accuracies if accuracy is not None]
    cost = estimate_cost(get(against), given.shape, len(given.classes))
    accuracy = statistics.fmean(accuracies) if accuracies else None
    return Measured(against, cost.parameters, cost.macs, cost.file_bytes, accuracy, _test_set(metrics))


def _trained_alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return whether two networks were trained on the same data by the same recipe."""
    if not ("training" in a and "training" in b):
        return False
    return all(a["training"].get(key) == b["training"].get(key) for key in ("data", "train_images", "recipe"))


def _test_set(metrics: Mapping[str, Any]) -> Any:
    training = metrics.get("training", {})
    return training.get("data"), training.get("test_images")


def _cells(network: Measured, reference: Measured) -> tuple[str, ...]:
    drop = network.accuracy_drop(reference)
    return (
        network.name,
        reference.name,
        f"{network.parameters:,}",
        f"{network.prune_ratio(reference):.1f}%",
        "" if network.accuracy is None else f"{network.accuracy:.2%}",
        "" if drop is None else f"{drop:+.2f} points",
        format_bytes(network.file_bytes),
        format_bytes(reference.file_bytes),
        f"{network.macs / reference.macs:.1%}",
    )
