"""torch's optimisers without their provisions for being compiled.

Those import `torch._dynamo` when an optimiser is made, which takes every process that trains more than a second and 150
MB. A training loop whose optimiser is not compiled has no use for it. What an optimiser computes is the same.
"""

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["SGD", "Adagrad", "AdamW"]


def _bare(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method without the decorators that torch put around it."""
    return getattr(method, "__wrapped__", method)


class _Uncompiled(torch.optim.Optimizer):
    """Goes before one of torch's optimisers among the bases of a class."""

    add_param_group = _bare(torch.optim.Optimizer.add_param_group)
    zero_grad = _bare(torch.optim.Optimizer.zero_grad)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change the parameters by their gradients."""
        _bare(super().step.__func__)(self)  # type: ignore[attr-defined]


class SGD(_Uncompiled, torch.optim.SGD):
    """`torch.optim.SGD`."""


class AdamW(_Uncompiled, torch.optim.AdamW):
    """`torch.optim.AdamW`."""


class Adagrad(_Uncompiled, torch.optim.Adagrad):
    """`torch.optim.Adagrad`."""
