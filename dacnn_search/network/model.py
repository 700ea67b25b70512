"""The torch module of an `Architecture`."""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dacnn_search.network import zoo
from dacnn_search.network.architecture import Architecture, Block, Layer


def build(architecture: Architecture | str, num_classes: int, in_channels: int = 3) -> "Network":
    """Build the network of an architecture, or of a name in the zoo, with new weights on torch's default device.

    Raises ArchitectureError for an unknown name.
    """
    if isinstance(architecture, str):
        architecture = zoo.get(architecture)
    return Network(architecture, in_channels, num_classes)


class Network(nn.Module):
    """A weight-sharing CNN: images (N, in_channels, H, W) -> logits (N, num_classes).

    Each 3x3 kernel is one parameter of `kernels`, registered once and used by every layer that shares it. All
    parameters have the names and shapes of `network.cost.tensor_shapes`. H and W must allow one halving per pooling
    (see `Architecture.check_image_size`).

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
        for block in architecture.blocks:
            for layer in block.layers:
                if layer.kernel not in self.kernels:
                    self.kernels[layer.kernel] = _kernel(layer.in_width, layer.width)
        self.stem_norm = _norm(first, architecture.batch_norm)
        self.blocks = nn.ModuleList(BlockModule(block, architecture.batch_norm) for block in architecture.blocks)
        self.classifier = nn.Linear(last, num_classes)
        self._sections: list[list[int]] = [[] for _ in architecture.sections]  # the numbers of each section's blocks
        for number, block in enumerate(architecture.blocks):
            self._sections[block.section].append(number)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for section in self._sections:
            if self.recomputes and torch.is_grad_enabled():
                x = checkpoint(
                    self._section,
                    x,
                    section,
                    use_reentrant=False,
                    context_fn=lambda: (contextlib.nullcontext(), self._statistics_kept()),  # of its second computation
                )
            else:
                x = self._section(x, section)
        return self.classifier(x.mean(dim=(2, 3)))

    def _section(self, x: Tensor, blocks: list[int]) -> Tensor:
        """Compute the blocks of a section; before the first section, the stem."""
        if blocks[0] == 0:
            x = torch.relu_(self.stem_norm(F.conv2d(x, self.kernels["stem"], padding=1)))
        for number in blocks:
            x = self.blocks[number](x, self.kernels)
        return x

    @contextlib.contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        before = [(buffer, buffer.clone()) for buffer in self.buffers()]
        try:
            yield
        finally:
            for buffer, value in before:
                buffer.data.copy_(value)  # through `data`, since autograd keeps the buffers, without using them


class BlockModule(nn.Module):
    """One or two layers with, in a residual network, a shortcut around them (the paper's Figure 2)."""

    def __init__(self, block: Block, batch_norm: bool) -> None:
        super().__init__()
        self.pool = block.pool
        self.layers = nn.ModuleList(LayerModule(layer, batch_norm) for layer in block.layers)
        self.projection: nn.Module | None = nn.Identity() if block.shortcut == "identity" else None
        if block.shortcut == "projection":
            self.projection = _pointwise(block.layers[0].in_width, block.layers[-1].width, batch_norm)

    def forward(self, x: Tensor, kernels: nn.ParameterDict) -> Tensor:
        if self.pool:
            x = F.max_pool2d(x, 2)
        shortcut = None if self.projection is None else self.projection(x)
        *before, last = self.layers
        for layer in before:
            x = layer(x, kernels)
        return last(x, kernels, shortcut)


class LayerModule(nn.Module):
    """3x3 convolution with a kernel that others may share, batch norm of its own, ReLU, perhaps a regulator."""

    def __init__(self, layer: Layer, batch_norm: bool) -> None:
        super().__init__()
        self.kernel = layer.kernel
        self.norm = _norm(layer.width, batch_norm)
        self.regulator = _pointwise(layer.width, layer.width, batch_norm) if layer.regulator else None

    def forward(self, x: Tensor, kernels: nn.ParameterDict, shortcut: Tensor | None = None) -> Tensor:
        x = self.norm(F.conv2d(x, kernels[self.kernel], padding=1))
        x = torch.relu_(x if shortcut is None else x + shortcut)
        return x if self.regulator is None else torch.relu_(self.regulator(x))


class BatchNorm(nn.BatchNorm2d):
    """torch's batch norm without its count of batches, which takes up to 8% of a small network's step."""

    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        return F.batch_norm(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)


def _kernel(in_width: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.kaiming_normal_(torch.empty(width, in_width, 3, 3), mode="fan_out"))


def _pointwise(in_width: int, width: int, batch_norm: bool) -> nn.Module:
    """1x1 convolution and batch norm: the projection of a shortcut, or, with a ReLU after it, a regulator."""
    convolution = nn.Conv2d(in_width, width, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    return nn.Sequential(OrderedDict(convolution=convolution, norm=_norm(width, batch_norm)))


def _norm(width: int, batch_norm: bool) -> nn.Module:
    return BatchNorm(width) if batch_norm else nn.Identity()
