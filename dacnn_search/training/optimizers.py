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

    def zero_grad(self) -> None:  # type: ignore[override]
        """Drop the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change the parameters by their gradients."""
        _bare(super().step.__func__)(self)  # type: ignore[attr-defined]


class SGD(_Uncompiled, torch.optim.SGD):
    """`torch.optim.SGD`."""


class Adagrad(_Uncompiled, torch.optim.Adagrad):
    """`torch.optim.Adagrad`."""


class AdamW(_Uncompiled, torch.optim.AdamW):
    """`torch.optim.AdamW`, fused: every parameter has a gradient in every step."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change the parameters by their gradients, by one call for each group.

        Gathering the arguments takes torch's own step longer than the call does (small networks on a CPU).
        """
        for group in self.param_groups:
            parameters = group["params"]
            states = [self.state[parameter] or self._begin(parameter) for parameter in parameters]
            means, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                parameters,
                [parameter.grad for parameter in parameters],
                means,
                squares,
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )

    def _begin(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is kept of a parameter, before the first step."""
        state = self.state[parameter]
        state["step"] = torch.zeros((), device=parameter.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state
