"""Compare trained networks with a reference in size and accuracy, as the paper's Table 8 does."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dacnn_search.common.errors import InputError
from dacnn_search.common.units import format_bytes
from dacnn_search.export.folder import METRICS, WEIGHTS, describe_network, read_input, read_metrics
from dacnn_search.network.zoo import get, names
from dacnn_search.paper.markdown import markdown_table

__all__ = ["Measured", "compression_report", "measure", "reference_for"]


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

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Self:
        """Return what the `metrics.json` of a network says."""
        training = metrics.get("training", {})
        tested_on = training.get("data"), training.get("test_images")
        sizes = {key: metrics[key] for key in ("name", "parameters", "macs", "file_bytes")}
        return cls(**sizes, accuracy=training.get("test_accuracy"), tested_on=tested_on)

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
    rows = [_row(*pair) for pair in pairs]
    text = markdown_table(rows, right=list(rows[0])[2:])
    if any(reference.accuracy is None for _, reference in pairs):
        text += (
            f"\n{against} has no accuracy here: no training of it on the same data by the same recipe was found"
            f"{f' in {trained}' if trained else ''}; a folder of a trained network can be named instead.\n"
        )
    if any(network.tested_on != reference.tested_on for network, reference in pairs):
        text += "\nNo accuracy drop is told between networks that were tested on different data.\n"
    return text


def _row(network: Measured, reference: Measured) -> dict[str, str]:
    drop = network.accuracy_drop(reference)
    return {
        "network": network.name,
        "reference": reference.name,
        "parameters": f"{network.parameters:,}",
        "prune ratio": f"{network.prune_ratio(reference):.1f}%",
        "accuracy": "" if network.accuracy is None else f"{network.accuracy:.2%}",
        "accuracy drop": "" if drop is None else f"{drop:+.2f} points",
        "weights": format_bytes(network.file_bytes),
        "reference weights": format_bytes(reference.file_bytes),
        "MACs ratio": f"{network.macs / reference.macs:.1%}",
    }


def measure(folder: Path) -> Measured:
    """Return size and accuracy of the network in a folder. Raises InputError if it is missing or damaged."""
    metrics = read_metrics(folder)
    try:
        file_bytes = (folder / WEIGHTS).stat().st_size
        return Measured.of({**metrics, "name": metrics.get("name") or folder.name, "file_bytes": file_bytes})
    except OSError as error:
        raise InputError(f"{folder / WEIGHTS}: the weights must be there, but: {error.strerror}") from error
    except KeyError as error:
        raise InputError(f"{folder / METRICS}: must have the size of the network, but lacks {error}") from error


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
    metrics = read_metrics(like)
    _, reference = describe_network(get(against), read_input(like), against)
    known = [read_metrics(path.parent) for path in sorted(trained.glob(f"*/{METRICS}"))] if trained else []
    accuracies = [
        other["training"]["test_accuracy"]
        for other in known
        if other["fingerprint"] == reference["fingerprint"] and _conditions(other) == _conditions(metrics) != {}
    ]
    tested = [accuracy for accuracy in accuracies if accuracy is not None]
    training = {**metrics.get("training", {}), "test_accuracy": statistics.fmean(tested) if tested else None}
    return Measured.of({**reference, "training": training})


def _conditions(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be equal of two networks that were trained alike; nothing if it was not trained."""
    return {key: metrics["training"].get(key) for key in ("data", "train_images", "recipe") if "training" in metrics}
