"""The cost of a network in closed form, before it is built: parameters, MACs, memory, flash, bytes on disk, time.

Everything follows from the convolutions, whose tensors have the names that `network.model.Network` registers, and from
the spatial size that each section works at.
"""

import functools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dacnn_search.network.architecture import Architecture
from dacnn_search.network.inference import plan_inference

InputShape = tuple[int, int, int]  # channels, height, width

UNITS = {"parameters": "parameters", "macs": "MACs", "flash": "bytes of flash", "ram": "bytes of RAM"}
COSTS = tuple(UNITS)  # that a search limits, records and shows

BYTES_PER_WEIGHT = 4
# The time of a training step beside its convolutions, in multiply-accumulates that a CPU thread does meanwhile in
# float32: for each activation of each image (batch norm, ReLU), for each that a layer adds from the history, for each
# between the parts of a separable kernel (whose 3x3 part moves more memory than it multiplies), and for each layer of a
# step (calls, optimizer).
MACS_PER_ACTIVATION, MACS_PER_ADDED, MACS_PER_FILTERED, MACS_PER_LAYER = 90, 120, 300, 25e6
# Assumed for a large GPU, not measured: the rate of convolutions in bfloat16, the kernels that each layer launches in a
# step, and the host's time for a launch.
GPU_FLOPS, KERNELS_PER_LAYER, SECONDS_PER_KERNEL = 200e12, 15, 5e-6


@dataclass(frozen=True)
class Cost:
    """The cost of one network."""

    parameters: int  # trainable scalars, a shared kernel counted once
    # Multiply-accumulates of one forward pass of one image. Every application of a shared kernel counts, and every
    # product with a scalar of the history. Batch norm, ReLU and pooling do not, nor does the mixing of full anchors,
    # which is done once for any number of images. (The C code mixes sums instead, so it does the products of each
    # anchor, as all code does for separable ones.)
    macs: int
    activations: int  # scalars that one image keeps in memory between forward and backward pass
    largest_activation: int  # scalars of one image in the largest output of a layer
    recomputed_activations: int  # `activations` if sections keep only their inputs, beside the largest of them
    added: int  # scalars of one image that layers multiply and add from the history
    filtered: int  # scalars of one image between the parts of separable kernels, counted under `activations` too
    mixed_weights: int  # scalars of kernels that layers compute from anchors, kept between forward and backward pass
    network: tuple[Architecture, InputShape, int] = field(repr=False)  # whose cost it is, with its images and classes

    @functools.cached_property
    def file_bytes(self) -> int:
        """Bytes of its parameters as a float32 safetensors file."""
        architecture, (channels, *_), num_classes = self.network
        return _file_bytes(tensor_shapes(architecture, channels, num_classes))

    @property
    def flash(self) -> int:
        """Bytes of C code with 8-bit integers: weights, tables and, as on a Cortex-M4, instructions."""
        return self._flash_and_ram[0]

    @property
    def ram(self) -> int:
        """Bytes that the code keeps at once: activations, and sums between the parts of separable kernels. The image,
        the scores and the stack are the caller's."""
        return self._flash_and_ram[1]

    @functools.cached_property
    def _flash_and_ram(self) -> tuple[int, int]:
        plan = plan_inference(*self.network)  # not kept: a search keeps the costs of thousands of networks
        return plan.flash, plan.ram


@functools.lru_cache(maxsize=20_000)
def estimate_cost(architecture: Architecture, input_shape: InputShape, num_classes: int) -> Cost:
    """Return the cost of a network on images of `input_shape` (channels, height, width).

    Operations keep part of their input or output for the backward pass: batch norm its input, ReLU its output (also the
    next convolution's input), the 1x1 part of a separable kernel its input, max pooling its output and, per output
    pixel, 8 bytes of index (two scalars).

    Raises ArchitectureError if the image has fewer halvings than the network has poolings.
    """
    architecture.check_image_size(*input_shape[1:])
    channels, height, width = input_shape
    widths = [section.width for section in architecture.sections]
    # How many earlier outputs enter each section, pooled: those that its first layer uses.
    used = {block.section: max(1, block.layers[0].history) for block in reversed(architecture.blocks)}
    pixels = [(height >> index) * (width >> index) for index in range(len(widths))]  # poolings halve, rounding down
    outputs = [size * width for size, width in zip(pixels, widths, strict=True)]
    entering = [math.prod(input_shape), *(used[index + 1] * size for index, size in enumerate(outputs[:-1]))]
    inside = [0, *(3 * used[index + 1] * pixels[index + 1] * width for index, width in enumerate(widths[:-1]))]
    macs, added, filtered, mixed = widths[-1] * num_classes, 0, 0, 0
    for convolution in _convolutions(architecture, channels):
        section, kernels, width = convolution.section, convolution.kernels, convolution.shape[0]
        mixed += convolution.mixed_weights
        macs += pixels[section] * convolution.products
        added += pixels[section] * width * convolution.history
        filtered += pixels[section] * convolution.filtered
        kept = architecture.batch_norm + ("projection" not in kernels[0])  # a projection has no ReLU of its own
        inside[section] += pixels[section] * (width * kept + convolution.filtered)
    return Cost(
        parameters=count_parameters(architecture, channels, num_classes),
        macs=macs + added,
        activations=entering[0] + sum(inside) + widths[-1],
        largest_activation=max(outputs),
        recomputed_activations=sum(entering) + max(inside),
        added=added,
        filtered=filtered,
        mixed_weights=mixed,
        network=(architecture, input_shape, num_classes),
    )


def count_parameters(architecture: Architecture, in_channels: int, num_classes: int) -> int:
    """Count the trainable scalars of a network, a shared kernel once."""
    return sum(math.prod(shape) for _, shape in tensor_shapes(architecture, in_channels, num_classes))


def tensor_shapes(
    architecture: Architecture, in_channels: int, num_classes: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of every trainable tensor, each shared kernel once, as in `Network.named_parameters`."""
    convolutions = list(_convolutions(architecture, in_channels))
    yield from {k: shape for c in convolutions for k, shape in c.tensors.items() if k.startswith("kernels.")}.items()
    for _, kernels, norm, shape, history, _ in convolutions:
        if not kernels[0].startswith("kernels."):
            yield kernels[0], shape
        layer = norm.removesuffix(".norm")
        if len(kernels) > 1:
            yield f"{layer}.mixing", (len(kernels),)
        if history:
            yield f"{layer}.history", (history,)
        if architecture.batch_norm:
            yield f"{norm}.weight", shape[:1]
            yield f"{norm}.bias", shape[:1]
    yield "classifier.weight", (num_classes, architecture.sections[-1].width)
    yield "classifier.bias", (num_classes,)


def training_seconds(
    architecture: Architecture, input_shape: InputShape, num_classes: int, images: int, batch_size: int, rate: float
) -> float:
    """Estimate the time to train on so many images (epochs times training images) with one CPU thread.

    Against 19 short trainings on an Intel Xeon with AMX, busy with other work (8 to 64 wide, 8x8 and 32x32 pixels,
    batches of 32 and 128, full kernels), at the rate measured for each size: 0.9 to 1.7 times the CPU time in float32,
    0.8 to 2.5 times in bfloat16, which at 32x32 pixels is overestimated. `rate` is work per second, by
    `training.speed`.
    """
    return images / batch_size * training_work(architecture, input_shape, num_classes, batch_size) / rate


def training_work(architecture: Architecture, input_shape: InputShape, num_classes: int, batch_size: int) -> float:
    """Return the work of one training step, in multiply-accumulates: those of three forward passes, and as many as a
    CPU thread could do in the time of all other operations."""
    cost = estimate_cost(architecture, input_shape, num_classes)
    per_image = 3 * cost.macs + MACS_PER_ACTIVATION * cost.activations
    per_image += MACS_PER_ADDED * cost.added + MACS_PER_FILTERED * cost.filtered
    return batch_size * per_image + MACS_PER_LAYER * architecture.layers


def costliest_section(architecture: Architecture, input_shape: InputShape) -> tuple[int, int]:
    """Return width and image side, in pixels, of the section with the most multiply-accumulates if kernels are full."""
    side = min(input_shape[1:])
    sizes = [(section.width, side >> index) for index, section in enumerate(architecture.sections)]
    macs = [s.depth * (width * pixels) ** 2 for s, (width, pixels) in zip(architecture.sections, sizes, strict=True)]
    return sizes[macs.index(max(macs))]


def gpu_step_seconds(step_macs: float, layers: int) -> tuple[float, float]:
    """Estimate a training step's time on a GPU for its arithmetic and for launching its kernels, which overlap.

    `step_macs` are the multiply-accumulates of three forward passes of a batch.
    """
    return 2 * step_macs / GPU_FLOPS, layers * KERNELS_PER_LAYER * SECONDS_PER_KERNEL


class _Convolution(NamedTuple):
    section: int
    kernels: tuple[str, ...]  # names of tensors, or what those of separable kernels begin with; several are mixed
    norm: str  # name of its batch norm
    shape: tuple[int, ...]  # of the kernel: (width, in_width, side, side)
    history: int = 0  # earlier outputs that are added
    separable: bool = False

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its kernels' tensors by name."""
        if not self.separable:
            return dict.fromkeys(self.kernels, self.shape)
        width, in_width, *sides = self.shape
        parts = {"depthwise": (in_width, 1, *sides), "pointwise": (width, in_width, 1, 1)}
        return {f"{kernel}_{part}": shape for kernel in self.kernels for part, shape in parts.items()}

    @property
    def products(self) -> int:
        """Multiply-accumulates for each pixel of its output."""
        return sum(map(math.prod, self.tensors.values())) if self.separable else math.prod(self.shape)

    @property
    def filtered(self) -> int:
        """Scalars of each pixel between the two parts of its separable kernels."""
        return len(self.kernels) * self.shape[1] * self.separable

    @property
    def mixed_weights(self) -> int:
        """Scalars of the kernel that it mixes, or of the 1x1 parts of separable ones times their scalars."""
        if len(self.kernels) == 1:
            return 0
        return self.filtered * self.shape[0] if self.separable else math.prod(self.shape)


def _convolutions(architecture: Architecture, in_channels: int) -> Iterator[_Convolution]:
    """Yield each application of a kernel, in the order of a network's modules."""
    yield _Convolution(0, ("kernels.stem",), "stem_norm", (architecture.sections[0].width, in_channels, 3, 3))
    for number, block in enumerate(architecture.blocks):
        width = block.layers[0].width
        for index, layer in enumerate(block.layers):
            name = f"blocks.{number}.layers.{index}"
            kernels = tuple(f"kernels.{kernel}" for kernel in layer.kernels)
            shape = (width, layer.in_width, 3, 3)
            yield _Convolution(block.section, kernels, f"{name}.norm", shape, layer.history, layer.separable)
            if layer.regulator:
                name = f"{name}.regulator"
                kernel = f"{name}.convolution.weight"
                yield _Convolution(block.section, (kernel,), f"{name}.norm", (width, width, 1, 1))
        if block.shortcut == "projection":
            name, in_width = f"blocks.{number}.projection", block.layers[0].in_width
            kernel = f"{name}.convolution.weight"
            yield _Convolution(block.section, (kernel,), f"{name}.norm", (width, in_width, 1, 1))


def _file_bytes(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> int:
    """Return the bytes of a safetensors file: 8 for the length of a JSON header, the header, which has an entry per
    tensor in the order of names and is padded to a multiple of 8, and the weights."""
    header, start = {}, 0
    for name, shape in sorted(shapes):
        end = start + BYTES_PER_WEIGHT * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (start, end)}
        start = end
    return 8 + -(-len(json.dumps(header, separators=(",", ":"))) // 8) * 8 + start
