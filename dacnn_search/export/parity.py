"""Run exported files in a process without this package and compare their logits with the network's."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dacnn_search.common.errors import ExportError
from dacnn_search.common.files import sha256_of
from dacnn_search.data.dataset import ImageData
from dacnn_search.export import standalone
from dacnn_search.export.classifier import Classifier
from dacnn_search.export.folder import NetworkInput
from dacnn_search.training.weights import read_weights

__all__ = ["CheckImages", "measure_file"]

EXACT = ("model.pt2", "model.onnx")  # in full precision
# Share of the largest logit; float32 sums in another order differ by less than a hundredth of it.
TOLERANCE = 1e-3
RANDOM_IMAGES = 64
SECONDS = 1800  # for one file


@dataclass(frozen=True)
class CheckImages:
    """The images that exported files are run on."""

    part: str  # of the data: test, validation or random
    images: np.ndarray  # (N, H, W, C) uint8
    labels: np.ndarray | None  # (N,) int64; None for random images
    calibration: np.ndarray  # (M, H, W, C) uint8, which set the ranges of int8

    @classmethod
    def of(cls, data: ImageData | None, given: NetworkInput) -> "CheckImages":
        """Return the test images, or without those the validation images, or without data random ones."""
        if data is not None:
            calibration = (data.validation if len(data.validation) else data.train).images
            for part, split in (("test", data.test), ("validation", data.validation)):
                if len(split):
                    return cls(part, split.images, split.labels, calibration)
        channels, height, width = given.shape
        shape = (RANDOM_IMAGES, height, width, channels)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return cls("random", images, None, images[:0])

    def accuracy(self, logits: np.ndarray) -> float | None:
        """Return the share of the images that are classified correctly; None for random ones."""
        return None if self.labels is None else float((logits.argmax(axis=1) == self.labels).mean())


def measure_file(path: Path, model: Classifier, check: CheckImages, reference: np.ndarray) -> dict[str, Any]:
    """Run an exported file and return its entry in `metrics.json`: bytes, checksum, accuracy, latency, memory.

    Files in full precision may be off by a thousandth of the largest logit. Then an image can be classified otherwise
    only if its two highest logits are that close.

    Args:
        path: The file. Weights, which do not run by themselves, are measured as those of the model.
        model: The network.
        check: The images to run it on.
        reference: The network's own logits on them.

    Raises ExportError if the file can't be run or is off.
    """
    if path.suffix == ".safetensors":
        report: dict[str, Any] = {}
        logits = Classifier(model.architecture, read_weights(path), model.input).logits(check.images)
    else:
        report, logits = _run(path, check.images)
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
        "accuracy": check.accuracy(logits),
        "same_answers": float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()),
        "largest_difference": difference,
        **report,
    }


def _run(path: Path, images: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """Run `standalone.py` on a file; return its report and the logits."""
    with tempfile.TemporaryDirectory(prefix="dacnn-search-") as folder:
        inputs, outputs = Path(folder, "images.npy"), Path(folder, "logits.npy")
        np.save(inputs, np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        # -P keeps the script's folder off Python's path: the modules there have common names.
        command = [sys.executable, "-P", str(Path(standalone.__file__).resolve())]
        command += [str(path.resolve()), str(inputs), str(outputs)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"{path.name}: running it must take at most {SECONDS} s, but took longer") from error
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExportError(f"{path.name}: can't be run outside of this package: {last}")
        return json.loads(done.stdout.splitlines()[-1]), np.load(outputs)
