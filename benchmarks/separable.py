"""A MobileNet-like network, for comparison: separable convolutions with norm and ReLU between their parts."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dacnn_search.network.architecture import Architecture, Section

BLOCKS = ((1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (4, 1))  # multiples of the width, and strides


class Separable(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 convolutions, each with batch norm and ReLU (Howard et al., "MobileNets",
    https://arxiv.org/abs/1704.04861), after a full 3x3 convolution: images (N, in_channels, H, W) -> logits.

    It has the attributes of `network.model.Network` that a `Training` reads; `architecture` is a network of the same
    widths and depths, from which it estimates memory and speed.
    """

    def __init__(self, width: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.in_channels, self.num_classes, self.recomputes = in_channels, num_classes, False
        sections = (Section(1, width), Section(2, 2 * width), Section(3, 4 * width))
        self.architecture = Architecture(sections, sharing="none")
        layers = [*_convolution(in_channels, width, 3)]
        before = width
        for multiple, stride in BLOCKS:
            after = multiple * width
            layers += _convolution(before, before, 3, stride, groups=before) + _convolution(before, after, 1)
            before = after
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.layers(images).mean(dim=(2, 3)))

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def macs(self, input_shape: tuple[int, int, int]) -> int:
        """Return the multiply-accumulates for one image."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.eval()(torch.zeros(1, *input_shape))
        return counter.get_total_flops() // 2


def _convolution(before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    return [convolution, nn.BatchNorm2d(after), nn.ReLU()]
