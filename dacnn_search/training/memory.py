"""The memory that training takes: estimates before a step is run, and what processes are given."""

import math

from dacnn_search.common.errors import TrainingError
from dacnn_search.common.units import format_bytes
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import BYTES_PER_WEIGHT, InputShape, estimate_cost
from dacnn_search.training.recipe import Recipe

GIB = 2**30
GPU_PROCESS_BYTES = 1 * GIB  # of a GPU, that a process takes beside its tensors: CUDA's context, cuDNN's kernels
GPU_WORKSPACE_BYTES = 64 * 2**20  # of a process's tensors, that libraries take for themselves
GPU_DATA_SHARE = 0.25  # of a process's GPU memory, at most, for the images; larger data stay in host memory
STATES_PER_WEIGHT = {"sgd": 1, "adagrad": 1, "adamw": 2}  # tensors that an optimizer keeps for each parameter

# For processes that train. glibc keeps freed memory for the next step. By default it goes back to the system and comes
# again page by page, which takes 7,000 to 11,000 page faults in a float32 step at 32x32 pixels.
WORKER_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(GIB),
    "MALLOC_MMAP_THRESHOLD_": str(GIB),
    "MALLOC_ARENA_MAX": "2",  # long-lived workers would grow without it
}


def step_bytes(
    architecture: Architecture,
    input_shape: InputShape,
    num_classes: int,
    recipe: Recipe,
    recomputes: bool = False,
    teacher: Architecture | None = None,
) -> int:
    """Estimate the peak memory of one training step, in bytes, without what libraries take for themselves.

    These are the weights, their gradients and optimizer states, the kernels mixed from them, the activations of a
    batch, and two gradients as large as the largest activation, all in float32. With `recomputes`, sections are
    computed again in the backward pass. A teacher adds its weights, and its forward pass if that takes more than the
    rest of the step, before which it is done.
    """
    cost = estimate_cost(architecture, input_shape, num_classes)
    weights = (2 + STATES_PER_WEIGHT[recipe.optimizer]) * cost.parameters + cost.mixed_weights
    activations = cost.recomputed_activations if recomputes else cost.activations
    scalars_per_image = activations + 2 * cost.largest_activation
    if teacher is not None:
        taught = estimate_cost(teacher, input_shape, num_classes)
        weights += taught.parameters + taught.mixed_weights
        history = max(layer.history for block in teacher.blocks for layer in block.layers)
        outputs = 4 + max(1, history)  # of layers, that are in memory at once
        scalars_per_image = max(scalars_per_image, math.prod(input_shape) + outputs * taught.largest_activation)
    return BYTES_PER_WEIGHT * (weights + recipe.batch_size * scalars_per_image)


def must_recompute(
    architecture: Architecture,
    input_shape: InputShape,
    num_classes: int,
    recipe: Recipe,
    limit: float,
    teacher: Architecture | None = None,
) -> bool:
    """Return whether a step fits into `limit` bytes only if sections are computed again in the backward pass.

    Raises TrainingError if it does not fit even then.
    """
    if step_bytes(architecture, input_shape, num_classes, recipe, teacher=teacher) <= limit:
        return False
    needed = step_bytes(architecture, input_shape, num_classes, recipe, recomputes=True, teacher=teacher)
    if needed > limit:
        raise TrainingError(f"{describe_need(needed, recipe)}, but a trial may use {format_bytes(int(limit))}")
    return True


def describe_need(needed: int, recipe: Recipe) -> str:
    return f"out of memory: a step with {recipe.batch_size} images needs about {format_bytes(needed)}"


def peak_ratio(peak_bytes: int, estimate: int) -> float:
    """Return the ratio of a training's measured peak of GPU memory, workspaces left out, to the estimate of a step."""
    return (peak_bytes - GPU_WORKSPACE_BYTES) / estimate
