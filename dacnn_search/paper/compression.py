"""How much smaller a trained network is than a reference, and what it costs in accuracy (the paper's Table 8)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dacnn_search.common.errors import InputError
from dacnn_search.common.units import format_bytes
from dacnn_search.export.folder import METRICS, WEIGHTS, read_architecture, read_input, read_metrics
from dacnn_search.network.cost import estimate_cost
from dacnn_search.network.zoo import get, names

__all__ = ["Comparison", "Measured", "compression_report", "compression_table", "measure", "reference_for"]

SAME = ("data", "train_images", "recipe")  # of two trainings whose accuracies can be compared


@dataclass(frozen=True)
class Measured:
    """A network's size and, if it was trained, its accuracy.

    macs: of one image. file_bytes: of its float32 weights as safetensors. accuracy: on the test images, in [0, 1].
    tested_on: which test images these are, anything that is equal for equal ones.
    """

    name: str
    parameters: int
    macs: int
    file_bytes: int
    accuracy: float | None = None
    tested_on: Any = None


@dataclass(frozen=True)
class Comparison:
    """A network against a reference."""

    network: Measured
    reference: Measured

    @property
    def prune_ratio(self) -> float:
        """The share of the reference's parameters that is saved, in percent; negative for a larger network."""
        return 100 * (1 - self.network.parameters / self.reference.parameters)

    @property
    def accuracy_drop(self) -> float | None:
        """In points of accuracy; None if one of the two was not trained, or they were tested on different images."""
        if self.network.accuracy is None or self.reference.accuracy is None:
            return None
        if self.network.tested_on != self.reference.tested_on:
            return None
        return 100 * (self.reference.accuracy - self.network.accuracy)

    @property
    def macs_ratio(self) -> float:
        """The network's multiply-accumulates by the reference's."""
        return self.network.macs / self.reference.macs


def measure(folder: Path) -> Measured:
    """The network of a folder such as `results/digits/best/01-3214`: its file is looked at, its accuracy is the one
    that `metrics.json` has. Raises InputError if the folder is none."""
    metrics, given = read_metrics(folder), read_input(folder)
    cost = estimate_cost(read_architecture(folder), given.shape, len(given.classes))
    try:
        size = (folder / WEIGHTS).stat().st_size
    except OSError as error:
        raise InputError(f"{folder / WEIGHTS}: the weights must be there, but: {error.strerror}") from error
    accuracy = metrics.get("training", {}).get("test_accuracy")
    name = metrics.get("name") or folder.name
    return Measured(name, cost.parameters, cost.macs, size, accuracy, _tested_on(folder))


def reference_for(against: str, like: Path, trained: Path | None = None) -> Measured:
    """What `--against` names: the folder of a trained network, or a network of the zoo, as large as images and classes
    of the network in the folder `like` make it.

    A network of the zoo has an accuracy if `trained`, the folder of networks that `paper` trained, has it,
    trained on the same data by the same recipe; the mean of several. Raises InputError for anything else.
    """
    if (Path(against) / METRICS).is_file():
        return measure(Path(against))
    if against not in names():
        raise InputError(
            f"the reference must be the folder of a trained network or one of {', '.join(names())}, but is {against!r}"
        )
    given = read_input(like)
    accuracies = [] if trained is None else list(_accuracies(against, like, trained))
    accuracy = sum(accuracies) / len(accuracies) if accuracies else None
    cost = estimate_cost(get(against), given.shape, len(given.classes))
    return Measured(against, cost.parameters, cost.macs, cost.file_bytes, accuracy, _tested_on(like))


def compression_report(folders: Sequence[Path], against: str, trained: Path | None = None) -> str:
    """The networks of some folders against one reference, as a Markdown table with what there is to say of it.

    Each needs a reference of its own where images or classes differ. Raises InputError as `reference_for` does.
    """
    comparisons = [Comparison(measure(folder), reference_for(against, folder, trained)) for folder in folders]
    text = compression_table(comparisons)
    if any(comparison.reference.accuracy is None for comparison in comparisons):
        text += (
            f"\n{against} has no accuracy here: no training of it on the same data by the same recipe was found"
            f"{f' in {trained}' if trained else ''}; a folder of a trained network can be named instead.\n"
        )
    if any(comparison.network.tested_on != comparison.reference.tested_on for comparison in comparisons):
        text += "\nNo accuracy drop is told between networks that were tested on different data.\n"
    return text


def compression_table(comparisons: Iterable[Comparison]) -> str:
    """As a Markdown table."""
    lines = [
        "| network | reference | parameters | prune ratio | accuracy | accuracy drop | weights | reference weights "
        "| MACs ratio |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for comparison in comparisons:
        network, reference, drop = comparison.network, comparison.reference, comparison.accuracy_drop
        cells = (
            network.name.replace("|", "\\|"),
            reference.name.replace("|", "\\|"),
            f"{network.parameters:,}",
            f"{comparison.prune_ratio:.1f}%",
            "" if network.accuracy is None else f"{network.accuracy:.2%}",
            "" if drop is None else f"{drop:+.2f} points",
            format_bytes(network.file_bytes),
            format_bytes(reference.file_bytes),
            f"{comparison.macs_ratio:.1%}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _tested_on(folder: Path) -> Any:
    training = read_metrics(folder).get("training", {})
    return training.get("data"), training.get("test_images")


def _accuracies(network: str, like: Path, trained: Path) -> Iterable[float]:
    """Test accuracies of the trainings of a zoo network that are comparable with the one in the folder `like`."""
    wanted = _training_of(like)
    fingerprint = get(network).fingerprint
    for path in sorted(trained.glob(f"*/{METRICS}")):
        training = _training_of(path.parent)
        if read_metrics(path.parent).get("fingerprint") == fingerprint and training is not None and training == wanted:
            accuracy = read_metrics(path.parent)["training"]["test_accuracy"]
            if accuracy is not None:
                yield accuracy


def _training_of(folder: Path) -> Mapping[str, Any] | None:
    training = read_metrics(folder).get("training")
    return None if training is None else {key: training.get(key) for key in SAME}
