"""Our optimisers compute what torch's do, and a training does without what they leave out."""

import subprocess
import sys

import pytest
import torch

from dacnn_search.training import light_optimizers

OPTIONS = {"SGD": {"momentum": 0.9, "nesterov": True}, "AdamW": {}, "Adagrad": {}}

TRAINING = """
import sys
import numpy as np
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.data.dataset import ImageData, Split
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.trainer import ResidentData, Training, build_seeded

split = Split(np.zeros((8, 8, 8, 1), np.uint8), np.arange(8) % 2)
data = ResidentData(ImageData("some", ("a", "b"), split, split, split, (0.5,), (0.5,), False), "cpu")
for optimizer in ("sgd", "adamw", "adagrad"):
    recipe = Recipe(epochs=1, optimizer=optimizer, learning_rate=0.01)
    Training(build_seeded(Architecture((Section(1, 4),)), 2, 1, 0), data, recipe).run_epoch()
print("torch._dynamo" in sys.modules)
"""


def trained(library, kind: str) -> list[torch.Tensor]:
    """The weights of a small network after a few steps."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 10))
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1]},
    ]
    optimizer = getattr(library, kind)(groups, 0.01, fused=True, **OPTIONS[kind])
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(8, 1, 8, 8)).square().mean().backward()
        optimizer.step()
    return list(model.parameters())


@pytest.mark.parametrize("kind", OPTIONS)
def test_weights_are_the_same_to_the_last_bit(kind):
    ours, theirs = trained(light_optimizers, kind), trained(torch.optim, kind)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_training_does_not_import_what_compiles():
    done = subprocess.run([sys.executable, "-c", TRAINING], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == "False\n"
