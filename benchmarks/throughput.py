"""Training throughput on the CPU: this package against the loop that one would write, and against the convolutions.

    python benchmarks/throughput.py --quick

These are timed in turn, several times, in one process with one thread: an epoch of ours (validation included), an
epoch of the naive script (`naive_training.py`, likewise), our training steps alone, and the convolutions of the same
network alone, forward and backward, in the shapes, precision and memory format of ours. Both loops train the same
network on the same images with the same optimiser, batch size and augmentation. Where ours computes in bfloat16, the
naive script is timed once more with autocast to bfloat16 and channels-last memory, which one who knows torch well would
add. Time is CPU time of the process, which other users of the machine lengthen less; on a quiet machine it is wall
time, since everything here is one thread. Ratios of wall time are in the JSON file too.

Images: the digits, and random images in the format of CIFAR-10 (speed does not depend on what they show).
"""

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import numpy as np
import torch
from naive_training import NaiveTraining
from results_file import RESULTS, make_parser, write_figures
from torch import Tensor

from dacnn_search.data.dataset import DataConfig, ImageData, Split, load
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.model import build
from dacnn_search.training.device_data import ResidentData
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.trainer import Training, build_seeded

# The floor.


class Convolutions:
    """The convolutions of one training step of a network and nothing else: all forward, then all backward."""

    def __init__(self, architecture: Architecture, shape: tuple[int, int, int], batch: int, dtype: torch.dtype) -> None:
        self.calls = [
            tuple(_channels_last(torch.randn(size, dtype=dtype)) for size in sizes)
            for sizes in _convolution_sizes(architecture, shape, batch)
        ]

    def run_step(self) -> None:
        for images, kernel, _ in self.calls:
            torch.ops.aten.convolution(images, kernel, None, *_geometry(kernel))
        for number, (images, kernel, gradient) in reversed(list(enumerate(self.calls))):
            mask = [number > 0, True, False]  # nobody needs a gradient of the images
            torch.ops.aten.convolution_backward(gradient, images, kernel, None, *_geometry(kernel), mask)


def _convolution_sizes(
    architecture: Architecture, shape: tuple[int, int, int], batch: int
) -> list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Return sizes of images, kernel and result of each convolution of a forward pass, in the order of computation."""
    sizes: list[Any] = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if function is torch.ops.aten.convolution.default:
                sizes.append((tuple(args[0].shape), tuple(args[1].shape), tuple(result.shape)))
            return result

    with torch.device("meta"), Recorder(), torch.no_grad():
        build(architecture, 10, shape[0]).eval()(torch.empty(batch, *shape))
    return sizes


def _geometry(kernel: Tensor) -> tuple[Any, ...]:
    """Return stride, padding, dilation, transposed, output padding, groups."""
    return [1, 1], [kernel.shape[-1] // 2] * 2, [1, 1], False, [0, 0], 1


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.to(memory_format=torch.channels_last)


# The comparison.


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and its data; `images` per epoch, of random ones."""

    kind: str
    sections: tuple[Section, ...]
    recipe: Recipe
    images: int = 0

    @property
    def architecture(self) -> Architecture:
        return Architecture(self.sections)


def cases(quick: bool) -> list[Case]:
    digits, cifar = Recipe(epochs=10_000), Recipe(epochs=10_000, batch_size=128, crop=4)
    images = 512 if quick else 2048
    large = cifar.model_copy(update={"batch_size": 64})
    small_sections = (
        (Section(2, 8),),
        (Section(3, 8), Section(3, 16)),
        (Section(4, 16), Section(2, 24)),
        (Section(2, 16, "block"), Section(3, 16), Section(3, 16)),
        (Section(6, 32),),
    )
    cifar_sections = (
        tuple(Section(2, width) for width in (16, 32, 64, 128)),
        tuple(Section(2, width) for width in (32, 64, 128, 256)),
        tuple(Section(depth, width) for depth, width in ((4, 64), (3, 128), (3, 256), (3, 512))),
    )
    return [
        *(Case("digits", sections, digits) for sections in small_sections),
        *(Case("cifar", sections, cifar, images) for sections in cifar_sections[:2]),
        Case("cifar", cifar_sections[2], large, images // 4),
    ]


def make_data(case: Case) -> ImageData:
    if case.kind == "digits":
        return load(DataConfig(name="digits", validation=0.3))
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        return Split(random.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % 10)

    names = tuple(str(number) for number in range(10))
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
    return ImageData("random", names, split(case.images), split(case.images // 8), split(0), mean, std, flip=True)


def without_validation(data: ImageData) -> ImageData:
    """Return data on which an epoch is its training steps alone."""
    return dataclasses.replace(data, validation=Split(data.validation.images[:0], data.validation.labels[:0]))


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Time an epoch of each in turn; medians, and ratios of what was timed in the same round."""
    data = make_data(case)
    ours, steps_alone = (
        Training(build_seeded(case.architecture, 10, data.input_shape[0], 0), ResidentData(images, "cpu"), case.recipe)
        for images in (data, without_validation(data))
    )
    naive = NaiveTraining(build_seeded(case.architecture, 10, data.input_shape[0], 0), data, case.recipe)
    floor = Convolutions(case.architecture, data.input_shape, case.recipe.batch_size, getattr(torch, ours.precision))
    steps = len(data.train) // case.recipe.batch_size

    def run_floor() -> None:
        for _ in range(steps):
            floor.run_step()

    timed: dict[str, Callable[[], Any]] = {
        "ours": ours.run_epoch,
        "step": steps_alone.run_epoch,
        "convolutions": run_floor,
        "naive": naive.run_epoch,
    }
    if ours.precision == "bfloat16":
        model = build_seeded(case.architecture, 10, data.input_shape[0], 0)
        timed["tuned"] = NaiveTraining(model, data, case.recipe, tuned=True).run_epoch
    cpu: dict[str, list[float]] = {name: [] for name in timed}
    wall: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(rounds + 1):  # the first is for warming up
        for name, run in timed.items():
            begun, begun_cpu = time.perf_counter(), time.process_time()
            run()
            if number:
                wall[name].append(time.perf_counter() - begun)
                cpu[name].append(time.process_time() - begun_cpu)
    exact = len(data.train) / (steps * case.recipe.batch_size)  # the floor leaves out an incomplete batch
    return {
        "kind": case.kind,
        "network": str(case.architecture),
        "batch_size": case.recipe.batch_size,
        "precision": ours.precision,
        "images_per_second": round(len(data.train) / statistics.median(cpu["ours"]), 1),
        "naive_images_per_second": round(len(data.train) / statistics.median(cpu["naive"]), 1),
        "vs_naive": _ratio(cpu["naive"], cpu["ours"]),
        "vs_naive_wall": _ratio(wall["naive"], wall["ours"]),
        "vs_tuned": _ratio(cpu["tuned"], cpu["ours"]) if "tuned" in cpu else None,
        "step_over_convolutions": round(_ratio(cpu["step"], cpu["convolutions"]) / exact, 3),
    }


def _ratio(over: list[float], under: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(over, under, strict=True)), 3)


def summarise(measured: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures: medians over the networks of a kind."""

    def median(kind: str, key: str) -> float:
        return round(statistics.median(result[key] for result in measured if result["kind"] == kind), 3)

    return {
        "small_vs_naive": median("digits", "vs_naive"),
        "cifar_vs_naive": median("cifar", "vs_naive"),
        "cifar_vs_tuned": median("cifar", "vs_tuned"),
        "step_over_convolutions": median("cifar", "step_over_convolutions"),
    }


def main() -> None:
    parser = make_parser(__doc__, "fewer images and rounds: at most 5 minutes on 2 cores", RESULTS / "throughput.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds = {"digits": 9, "cifar": 3} if options.quick else {"digits": 15, "cifar": 7}
    measured = []
    for case in cases(options.quick):
        measured.append(result := measure(case, rounds[case.kind]))
        print(
            f"{result['kind']:6} {result['network']:60} {result['images_per_second']:9,.1f} images/s, "
            f"naive {result['naive_images_per_second']:9,.1f}: {result['vs_naive']:.2f}x; "
            + (f"{result['vs_tuned']:.2f}x the tuned one; " if result["vs_tuned"] else "")
            + f"step {result['step_over_convolutions']:.2f} x its convolutions ({result['precision']})",
            flush=True,
        )
    figures = summarise(measured)
    write_figures(options.output, figures, quick=options.quick, rounds=rounds, networks=measured)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
