"""The torch module of an `Architecture`."""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils.checkpoint import checkpoint

from dacnn_search.network import zoo
from dacnn_search.network.architecture import Architecture, Block, Layer

Inputs = tuple[Tensor, ...]  # (N, width, H, W) each: what a layer gets, and what the layers before it got, newest first


def build(architecture: Architecture | str, num_classes: int, in_channels: int = 3) -> "Network":
    """Build the network of an architecture, or of a name in the zoo, with new weights on torch's default device.

    Raises ArchitectureError for an unknown name.
    """
    if isinstance(architecture, str):
        architecture = zoo.get(architecture)
    return Network(architecture, in_channels, num_classes)


class Network(nn.Module):
    """A weight-sharing CNN: images (N, in_channels, H, W) -> logits (N, num_classes).

    Each kernel is one parameter of `kernels`, a separable one two, registered once and used by every layer that shares
    it. All parameters have the names and shapes of `network.cost.tensor_shapes`. H and W must allow one halving per
    pooling (see `Architecture.check_image_size`).

    With `recomputes`, a section keeps only its input for the backward pass, which computes the section again (Chen et
    al., https://arxiv.org/abs/1604.06174). Gradients and statistics are the same, a step takes a forward pass longer,
    and activations take the memory of the largest section.
    """

    def __init__(self, architecture: Architecture, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.recomputes = False
        first, last = architecture.sections[0].width, architecture.sections[-1].width
        self.kernels = nn.ParameterDict({"stem": _kernel(in_channels, first)})
        users = {name: layer for block in architecture.blocks for layer in block.layers for name in layer.kernels}
        for name, layer in users.items():
            if layer.separable:
                self.kernels[f"{name}_depthwise"] = _depthwise(layer.in_width)
                self.kernels[f"{name}_pointwise"] = _kernel(layer.in_width, layer.width, side=1)
            else:
                self.kernels[name] = _kernel(layer.in_width, layer.width)
        self.stem_norm = _norm(first, architecture.batch_norm)
        self.blocks = nn.ModuleList(BlockModule(block, architecture) for block in architecture.blocks)
        self.classifier = nn.Linear(last, num_classes)
        self._sections: list[list[int]] = [[] for _ in architecture.sections]  # the numbers of each section's blocks
        for number, block in enumerate(architecture.blocks):
            self._sections[block.section].append(number)

    def forward(self, images: Tensor) -> Tensor:
        inputs: Inputs = (images,)
        for section in self._sections:
            inputs = inputs[: max(1, self.architecture.blocks[section[0]].layers[0].history)]
            if self.recomputes and torch.is_grad_enabled():
                inputs = checkpoint(
                    self._section,
                    inputs,
                    section,
                    use_reentrant=False,
                    context_fn=lambda: (contextlib.nullcontext(), self._statistics_kept()),  # of its second computation
                )
            else:
                inputs = self._section(inputs, section)
        return self.classifier(inputs[0].mean(dim=(2, 3)))

    def _section(self, inputs: Inputs, blocks: list[int]) -> Inputs:
        """Compute the blocks of a section; before the first section, the stem."""
        if blocks[0] == 0:
            inputs = (torch.relu_(self.stem_norm(F.conv2d(inputs[0], self.kernels["stem"], padding=1))),)
        for number in blocks:
            inputs = self.blocks[number](inputs, self.kernels)
        return inputs

    @contextlib.contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        before = [(buffer, buffer.clone()) for buffer in self.buffers()]
        try:
            yield
        finally:
            for buffer, value in before:
                buffer.data.copy_(value)  # through `data`, since autograd keeps the buffers, without using them


class BlockModule(nn.Module):
    """One or two layers, perhaps with a shortcut around them (the paper's Figure 2)."""

    def __init__(self, block: Block, architecture: Architecture) -> None:
        super().__init__()
        batch_norm = architecture.batch_norm
        self.pool = block.pool
        self.kept = architecture.history if architecture.decided_shortcuts == "history" else 1
        self.layers = nn.ModuleList(LayerModule(layer, batch_norm) for layer in block.layers)
        self.projection: nn.Module | None = nn.Identity() if block.shortcut == "identity" else None
        if block.shortcut == "projection":
            self.projection = _pointwise(block.layers[0].in_width, block.layers[-1].width, batch_norm)

    def forward(self, inputs: Inputs, kernels: nn.ParameterDict) -> Inputs:
        if self.pool:
            inputs = tuple(F.max_pool2d(x, 2) for x in inputs)
        shortcut = None if self.projection is None else self.projection(inputs[0])
        for layer in self.layers:
            x, inputs = layer(inputs, kernels, shortcut if layer is self.layers[-1] else None)
            inputs = (x, *inputs)[: self.kept] if x.shape == inputs[0].shape else (x,)
        return inputs


class LayerModule(nn.Module):
    """3x3 convolution, full or separable, with a kernel that others may share, batch norm of its own, ReLU, perhaps a
    regulator.

    `mixing` (anchors,) are the scalars of its kernel's anchors, `history` (h,) those of its last inputs, newest first.
    """

    def __init__(self, layer: Layer, batch_norm: bool) -> None:
        super().__init__()
        self.kernels = layer.kernels
        self.separable = layer.separable
        self.mixing = nn.Parameter(_mix(len(layer.kernels))) if len(layer.kernels) > 1 else None
        self.history = nn.Parameter(_history(layer.history)) if layer.history else None
        self.norm = _norm(layer.width, batch_norm)
        self.regulator = _pointwise(layer.width, layer.width, batch_norm) if layer.regulator else None

    def forward(
        self, inputs: Inputs, kernels: nn.ParameterDict, shortcut: Tensor | None = None
    ) -> tuple[Tensor, Inputs]:
        """Return its output, and its inputs as later layers must take them."""
        x = self._convolve_separably(inputs[0], kernels) if self.separable else self._convolve(inputs[0], kernels)
        if self.history is not None:
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                x, *passed = _HistorySum.apply(x, self.history, *inputs)
                inputs = tuple(passed)
            else:
                x = _add_history(x, self.history, inputs)
        x = self.norm(x)
        x = torch.relu_(x if shortcut is None else x + shortcut)
        return x if self.regulator is None else torch.relu_(self.regulator(x)), inputs

    def _convolve(self, x: Tensor, kernels: nn.ParameterDict) -> Tensor:
        kernel = kernels[self.kernels[0]]
        if self.mixing is not None:
            kernel = sum(scalar * kernels[name] for scalar, name in zip(self.mixing, self.kernels, strict=True))
        return F.conv2d(x, kernel, padding=1)

    def _convolve_separably(self, x: Tensor, kernels: nn.ParameterDict) -> Tensor:
        """Apply a separable kernel. A mix of them is not separable, so each is applied and the results are added."""
        total: Tensor | None = None
        for place, name in enumerate(self.kernels):
            pointwise = kernels[f"{name}_pointwise"]
            if self.mixing is not None:
                pointwise = self.mixing[place] * pointwise
            filtered = F.conv2d(x, kernels[f"{name}_depthwise"], padding=1, groups=x.shape[1])
            term = F.conv2d(filtered, pointwise)
            total = term if total is None else total.add_(term)
            del filtered, term  # or they would take memory beside those of the next anchor
        assert total is not None
        return total


class _HistorySum(torch.autograd.Function):
    """x + sum_i scalars[i] * inputs[i], and the inputs themselves, which later layers take from here.

    So the gradients of the inputs pass through each of these sums, which adds its term in one operation. Autograd alone
    computes each term first, and adds it then. Compiled and exported networks take the plain sum.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, scalars: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(scalars, *inputs)
        ctx.set_materialize_grads(False)
        return _add_history(x, scalars, inputs), *inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *of_inputs: Tensor | None) -> tuple[Tensor, ...]:
        scalars, *inputs = ctx.saved_tensors
        of_scalars = torch.stack([torch.dot(_flat(gradient), _flat(x)) for x in inputs]).to(scalars.dtype)
        narrow = scalars.to(gradient.dtype)
        passed = [
            gradient * scalar if later is None else torch.addcmul(later, scalar, gradient)
            for scalar, later in zip(narrow, of_inputs, strict=True)
        ]
        return gradient, of_scalars, *passed


def _add_history(x: Tensor, scalars: Tensor, inputs: Inputs) -> Tensor:
    for scalar, earlier in zip(scalars.to(x.dtype), inputs, strict=True):  # autocast would make x as wide as a scalar
        x = torch.addcmul(x, scalar, earlier)
    return x


def _flat(x: Tensor) -> Tensor:
    """Return x (N, C, H, W) as a vector, without a copy in channels_last memory."""
    return x.permute(0, 2, 3, 1).flatten()


class BatchNorm(nn.BatchNorm2d):
    """torch's batch norm without its count of batches, which takes up to 8% of a small network's step."""

    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        return F.batch_norm(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)


def _mix(anchors: int) -> Tensor:
    """Return random scalars (anchors,) whose squares sum to 1, so that a mix has the anchors' variance."""
    return F.normalize(torch.randn(anchors), dim=0)


def _history(length: int) -> Tensor:
    """Return the scalars (length,) that a layer adds its last inputs with at first: those of their average."""
    return torch.full((length,), 1 / length)


def _kernel(in_width: int, width: int, side: int = 3) -> nn.Parameter:
    return nn.Parameter(nn.init.kaiming_normal_(torch.empty(width, in_width, side, side), mode="fan_out"))


def _depthwise(width: int) -> nn.Parameter:
    """Return a 3x3 kernel for each channel, (width, 1, 3, 3), that keeps the variance."""
    return nn.Parameter(torch.randn(width, 1, 3, 3) / 3)


def _pointwise(in_width: int, width: int, batch_norm: bool) -> nn.Module:
    """1x1 convolution and batch norm: the projection of a shortcut, or, with a ReLU after it, a regulator."""
    convolution = nn.Conv2d(in_width, width, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    return nn.Sequential(OrderedDict(convolution=convolution, norm=_norm(width, batch_norm)))


def _norm(width: int, batch_norm: bool) -> nn.Module:
    return BatchNorm(width) if batch_norm else nn.Identity()
