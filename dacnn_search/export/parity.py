"""Running exported files in a process that lacks this package, and comparing what they say with the network."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dacnn_search.common.errors import ExportError
from dacnn_search.common.files import sha256_of
from dacnn_search.data.dataset import ImageData
from dacnn_search.export import standalone
from dacnn_search.export.folder import NetworkInput

__all__ = ["CheckImages", "describe_file", "measure_file"]

# Of the largest logit; float32 sums in another order differ by less than a hundredth of it.
TOLERANCE = 1e-3
RANDOM_IMAGES = 64
SECONDS = 1800  # for one file


@dataclass(frozen=True)
class CheckImages:
    """What exported files are run on. images: (N, H, W, C) uint8. labels: (N,) int64, None for random images.

    part: which part of the data they are. calibration: (M, H, W, C) uint8, what int8 takes its ranges from.
    """

    part: str
    images: np.ndarray
    labels: np.ndarray | None
    calibration: np.ndarray

    @classmethod
    def of(cls, data: ImageData | None, given: NetworkInput) -> "CheckImages":
        """The test images, or without those the validation images, or without data random ones."""
        if data is not None:
            calibration = (data.validation if len(data.validation) else data.train).images
            for part in ("test", "validation"):
                split = getattr(data, part)
                if len(split):
                    return cls(part, split.images, split.labels, calibration)
        channels, height, width = given.shape
        shape = (RANDOM_IMAGES, height, width, channels)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return cls("random", images, None, images[:0])

    def accuracy(self, logits: np.ndarray) -> float | None:
        """Share of the images that are classified correctly; None for random ones."""
        return None if self.labels is None else float((logits.argmax(axis=1) == self.labels).mean())


def measure_file(path: Path, check: CheckImages, reference: np.ndarray, *, exact: bool) -> dict[str, Any]:
    """What `metrics.json` says of an exported file: bytes, checksum, accuracy, latency, memory.

    reference: the network's own logits on the images of `check`. Raises ExportError if the file can't be run or, where
    it is to be `exact`, if a logit is off by more than a thousandth of the largest one. Then images can be classified
    otherwise only if their two highest logits are that close.
    """
    report, logits = _run(path, check.images)
    if logits.shape != reference.shape or not np.isfinite(logits).all():
        raise ExportError(f"{path.name}: must give finite logits {reference.shape}, but gives {logits.shape}")
    difference = float(np.abs(logits - reference).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(reference).max()))
    if exact and difference > allowed:
        raise ExportError(
            f"{path.name}: logits may differ from the network's by {allowed:.2g}, but differ by {difference:.2g}"
        )
    return {
        **describe_file(path, check, logits),
        "same_answers": float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()),
        "largest_difference": difference,
        **report,
    }


def describe_file(path: Path, check: CheckImages, logits: np.ndarray) -> dict[str, Any]:
    """Bytes and checksum of a file, and the accuracy of the logits it gives."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path), "accuracy": check.accuracy(logits)}


def _run(path: Path, images: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """What `standalone.py` reports, and the logits."""
    with tempfile.TemporaryDirectory(prefix="dacnn-search-") as folder:
        inputs, outputs = Path(folder, "images.npy"), Path(folder, "logits.npy")
        np.save(inputs, np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        done = _python(str(Path(standalone.__file__).resolve()), str(path.resolve()), str(inputs), str(outputs))
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExportError(f"{path.name}: can't be run outside of this package: {last}")
        return json.loads(done.stdout.splitlines()[-1]), np.load(outputs)


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python without the script's folder on its path (-P): the modules there have common names."""
    command: Sequence[str] = (sys.executable, "-P", *arguments)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment)
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"{arguments[1]}: running it must take at most {SECONDS} s, but took longer") from error
