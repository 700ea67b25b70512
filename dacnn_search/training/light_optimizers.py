"""torch's optimizers without their provisions for being compiled, which cost every process 1.8 s and 150 MB.

That is the CPU time and memory that importing `torch._dynamo` takes (torch 2.15, an Intel Xeon), which torch's own do
when one is made. The computation is torch's; only decorators are left out.
"""

import inspect

import torch


class _Light(torch.optim.Optimizer):
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class SGD(_Light, torch.optim.SGD):
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class Adagrad(_Light, torch.optim.Adagrad):
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adagrad.step))


class AdamW(_Light, torch.optim.AdamW):
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
