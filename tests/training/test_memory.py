"""Estimates of a step's memory, and what they decide."""

import subprocess
import sys
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dacnn_search.common.errors import TrainingError
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import estimate_cost
from dacnn_search.training.memory import WORKER_ENVIRONMENT, must_recompute, step_bytes
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.trainer import build_seeded

SMALL = Architecture((Section(2, 8), Section(2, 16)), shortcuts="block")

# Page faults of allocating and freeing 64 MB for the second time.
FAULTS = """
import resource
import numpy as np
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = np.full(2**26, 1, np.uint8)
    del block
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(after - before)
"""


def test_memory_grows_with_batch_and_depth_but_weights_do_not():
    def memory(depth, batch):
        return step_bytes(Architecture((Section(depth, 32),)), (3, 32, 32), 10, Recipe(batch_size=batch))

    assert memory(4, 64) < memory(4, 128) < 2.01 * memory(4, 64)
    assert memory(8, 64) > 1.5 * memory(4, 64)


def test_sections_are_computed_again_only_if_a_step_would_not_fit():
    shape, recipe = (3, 8, 8), Recipe()
    whole, less = (step_bytes(SMALL, shape, 3, recipe, recomputes) for recomputes in (False, True))
    assert less < whole
    assert not must_recompute(SMALL, shape, 3, recipe, whole)
    assert must_recompute(SMALL, shape, 3, recipe, whole - 1)
    with pytest.raises(TrainingError, match=r"out of memory: a step with 32 images needs about .* but a trial may use"):
        must_recompute(SMALL, shape, 3, recipe, less - 1)


def test_a_teacher_adds_its_weights_and_its_forward_pass_if_that_is_larger():
    shape, recipe = (3, 8, 8), Recipe(batch_size=64)
    alone = step_bytes(SMALL, shape, 3, recipe)
    for width in (4, 128):
        teacher = Architecture((Section(2, width),))
        weights = 4 * estimate_cost(teacher, shape, 3).parameters
        added = step_bytes(SMALL, shape, 3, recipe, teacher=teacher) - alone
        assert added == weights if width == 4 else added > weights + 4 * 64 * 128 * 8 * 8
    assert must_recompute(SMALL, shape, 3, recipe, alone, Architecture((Section(2, 4),)))


@pytest.mark.parametrize("shortcuts", ["none", "block", "history"])
@pytest.mark.parametrize("kernels", [{}, {"convolutions": "separable", "anchors": 3, "mixing": "learned"}])
def test_the_forward_pass_of_a_teacher_takes_no_more_than_is_estimated(shortcuts, kernels):
    """By the outputs of operations that live at once; a student of next to no memory makes the teacher's count."""
    teacher = Architecture((Section(6, 32, "layer"), Section(4, 32)), shortcuts=shortcuts, **kernels)
    shape, batch = (3, 16, 16), 64
    tiny = Architecture((Section(1, 1),))
    estimate = step_bytes(tiny, shape, 3, Recipe(batch_size=batch), teacher=teacher)
    model = build_seeded(teacher, 3, 3, 0).eval()
    images = torch.randn(batch, *shape)
    tracker = LiveBytes()
    with torch.no_grad(), tracker:
        model(images)
    assert images.nbytes < tracker.peak < estimate < 1.1 * tracker.peak


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, as long as these live."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}  # bytes, by their place in memory
        self.peak = 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        result = operation(*arguments, **(keywords or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            memory = tensor.untyped_storage()
            if memory.data_ptr() not in self.live:  # else it is changed in place
                self.live[memory.data_ptr()] = memory.nbytes()
                weakref.finalize(tensor, self.live.pop, memory.data_ptr(), None)
        self.peak = max(self.peak, sum(self.live.values()))
        return result


@pytest.mark.skipif(sys.platform != "linux", reason="the variables are glibc's")
def test_processes_that_train_keep_the_memory_that_they_freed():
    def faults(environment):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        return int(done.stdout)

    small_pages = {"NUMPY_MADVISE_HUGEPAGE": "0"}  # with huge ones there are few faults anyway
    assert faults(small_pages) > 10_000
    assert faults(small_pages | WORKER_ENVIRONMENT) < 1000
