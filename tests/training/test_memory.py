"""Estimates of a step's memory, and what they decide."""

import subprocess
import sys

import pytest

from dacnn_search.common.errors import TrainingError
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.training.memory import WORKER_ENVIRONMENT, must_recompute, step_bytes
from dacnn_search.training.recipe import Recipe

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


@pytest.mark.skipif(sys.platform != "linux", reason="the variables are glibc's")
def test_processes_that_train_keep_the_memory_that_they_freed():
    def faults(environment):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        return int(done.stdout)

    assert faults(WORKER_ENVIRONMENT) < 1000
