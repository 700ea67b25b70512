"""Choose what makes a training fast: the precision, by the measured speed of one CPU thread in each, and torch.compile.

Flags of a processor do not tell: some compute convolutions in bfloat16 five times as fast as in float32, others with
the same instructions at 0.6 of the rate. Importing this module does not import torch.
"""

import contextlib
import functools
import math
import os
import shutil
import sysconfig
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from dacnn_search.common.files import write_atomic
from dacnn_search.common.machine import processor_name
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import InputShape, costliest_section, estimate_cost, gpu_step_seconds, training_work
from dacnn_search.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]

SMALL_STEP_MACS = 6e9  # of a training step, below which one thread is as fast as several
LEAST_GAIN = 1.1  # bfloat16 must be this much faster, since smaller gains are within the noise of the measurement
STEP_MACS = 1e9  # of a measured step at most, in three forward passes: 10 to 50 ms
MOST_SECONDS, MOST_ROUNDS = 0.2, 10  # of the measurement after its warm-up
CLASSES = 10
# Of torch.compile, assumed for GPUs, not measured. On CPUs compiling saves nothing: a step takes 0.9 to 1.25 times as
# long as without, and compiling 6 to 40 s.
COMPILE_SECONDS, SAVED_SHARE = 60.0, 0.25  # the share of a step


class Speed(BaseModel):
    """Work that one thread does per second of training in each precision, counted by `network.cost.training_work`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    float32: float = Field(gt=0, allow_inf_nan=False)
    bfloat16: float = Field(gt=0, allow_inf_nan=False)

    @property
    def precision(self) -> Precision:
        """The faster precision; float32 unless bfloat16 is clearly faster."""
        return "bfloat16" if self.bfloat16 > LEAST_GAIN * self.float32 else "float32"

    def rate(self, precision: str = "auto") -> float:
        """The work per second in a recipe's `precision`."""
        return float(getattr(self, self.precision if precision == "auto" else precision))


def choose_precision(
    recipe: Recipe, networks: Sequence[Architecture], input_shape: InputShape, num_classes: int, device: "torch.device"
) -> Precision:
    """Return the recipe's precision; where that is `auto`, the faster one for these networks on the device.

    A CPU is measured once per process and size. A GPU is not: bfloat16 is taken where its hardware has it.
    """
    if recipe.precision != "auto":
        return recipe.precision
    if device.type == "cuda":
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return speed_for(networks, input_shape, num_classes, recipe.batch_size).precision


def speed_for(
    networks: Sequence[Architecture],
    input_shape: InputShape,
    num_classes: int,
    batch_size: int,
    *,
    remembered: bool = False,
) -> Speed:
    """Measure at the size of the network in the middle of these by work: at its section with the most arithmetic.

    With `remembered`, sizes are rounded to powers of 2 and what was measured is kept in the user's cache. Only the
    first call for a size on a machine imports torch.
    """
    ordered = sorted(networks, key=lambda network: training_work(network, input_shape, num_classes, 1))
    sizes = (*costliest_section(ordered[len(ordered) // 2], input_shape), batch_size)
    if not remembered:
        return measure_speed(*sizes)
    width, side, batch = (2 ** round(math.log2(size)) for size in sizes)
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dacnn_search", "speed.json")
    key = f"{processor_name()}, torch {version('torch')}, {width} wide, {side}x{side}, batches of {batch}"
    speeds, known = TypeAdapter(dict[str, Speed]), dict[str, Speed]()
    with contextlib.suppress(OSError, ValueError):  # the file is missing or damaged
        known = speeds.validate_json(path.read_bytes())
    if key not in known:
        known[key] = measure_speed(width, side, batch)
        with contextlib.suppress(OSError):  # the user's cache directory can't be written
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, speeds.dump_json(known, indent=1))
    return known[key]


@functools.cache
def measure_speed(width: int, side: int, batch_size: int) -> Speed:
    """Measure training steps of a small network of 3x3 convolutions, batch norm and ReLU on one thread of the CPU.

    Takes about 0.2 s, and once per process what torch needs to begin. Both precisions take turns and the fastest of
    several steps counts, in CPU time, so that other programs disturb little. Large steps are cut to fewer images. The
    convolutions have `width` channels, the images `side` pixels in height and width.
    """
    import torch

    from dacnn_search.network.model import build
    from dacnn_search.training.light_optimizers import AdamW

    architecture, shape = Architecture((Section(2, width),)), (3, side, side)
    batch_size = max(2, min(batch_size, int(STEP_MACS / (3 * estimate_cost(architecture, shape, CLASSES).macs))))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = build(architecture, CLASSES, shape[0]).to(memory_format=torch.channels_last)
        images = torch.randn(batch_size, *shape).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch_size) % CLASSES
    optimizer = AdamW(model.parameters(), 1e-6, fused=True)

    def step_seconds(bfloat16: bool) -> float:
        start = time.thread_time()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = model(images)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        return time.thread_time() - start

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [(step_seconds(False), step_seconds(True))]  # a warm-up
        end = time.perf_counter() + MOST_SECONDS
        while len(rounds) < 2 or (len(rounds) <= MOST_ROUNDS and time.perf_counter() < end):
            rounds.append((step_seconds(False), step_seconds(True)))
    finally:
        torch.set_num_threads(threads)
    work = training_work(architecture, shape, CLASSES, batch_size)
    float32, bfloat16 = (work / min(seconds) for seconds in zip(*rounds[1:], strict=True))
    return Speed(float32=float32, bfloat16=bfloat16)


def should_compile(
    recipe: Recipe, architecture: Architecture, input_shape: InputShape, num_classes: int, images: int, gpu: bool
) -> bool:
    """Follow the recipe; by `auto`, compile on a GPU if that saves more time than it takes and Triton can be used.

    `images` is the number of training images in an epoch.
    """
    if recipe.compiled != "auto":
        return recipe.compiled
    # Triton needs a C compiler and Python's headers, and looks for them in these places.
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if not gpu or not compiler or not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return False
    step_macs = 3.0 * recipe.batch_size * estimate_cost(architecture, input_shape, num_classes).macs
    steps = recipe.epochs * math.ceil(images / recipe.batch_size)
    return steps * max(gpu_step_seconds(step_macs, architecture.layers)) * SAVED_SHARE > COMPILE_SECONDS
