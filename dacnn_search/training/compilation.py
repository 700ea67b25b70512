"""When a training uses torch.compile, and how."""

import math
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dacnn_search.network.cost import count_macs, gpu_step_seconds
from dacnn_search.network.model import Network
from dacnn_search.training.recipe import Recipe

__all__ = ["compile_model", "should_compile"]

# Assumed for GPUs, not measured. On CPUs compiling saves nothing: a step takes 0.9 to 1.25 times as long as without,
# and compiling 6 to 40 s.
COMPILE_SECONDS = 60.0
SAVED_SHARE = 0.25  # of a step


def should_compile(recipe: Recipe, model: Network, images: int, image_shape: tuple[int, int, int], gpu: bool) -> bool:
    """Follow the recipe; by `auto`, compile on a GPU if that saves more time than it takes and Triton can be used.

    Args:
        images: Training images in an epoch.
    """
    if recipe.compiled != "auto":
        return recipe.compiled
    if not gpu or not _has_compiler():
        return False
    step_macs = 3.0 * recipe.batch_size * count_macs(model.architecture, image_shape, model.num_classes)
    steps = recipe.epochs * math.ceil(images / recipe.batch_size)
    seconds = steps * max(gpu_step_seconds(step_macs, model.architecture.layers))
    return seconds * SAVED_SHARE > COMPILE_SECONDS


def compile_model(model: Network) -> Callable[[Tensor], Tensor]:
    """Compile with CUDA graphs, one for each of the two batch sizes of a training."""
    torch.compiler.reset()  # torch would give up compiling after a few networks in one process
    return torch.compile(model, mode="reduce-overhead", dynamic=False)


def _has_compiler() -> bool:
    """Look for the C compiler and Python's headers where Triton looks for them."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return bool(compiler) and Path(sysconfig.get_path("include"), "Python.h").is_file()
