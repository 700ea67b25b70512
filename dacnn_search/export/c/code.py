"""Write a network as C code and check it: the compiled code and NumPy's reference of it agree on all images."""

from pathlib import Path
from typing import Any

import numpy as np

from dacnn_search.common.errors import ExportError
from dacnn_search.export.c.compiler import compiles_here, measure_size, run_on_host
from dacnn_search.export.c.options import CodeOptions
from dacnn_search.export.c.quantization import quantize
from dacnn_search.export.c.source import write_source
from dacnn_search.export.classifier import Classifier
from dacnn_search.network.cost import estimate_cost

MOST_MACS = 4 * 10**11  # that the compiled code computes to be compared, some minutes


def write_code(
    folder: Path,
    model: Classifier,
    options: CodeOptions,
    title: str,
    calibration: np.ndarray,
    part: str,
    images: np.ndarray,
    labels: np.ndarray | None,
    reference: np.ndarray,
) -> dict[str, Any]:
    """Write the C code of a network to `folder`; return what `metrics.json` says of it.

    The calibration images (N, H, W, C) uint8 set the steps of activations. Accuracy is measured on `images`, which are
    of the test, the validation or random (`part`), by NumPy's reference. If there is a C compiler, the compiled code
    must give the same scores and classes, bit for bit: on all images, of a large network on the first ones. `reference`
    are the network's own logits.

    Raises InputError without calibration images, for networks that `CodeOptions.check` refuses or missing tools,
    ExportError if the code does not do what the reference does.
    """
    given = model.architecture, model.input.shape, len(model.classes)
    options.check(*given)
    network = quantize(model, calibration)
    scores, classes = network.scores(images)
    accuracy, of_floats = (
        None if labels is None else float((c == labels).mean()) for c in (classes, reference.argmax(1))
    )
    told = "Its accuracy is not known."
    if accuracy is not None:
        told = f"{accuracy:.2%} of {len(images):,} {part} images are classified right ({of_floats:.2%} in float32)."
    compared = max(1, MOST_MACS // estimate_cost(*given).macs)
    facts = {"title": title, "network": str(model.architecture), "told": told, "classes": model.classes}
    files = write_source(folder, network, options.name, facts)
    return {
        "name": options.name,
        "files": files,
        "flash": network.plan.flash,
        "constants": network.plan.weight_bytes + network.plan.table_bytes,
        "ram": network.plan.ram,
        "score_step": network.score_step,
        "part": part,
        "images": len(images),
        "accuracy": accuracy,
        "float_accuracy": of_floats,
        "same_answers": float((classes == reference.argmax(axis=1)).mean()),
        "largest_difference": float(np.abs(scores * network.score_step - reference).max()),
        "compared": _compare(folder, images[:compared], scores, classes),
        "targets": {target: measure_size(folder, target) for target in options.targets},
    }


def _compare(folder: Path, images: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> int:
    """Return on how many images the compiled code was run: none if there is no C compiler.

    Raises ExportError if it gives other scores or classes than the reference.
    """
    if not compiles_here():
        return 0
    compiled_scores, compiled_classes = run_on_host(folder, images)
    wrong = (compiled_scores != scores[: len(images)]).any(axis=1) | (compiled_classes != classes[: len(images)])
    if wrong.any():
        raise ExportError(f"the C code must give the scores of its reference, but {wrong.sum():,} images get others")
    return len(images)
