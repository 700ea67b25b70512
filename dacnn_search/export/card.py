"""Write the model card of a trained network, `README.md` in its folder, from `metrics.json` alone."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dacnn_search.common.units import format_bytes, format_count, format_duration
from dacnn_search.export.standalone import UNSHARING
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.drawing import LEGEND, draw

__all__ = ["model_card"]

# As the owners of the data sets state them.
LICENCES = {
    "digits": "CC BY 4.0 (Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI; as in scikit-learn)",
    "cifar10": "none stated by the owners; they ask to cite Krizhevsky, Learning Multiple Layers of Features, 2009",
    "cifar100": "none stated by the owners; they ask to cite Krizhevsky, Learning Multiple Layers of Features, 2009",
    "svhn": "for non-commercial use only (Netzer et al., 2011)",
    "fashion_mnist": "MIT (Zalando SE, 2017)",
}
UNKNOWN_LICENCE = "unknown to this program: the data were given by a user"
MOST_CLASSES = 20  # that a card names

USE = """\
Images go in as raw pixels in [0, 1]; their normalisation is part of the network. Its outputs are logits, one per \
class in the order above (in full: `input.classes` in `metrics.json`).

With dacnn-search, from the folder above this one, on the command line and in Python:

```sh
python -m dacnn_search.predict --model {folder} image.png
```

```python
import torch
from dacnn_search import load_model

model = load_model("{folder}")
pixels = torch.rand(1, {shape})  # your images
print(model.classes[model(pixels)[0].argmax()])
```"""
USE_ONNX = """\
With ONNX Runtime and numpy alone, in this folder:

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", disabled_optimizers={unsharing})
pixels = np.random.rand(1, {shape}).astype(np.float32)  # your images
print(session.run(None, {{"pixels": pixels}})[0].argmax(axis=1))
```

`disabled_optimizers` can be left out: ONNX Runtime then folds batch norm into a copy of the kernel for each layer as \
it loads the file, which may be a little faster and gives up the memory that sharing saves."""
USE_TORCH = """\
With torch alone, in this folder:

```python
import torch

model = torch.export.load("model.pt2").module()
print(model(torch.rand(1, {shape})).argmax(dim=1))
```"""

Metrics = Mapping[str, Any]


def model_card(metrics: Metrics, folder: str) -> str:
    """Return the card as Markdown. `folder` is the name of the network's folder."""
    parts = [
        f"# {_plain(metrics['name'] or metrics['network'])}",
        _summary(metrics),
        _table(("", ""), _key_figures(metrics)),
        "## Network",
        _network(metrics),
        "## Use",
        _use(metrics, folder),
        "## Files",
        _files(metrics),
        *(["## Training", _training(metrics, folder)] if "training" in metrics else []),
        "## Caveats",
        "\n".join(f"- {line}" for line in _caveats(metrics)),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(metrics: Metrics) -> str:
    channels, height, width = metrics["input"]["shape"]
    classes = [_plain(name) for name in metrics["input"]["classes"]]
    shown = ", ".join(classes[:MOST_CLASSES]) + (", ..." if len(classes) > MOST_CLASSES else "")
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    trained = f" Trained on {_plain(metrics['training']['data'])}." if "training" in metrics else ""
    return (
        f"A convolutional network with {metrics['parameters']:,} parameters that tells {len(classes)} classes apart in "
        f"{kind} images of {width}x{height} pixels: {shown}.{trained}"
    )


def _key_figures(metrics: Metrics) -> Iterable[Sequence[str]]:
    training = metrics.get("training", {})
    if training.get("test_accuracy") is not None:
        yield "test accuracy", _test_accuracy(training)
    if training.get("search_accuracy") is not None:
        yield "validation accuracy in the search", f"{training['search_accuracy']:.2%}"
    yield "parameters", f"{metrics['parameters']:,} (a shared kernel counted once)"
    yield "multiply-accumulates per image", format_count(metrics["macs"])
    yield "weights as a file", f"{format_bytes(metrics['file_bytes'])} (float32)"


def _test_accuracy(training: Mapping[str, Any]) -> str:
    scores = [seed["test_accuracy"] for seed in training["seeds"]]
    text = f"{training['test_accuracy']:.2%}"
    if len(scores) == 1:
        return f"{text} (one training) of {training['test_images']:,} images"
    spread = 100 * training["test_accuracy_spread"]
    each = ", ".join(f"{score:.2%}" for score in scores)
    return (
        f"{text} ± {spread:.2f} points (mean and standard deviation of {len(scores)} trainings: {each}; "
        f"the weights here are the first one's) of {training['test_images']:,} images"
    )


def _network(metrics: Metrics) -> str:
    architecture = Architecture.from_dict(metrics["architecture"])
    drawing = draw(architecture, tuple(metrics["input"]["shape"]))
    return f"{metrics['network']}\n\n```text\n{drawing}\n```\n\n{LEGEND}"


def _use(metrics: Metrics, folder: str) -> str:
    files = metrics.get("files", {})
    blocks = [USE, *([USE_ONNX] if "model.onnx" in files else []), *([USE_TORCH] if "model.pt2" in files else [])]
    shape = ", ".join(str(size) for size in metrics["input"]["shape"])
    return "\n\n".join(block.format(folder=folder, shape=shape, unsharing=json.dumps(UNSHARING)) for block in blocks)


def _files(metrics: Metrics) -> str:
    rows = []
    for name, file in metrics.get("files", {}).items():
        accuracy, latency, memory = file.get("accuracy"), file.get("milliseconds", {}), file.get("peak_bytes", {})
        row = [f"`{name}`", format_bytes(file["bytes"]), "" if accuracy is None else f"{accuracy:.2%}"]
        row += [f"{latency[batch]:.3g} ms" if batch in latency else "" for batch in ("1", "64")]
        row += [format_bytes(memory[batch]) if batch in memory else "" for batch in ("1", "64")]
        rows.append(row)
    text = _table(("file", "size", "accuracy", "1 image", "64 images", "memory for 1", "for 64"), rows)
    if "measured" in metrics:
        m = metrics["measured"]
        text += (
            f"\n\nAccuracy of each file on {m['images']:,} {m['part']} images. Time of a call: median, one thread, on "
            f"{m['processor']}. Memory: peak of the process above what it took before the file was loaded."
        )
    if any("int8" in name or "float16" in name for name in metrics.get("files", {})):
        text += (
            " float16 files hold the weights in half precision and compute in float32; int8 files compute the "
            "convolutions in 8 bits, with ranges taken from validation images."
        )
    return text


def _training(metrics: Metrics, folder: str) -> str:
    training, recipe = metrics["training"], metrics["training"]["recipe"]
    facts = [
        ("data", f"{_plain(training['data'])}: {training['train_images']:,} training images"),
        ("licence of the data", LICENCES.get(training["data_set"], UNKNOWN_LICENCE)),
        (
            "recipe",
            f"{training['epochs']} epochs of {recipe['optimizer']}, learning rate {recipe['learning_rate']:g} "
            f"({recipe['schedule'].replace('_', ' ')}), batches of {recipe['batch_size']}",
        ),
        ("time", format_duration(training["seeds"][0]["seconds"])),
        ("versions", ", ".join(f"{name} {v}" for name, v in metrics["versions"].items() if v)),
    ]
    if training.get("run"):
        facts.append(("found by", f"search {_plain(training['run'])}, trial {training['trial']}"))
    if training.get("init"):
        facts.append(("started from", f"the weights {_plain(training['init'])}"))
    again = (
        f"To train it again: `python -m dacnn_search.train --config {folder}/config.yaml`. A relative `root` of the "
        "data counts from the folder that you call this in; `--data` names other data."
    )
    return f"{_table(('', ''), facts)}\n\n{again}"


def _caveats(metrics: Metrics) -> Iterable[str]:
    training = metrics.get("training")
    if training is None:
        yield "These weights were not trained by dacnn-search: nothing is known of their accuracy."
    elif training.get("test_accuracy") is None:
        yield "The data have no test images, so the accuracy on new images is not known."
    else:
        # Two images more of each kind (Agresti and Coull): without them 100% would have no error at all.
        n = training["test_images"]
        p = (n * training["test_accuracy"] + 2) / (n + 4)
        error = math.sqrt(p * (1 - p) / (n + 4))
        yield (
            f"With {n:,} test images the standard error of the accuracy is about {100 * error:.2f} points; smaller "
            "differences between networks say little."
        )
        if len(training["seeds"]) == 1:
            yield "It was trained once; another seed gives other weights and another accuracy."
    yield (
        "It answers with one of its classes whatever the image shows. Images unlike those it was trained on, in "
        "content, framing, brightness or size, are classified less well, and it does not say so."
    )
    yield "The softmax of its outputs is not a calibrated probability."
    if metrics["architecture"]["batch_norm"]:
        yield (
            "Batch norm is stored as a scale and a shift after each convolution, not folded into the kernels: layers "
            "that share a kernel differ in just these, so folding would store the kernel once per layer."
        )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Return a text on one line, with everything escaped that Markdown would take as markup."""
    line = " ".join(str(text).split())
    return "".join(f"\\{c}" if c in "\\`*[]<>|#" else c for c in line)
