"""The cost of a network in closed form, before it is built: parameters, MACs, memory, bytes on disk, time.

Everything follows from the names and shapes of the trainable tensors (`tensor_shapes`, the same names that
`dacnn_search.network.model.Network` registers) and from the spatial size each block works at.
"""

import functools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from dacnn_search.network.architecture import Architecture, Block

__all__ = [
    "Cost",
    "InputShape",
    "costliest_section",
    "count_macs",
    "count_parameters",
    "estimate_cost",
    "gpu_step_seconds",
    "largest_activation",
    "section_activations",
    "tensor_shapes",
    "training_seconds",
    "training_work",
]

InputShape = tuple[int, int, int]  # channels, height, width

KERNEL_AREA = 3 * 3
BYTES_PER_WEIGHT = 4
# The time of a training step beside its convolutions, in multiply-accumulates that a CPU thread does meanwhile in
# float32: for each activation of each image (batch norm, ReLU), and for each layer of a step (calls, optimizer).
MACS_PER_ACTIVATION, MACS_PER_LAYER = 90, 25e6
# Assumed for a large GPU, not measured: the rate of convolutions in bfloat16, the kernels that each layer launches in a
# step, and the host's time for a launch.
GPU_FLOPS, KERNELS_PER_LAYER, SECONDS_PER_KERNEL = 200e12, 15, 5e-6


@dataclass(frozen=True)
class Cost:
    """The cost of one network."""

    parameters: int  # trainable scalars, a shared kernel counted once
    macs: int  # multiply-accumulates of convolutions and classifier in one forward pass of one image
    activations: int  # scalars that one image keeps in memory between forward and backward pass
    file_bytes: int  # of its parameters as a float32 safetensors file


@functools.lru_cache(maxsize=20_000)
def estimate_cost(architecture: Architecture, input_shape: InputShape, num_classes: int) -> Cost:
    """Return the cost of a network on images of `input_shape` (channels, height, width).

    Raises ArchitectureError if the image has fewer halvings than the network has poolings.
    """
    architecture.check_image_size(*input_shape[1:])
    shapes = list(tensor_shapes(architecture, input_shape[0], num_classes))
    parameters = sum(math.prod(shape) for _, shape in shapes)
    sections = section_activations(architecture, input_shape)
    return Cost(
        parameters=parameters,
        macs=count_macs(architecture, input_shape, num_classes),
        activations=sections[0][0] + sum(inside for _, inside in sections) + architecture.sections[-1].width,
        file_bytes=BYTES_PER_WEIGHT * parameters + _header_bytes(shapes),
    )


def count_parameters(architecture: Architecture, in_channels: int, num_classes: int) -> int:
    """Count the trainable scalars of a network, a shared kernel once."""
    return sum(math.prod(shape) for _, shape in tensor_shapes(architecture, in_channels, num_classes))


def count_macs(architecture: Architecture, input_shape: InputShape, num_classes: int) -> int:
    """Count the multiply-accumulates of one forward pass of one image. Every application of a shared kernel counts.

    Convolutions and the classifier are counted. Batch norm, ReLU and pooling, below 1% of them, are not.
    """
    channels, height, width = input_shape
    total = height * width * KERNEL_AREA * channels * architecture.sections[0].width
    for block, pixels in _blocks_with_pixels(architecture, height, width):
        total += pixels * sum(KERNEL_AREA * layer.in_width * layer.width for layer in block.layers)
        total += pixels * sum(layer.width**2 for layer in block.layers if layer.regulator)
        if block.shortcut == "projection":
            total += pixels * block.layers[0].in_width * block.layers[-1].width
    return total + architecture.sections[-1].width * num_classes


def tensor_shapes(
    architecture: Architecture, in_channels: int, num_classes: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of every trainable tensor, each shared kernel once, as in `Network.named_parameters`."""
    first, last = architecture.sections[0].width, architecture.sections[-1].width
    layers = [layer for block in architecture.blocks for layer in block.layers]
    yield "kernels.stem", (first, in_channels, 3, 3)
    yield from {f"kernels.{layer.kernel}": (layer.width, layer.in_width, 3, 3) for layer in layers}.items()
    for name, shape in _block_shapes(architecture):
        if architecture.batch_norm or "norm" not in name:
            yield name, shape
    yield "classifier.weight", (num_classes, last)
    yield "classifier.bias", (num_classes,)


def section_activations(architecture: Architecture, input_shape: InputShape) -> list[tuple[int, int]]:
    """Return for each section the scalars of one image that enter it, and those it keeps inside for the backward pass.

    Operations keep part of their input or output: batch norm its input, ReLU its output (also the next convolution's
    input), max pooling its output and, per output pixel, 8 bytes of index (two scalars).
    """
    channels, height, width = input_shape
    norms = 1 if architecture.batch_norm else 0
    entering, inside = [height * width * channels], [height * width * (1 + norms) * architecture.sections[0].width]
    for block, pixels in _blocks_with_pixels(architecture, height, width):
        if block.pool:
            pixels_before = (height >> block.section - 1) * (width >> block.section - 1)
            entering.append(pixels_before * block.layers[0].in_width)
            inside.append(pixels * 3 * block.layers[0].in_width)
        for layer in block.layers:
            inside[-1] += pixels * layer.width * (1 + norms) * (2 if layer.regulator else 1)
        if block.shortcut == "projection":
            inside[-1] += pixels * block.layers[-1].width * norms
    return list(zip(entering, inside, strict=True))


def largest_activation(architecture: Architecture, input_shape: InputShape) -> int:
    """Return the scalars of one image in the largest output of a layer."""
    _, height, width = input_shape
    outputs = [pixels * block.layers[-1].width for block, pixels in _blocks_with_pixels(architecture, height, width)]
    return max(height * width * architecture.sections[0].width, *outputs)


def training_seconds(
    architecture: Architecture, input_shape: InputShape, num_classes: int, images: int, batch_size: int, rate: float
) -> float:
    """Estimate the time to train on so many images (epochs times training images) with one CPU thread.

    Against 19 short trainings on an Intel Xeon with AMX, busy with other work (8 to 64 wide, 8x8 and 32x32 pixels,
    batches of 32 and 128), at the rate measured for each size: 0.9 to 1.7 times the CPU time in float32, 0.8 to 2.5
    times in bfloat16, which at 32x32 pixels is overestimated.

    Args:
        rate: Work per second, as `training.speed.measure_speed` measures it.
    """
    work = training_work(architecture, input_shape, num_classes, batch_size)
    return images / batch_size * work / rate


def training_work(architecture: Architecture, input_shape: InputShape, num_classes: int, batch_size: int) -> float:
    """Return the work of one training step, in multiply-accumulates: those of three forward passes, and as many as a
    CPU thread could do in the time of all other operations."""
    cost = estimate_cost(architecture, input_shape, num_classes)
    per_image = 3 * cost.macs + MACS_PER_ACTIVATION * cost.activations
    return batch_size * per_image + MACS_PER_LAYER * architecture.layers


def costliest_section(architecture: Architecture, input_shape: InputShape) -> tuple[int, int]:
    """Return width and image side, in pixels, of the section with the most multiply-accumulates."""
    side = min(input_shape[1:])
    sizes = [(section.width, side >> index) for index, section in enumerate(architecture.sections)]
    macs = [s.depth * (width * pixels) ** 2 for s, (width, pixels) in zip(architecture.sections, sizes, strict=True)]
    return sizes[macs.index(max(macs))]


def gpu_step_seconds(step_macs: float, layers: int) -> tuple[float, float]:
    """Estimate a training step's time on a GPU for its arithmetic and for launching its kernels, which overlap.

    Args:
        step_macs: Multiply-accumulates of three forward passes of a batch.
    """
    return 2 * step_macs / GPU_FLOPS, layers * KERNELS_PER_LAYER * SECONDS_PER_KERNEL


def _block_shapes(architecture: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors of batch norms, regulators and projections, as of a network with batch norm."""
    yield from _norm_shapes("stem_norm", architecture.sections[0].width)
    for number, block in enumerate(architecture.blocks):
        for index, layer in enumerate(block.layers):
            yield from _norm_shapes(f"blocks.{number}.layers.{index}.norm", layer.width)
            if layer.regulator:
                yield from _pointwise_shapes(f"blocks.{number}.layers.{index}.regulator", layer.width, layer.width)
        if block.shortcut == "projection":
            yield from _pointwise_shapes(
                f"blocks.{number}.projection", block.layers[0].in_width, block.layers[-1].width
            )


def _pointwise_shapes(prefix: str, in_width: int, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}.convolution.weight", (width, in_width, 1, 1)
    yield from _norm_shapes(f"{prefix}.norm", width)


def _norm_shapes(prefix: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}.weight", (width,)
    yield f"{prefix}.bias", (width,)


def _header_bytes(shapes: list[tuple[str, tuple[int, ...]]]) -> int:
    """Return the bytes of a safetensors file beside the weights: 8 bytes for the length of a JSON header, and the
    header, which has an entry per tensor in the order of names and is padded to a multiple of 8."""
    header, start = {}, 0
    for name, shape in sorted(shapes):
        end = start + BYTES_PER_WEIGHT * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (start, end)}
        start = end
    return 8 + -(-len(json.dumps(header, separators=(",", ":"))) // 8) * 8


def _blocks_with_pixels(architecture: Architecture, height: int, width: int) -> Iterator[tuple[Block, int]]:
    """Yield each block with the number of pixels it works at. Poolings halve height and width, rounding down."""
    for block in architecture.blocks:
        yield block, (height >> block.section) * (width >> block.section)
