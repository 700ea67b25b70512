"""Run an exported file where this package is not installed: this script imports nothing of it.

`python -P standalone.py MODEL IMAGES LOGITS` reads images from an .npy file, uint8 (N, C, H, W), writes the logits to
another, and prints a JSON object with `milliseconds` and `peak_bytes` by batch size.
"""

import importlib
import json
import statistics
import sys
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

BATCHES = (1, 64)
CHUNK = 256
MOST_CALLS, MOST_SECONDS = 30, 1.0  # for one latency
# This optimiser of ONNX Runtime is off: it folds batch norm into the kernels, so that each layer has one of its own.
UNSHARING = ("ConvBNFusion",)

Run = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Measure the model, then run it on all images in chunks."""
    model, images, logits = (Path(argument) for argument in sys.argv[1:4])
    pixels = np.load(images, mmap_mode="r")
    library, load = ("onnxruntime", _load_onnx) if model.suffix == ".onnx" else ("torch", _load_pt2)
    importlib.import_module(library)
    before = _memory("VmRSS")
    run = load(model)
    report: dict[str, dict[int, float]] = {"milliseconds": {}, "peak_bytes": {}}
    for batch in BATCHES:
        example = _scaled(np.resize(pixels[:batch], (batch, *pixels.shape[1:])))
        report["milliseconds"][batch] = _latency(run, example)
        if before is not None:
            report["peak_bytes"][batch] = (_memory("VmHWM") or 0) - before
    starts = range(0, len(pixels), CHUNK)
    np.save(logits, np.concatenate([run(_scaled(pixels[start : start + CHUNK])) for start in starts]))
    if "dacnn_search" in sys.modules:
        raise RuntimeError("this must run without dacnn_search")
    print(json.dumps(report))


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(UNSHARING)
    )
    return lambda pixels: np.asarray(session.run(None, {"pixels": pixels})[0])


def _load_pt2(path: Path) -> Run:
    import torch

    torch.set_num_threads(1)
    module = torch.export.load(path).module()
    return torch.inference_mode()(lambda pixels: module(torch.from_numpy(pixels)).numpy())


def _scaled(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / np.float32(255)


def _latency(run: Run, pixels: np.ndarray) -> float:
    """Return the median time of a call in milliseconds."""
    call = partial(run, pixels)
    call()
    calls = min(MOST_CALLS, 1 + int(MOST_SECONDS / timeit.timeit(call, number=1)))
    return 1000 * statistics.median(timeit.repeat(call, number=1, repeat=calls))


def _memory(key: str) -> int | None:
    """Return the memory of this process in bytes: VmRSS now, VmHWM at its peak; None if not on Linux."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)


if __name__ == "__main__":
    main()
