"""Run exported files in a process without this package and compare their logits with the network's."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from dacnn_search.common.errors import ExportError
from dacnn_search.common.files import sha256_of
from dacnn_search.data.dataset import ImageData
from dacnn_search.export import standalone
from dacnn_search.export.classifier import Classifier
from dacnn_search.training.weights import read_weights

EXACT = ("model.pt2", "model.onnx")  # in full precision
# Share of the largest logit; float32 sums in another order differ by less than a hundredth of it.
TOLERANCE = 1e-3
RANDOM_IMAGES = 64
SECONDS = 1800  # for one file


def choose_images(data: ImageData | None, model: Classifier) -> tuple[str, np.ndarray, np.ndarray | None]:
    """Return the images to run files on: those of the test or, without any, of the validation, or random ones.

    They come as the name of the part (test, validation or random), images (N, H, W, C) uint8 and labels (N,) int64,
    which random ones lack.
    """
    for part in ("test", "validation") if data else ():
        split = getattr(data, part)
        if len(split):
            return part, split.images, split.labels
    channels, height, width = model.input.shape
    shape = (RANDOM_IMAGES, height, width, channels)
    return "random", np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), None


def accuracy_of(logits: np.ndarray, labels: np.ndarray | None) -> float | None:
    """Return the share of images that are classified correctly; None without labels."""
    return None if labels is None else float((logits.argmax(axis=1) == labels).mean())


def measure_file(
    path: Path, model: Classifier, images: np.ndarray, labels: np.ndarray | None, reference: np.ndarray
) -> dict[str, Any]:
    """Run an exported file on images (see `choose_images`); return its bytes, checksum, accuracy, latency and memory.

    Compared with `reference`, the network's own logits, files in full precision may be off by a thousandth of the
    largest. Then an image can be classified otherwise only if its two highest logits are that close. Weights, which do
    not run by themselves, are run as the model's. Raises ExportError if the file can't be run or is off.
    """
    if path.suffix == ".safetensors":
        report: dict[str, Any] = {}
        logits = Classifier(model.architecture, read_weights(path), model.input).logits(images)
    else:
        report, logits = _run(path, images)
    if logits.shape != reference.shape or not np.isfinite(logits).all():
        raise ExportError(f"{path.name}: must give finite logits {reference.shape}, but gives {logits.shape}")
    difference = float(np.abs(logits - reference).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(reference).max()))
    if path.name in EXACT and difference > allowed:
        raise ExportError(
            f"{path.name}: logits may differ from the network's by {allowed:.2g}, but differ by {difference:.2g}"
        )
    return {
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "accuracy": accuracy_of(logits, labels),
        "same_answers": accuracy_of(logits, reference.argmax(axis=1)),
        "largest_difference": difference,
        **report,
    }


def _run(path: Path, images: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """Run `standalone.py` on a file; return its report and the logits."""
    with tempfile.TemporaryDirectory(prefix="dacnn-search-") as folder:
        inputs, outputs = Path(folder, "images.npy"), Path(folder, "logits.npy")
        np.save(inputs, np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        # -P keeps the script's folder off Python's path: the modules there have common names.
        command = [sys.executable, "-P", standalone.__file__, *map(str, (path, inputs, outputs))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"{path.name}: running it must take at most {SECONDS} s, but took longer") from error
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExportError(f"{path.name}: can't be run outside of this package: {last}")
        return json.loads(done.stdout.splitlines()[-1]), np.load(outputs)
