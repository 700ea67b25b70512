"""The memory that a training step takes, estimated before it is run."""

from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import InputShape, training_bytes
from dacnn_search.training.recipe import Recipe

__all__ = ["DATA_SHARE", "PROCESS_BYTES", "SMALL_STEP", "WORKSPACE_BYTES", "excess", "step_bytes"]


GIB = 2**30


# What a process takes of a GPU beside its tensors: the CUDA context and the kernels of cuDNN; and, among its tensors,
# the workspaces of the libraries.
PROCESS_BYTES, WORKSPACE_BYTES = 1 * GIB, 64 * 2**20


DATA_SHARE = 0.25  # of the memory that a process may use of a GPU, at most: larger data stay in host memory


STATES_PER_WEIGHT = {"sgd": 1, "adagrad": 1, "adamw": 2}  # of the optimisers


SMALL_STEP = 6e9  # MACs of a training step below which one thread is as fast as several


def step_bytes(
    architecture: Architecture, input_shape: InputShape, num_classes: int, recipe: Recipe, recomputes: bool = False
) -> int:
    """Estimated peak memory of a training step by a recipe, in bytes; see `training_bytes`."""
    return training_bytes(
        architecture,
        input_shape,
        num_classes,
        recipe.batch_size,
        optimizer_states=STATES_PER_WEIGHT[recipe.optimizer],
        recomputes=recomputes,
    )


def excess(peak_bytes: int, estimate: int) -> float:
    """How often the estimate of a step fits into what a training took of a GPU, workspaces left out."""
    return (peak_bytes - WORKSPACE_BYTES) / estimate
