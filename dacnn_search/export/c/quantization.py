"""Turn a trained network into one that computes with integers alone, and run that on images.

An integer v stands for the real number step * v. Kernels have 8 bits and a step for each output channel. Activations,
which come from a ReLU, have 8 bits without sign and a step for each convolution. A convolution with its batch norm
(scale g and shift b of a channel) and a shortcut becomes

    (sum * multiplier + offset * 2^offset_shift + shortcut * shortcut_multiplier + half) >> shift

limited to 0 and 255, with multiplier = 2^shift * g * input step * kernel step / output step, a 16-bit integer, and the
offset likewise from b. This is requantization as in section 2.2 of Jacob et al. (https://arxiv.org/abs/1712.05877), but
batch norm stays beside a kernel that others may share, where they fold it into a copy.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dacnn_search.common.errors import ExportError, InputError
from dacnn_search.export.classifier import Classifier
from dacnn_search.network.inference import Convolution, InferencePlan, plan_inference

MOST_CALIBRATION = 512  # images
BATCH = 128
MOST_VALUES = 200_000  # of a convolution's output that its step is chosen by
# Shares of the largest output that may become the largest representable one; the squared error decides.
CLIPS = np.arange(1.0, 0.45, -0.05)
AVERAGE_STEPS = 16  # averages before the classifier are finer than activations by this factor
MOST_SHIFT = 40


@dataclass(frozen=True)
class Scaling:
    """Multipliers and offsets of a convolution's output channels, or of the classes."""

    multipliers: np.ndarray  # (channels,) int16
    offsets: np.ndarray  # (channels,) int16
    projection: np.ndarray  # (channels,) int16: the multipliers of a projected shortcut; or (0,)
    shortcut: int  # multiplier of an identity shortcut
    shift: int
    offset_shift: int

    def apply(self, sums: np.ndarray) -> np.ndarray:
        """Return 2^shift times the outputs (..., channels) int64 that sums of the same shape lead to."""
        offsets = self.offsets.astype(np.int64) << self.offset_shift
        return sums.astype(np.int64) * self.multipliers + offsets

    def round(self, values: np.ndarray, least: int, most: int) -> np.ndarray:
        """Return what `apply` gave as integers between two limits, rounded to the nearest, halves up."""
        return np.clip((values + (1 << (self.shift - 1))) >> self.shift, least, most)


@dataclass(frozen=True)
class IntegerNetwork:
    """A network that computes with integers, exactly as its C code does."""

    plan: InferencePlan
    kernels: dict[str, np.ndarray]  # int8 (out_channels, side, side, in_channels), by the names of the plan
    scalings: tuple[Scaling, ...]  # of each convolution
    zero_points: np.ndarray  # (channels,) uint8: the pixels that stand for zero
    classifier: np.ndarray  # (classes, channels) int8
    classifier_scaling: Scaling
    score_step: float  # of the scores: a logit is about this times the score

    def scores(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores (N, classes) int8 and the classes (N,) int64 of images (N, H, W, C) uint8.

        As in C, the class has the highest score before rounding.
        """
        values = [self._values(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        exact = np.concatenate(values) if values else np.zeros((0, len(self.classifier)), np.int64)
        return self.classifier_scaling.round(exact, -128, 127).astype(np.int8), exact.argmax(axis=1)

    def _values(self, images: np.ndarray) -> np.ndarray:
        scalings = dict(zip(self.plan.convolutions, self.scalings, strict=True))

        def convolve(c: Convolution, x: np.ndarray, entered: np.ndarray) -> np.ndarray:
            scaling = scalings[c]
            sums = _correlate(x, self.kernels[c.kernel])
            if c.block == -1:  # around the image are zero points
                sums += self.kernels[c.kernel].sum(axis=(1, 2)) @ self.zero_points.astype(np.int64)
            values = scaling.apply(sums)
            if c.shortcut == "identity":
                values += entered.astype(np.int64) * scaling.shortcut
            elif c.shortcut == "projection":
                values += _correlate(entered, self.kernels[c.projection]).astype(np.int64) * scaling.projection
            return scaling.round(values, 0, 255)

        pixels = images.astype(np.int64) - self.zero_points
        sums = _run(self.plan, pixels, convolve).sum(axis=(1, 2))
        count = self.plan.convolutions[-1].pixels
        averages = (AVERAGE_STEPS * sums + count // 2) // count
        return self.classifier_scaling.apply(averages @ self.classifier.T.astype(np.int64))


def _run(
    plan: InferencePlan, pixels: np.ndarray, convolve: Callable[[Convolution, np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return the last activations (N, H, W, C) of images (N, H, W, C).

    `convolve` computes a convolution from its input and the input of its block, where a shortcut begins.
    """
    x, entered, block = pixels, pixels, -1
    for convolution in plan.convolutions:
        if convolution.pool:
            x = _pool(x)
        if convolution.block != block:
            entered, block = x, convolution.block
        x = convolve(convolution, x, entered)
    return x


def _pool(x: np.ndarray) -> np.ndarray:
    images, height, width, channels = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(images, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def _correlate(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return the sums (N, H, W, out) of a kernel (out, side, side, in) over x (N, H, W, in), zero around the image.

    Integers are multiplied as floats, which libraries do fast, of a size that holds every sum exactly.
    """
    out, side, _, channels = kernel.shape
    exact = x.dtype.kind == "i" and side**2 * channels * 255 * 127 >= 2**24
    kind = np.float64 if exact else np.float32
    radius, (height, width) = side // 2, x.shape[1:3]
    padded = np.pad(x.astype(kind), ((0, 0), (radius, radius), (radius, radius), (0, 0)))
    sums = np.zeros((*x.shape[:3], out), kind)
    for dy in range(side):
        for dx in range(side):
            sums += padded[:, dy : dy + height, dx : dx + width] @ kernel[:, dy, dx].T.astype(kind)
    return sums


def quantize(model: Classifier, images: np.ndarray) -> IntegerNetwork:
    """Return a network with 8-bit integers; calibration images (N, H, W, C) uint8 set the steps of its activations.

    Raises InputError without images or for a network without batch norm, ExportError for one too large for the
    integers of the C code.
    """
    if not model.architecture.batch_norm:
        raise InputError("C code needs a network with batch norm, but this one has none")
    if not len(images):
        raise InputError("C code needs at least 1 validation image to calibrate with, but there are 0")
    weights = {name: tensor.numpy().astype(np.float64) for name, tensor in model.weights.items()}
    plan = plan_inference(model.architecture, model.input.shape, len(model.classes))
    mean, std = 255 * np.array(model.input.mean), 255 * np.array(model.input.std)
    floats = {name: w.transpose(0, 2, 3, 1) for name, w in weights.items() if w.ndim == 4}
    floats["kernels.stem"] = floats["kernels.stem"] / std  # so that it takes pixels less their mean
    zero_points = np.clip(np.rint(mean), 0, 255)
    steps, averages = _calibrate(plan, weights, floats, images - mean)
    kernels, kernel_steps = {}, {}
    for name, kernel in floats.items():
        kernels[name], kernel_steps[name] = _to_int8(kernel)
    classifier, classifier_steps = _to_int8(weights["classifier.weight"])
    _check_sizes(plan)

    scalings, block = [], -1
    step = entered = 1.0  # of the pixels
    for c, out in zip(plan.convolutions, steps, strict=True):
        if c.block != block:
            entered, block = step, c.block
        scale, shift = weights[f"{c.norm}.weight"], weights[f"{c.norm}.bias"]
        if c.block == -1:  # its pixels are from 0 to 255; zero points are whole numbers, means are not
            shift = shift - scale * (floats[c.kernel].sum(axis=(1, 2)) @ (mean - zero_points))
            shift = shift - scale * kernel_steps[c.kernel] * (kernels[c.kernel].sum(axis=(1, 2)) @ zero_points)
        projection = np.zeros(0)
        if c.shortcut == "projection":
            projection = weights[f"{c.projection_norm}.weight"] * kernel_steps[c.projection] * entered / out
            shift = shift + weights[f"{c.projection_norm}.bias"]
        identity = entered / out if c.shortcut == "identity" else 0.0
        scalings.append(_scaling(scale * kernel_steps[c.kernel] * step / out, shift / out, projection, identity))
        step = out
    logits = averages @ weights["classifier.weight"].T + weights["classifier.bias"]
    score_step = float(np.abs(logits).max()) / 127 or 1.0
    of_average = classifier_steps * step / AVERAGE_STEPS / score_step
    scaling = _scaling(of_average, weights["classifier.bias"] / score_step, np.zeros(0), 0.0)
    return IntegerNetwork(plan, kernels, tuple(scalings), zero_points.astype(np.uint8), classifier, scaling, score_step)


def _calibrate(
    plan: InferencePlan, weights: Mapping[str, np.ndarray], kernels: Mapping[str, np.ndarray], pixels: np.ndarray
) -> tuple[list[float], np.ndarray]:
    """Return the step of each convolution's output, and the averages (N, channels) before the classifier.

    They are those of the network in floats on pixels (N, H, W, C) less their mean.
    """
    outputs: list[list[np.ndarray]] = [[] for _ in plan.convolutions]
    averages = []
    share = max(1, math.ceil(len(pixels) / BATCH))
    for start in range(0, len(pixels), BATCH):
        places = iter(outputs)

        def convolve(c: Convolution, x: np.ndarray, entered: np.ndarray, places: Any = places) -> np.ndarray:
            y = _correlate(x, kernels[c.kernel]) * weights[f"{c.norm}.weight"] + weights[f"{c.norm}.bias"]
            if c.shortcut == "identity":
                y += entered
            elif c.shortcut == "projection":
                norm = weights[f"{c.projection_norm}.weight"], weights[f"{c.projection_norm}.bias"]
                y += _correlate(entered, kernels[c.projection]) * norm[0] + norm[1]
            y = np.maximum(y, 0)
            next(places).append(y.reshape(-1)[:: max(1, y.size * share // MOST_VALUES)])
            return y

        averages.append(_run(plan, pixels[start : start + BATCH], convolve).mean(axis=(1, 2)))
    return [_step(np.concatenate(values)) for values in outputs], np.concatenate(averages)


def _step(values: np.ndarray) -> float:
    """Return the step of 8-bit activations that approximates values of at least 0 with the least squared error."""
    largest = float(values.max()) or 1.0
    steps = [clip * largest / 255 for clip in CLIPS]
    errors = [float(np.square(np.clip(np.rint(values / step), 0, 255) * step - values).sum()) for step in steps]
    return steps[int(np.argmin(errors))]


def _to_int8(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel (out, ...) as int8 and the step (out,) of each output channel."""
    steps = np.abs(kernel).reshape(len(kernel), -1).max(axis=1) / 127
    steps[steps == 0] = 1
    return np.rint(kernel / steps.reshape(-1, *[1] * (kernel.ndim - 1))).astype(np.int8), steps


def _scaling(multipliers: np.ndarray, offsets: np.ndarray, projection: np.ndarray, identity: float) -> Scaling:
    """Return real multipliers and offsets as integers, with as many bits as these hold."""
    largest = float(max(np.abs(multipliers).max(), np.abs(projection).max(initial=0)))
    shift = min(_most_shift(largest, 2**15 - 1), _most_shift(identity, 2**31 - 1))
    offset_shift = max(0, shift - _most_shift(float(np.abs(offsets).max()), 2**15 - 1))
    return Scaling(
        _to_int16(multipliers * 2.0**shift),
        _to_int16(offsets * 2.0 ** (shift - offset_shift)),
        _to_int16(projection * 2.0**shift),
        round(identity * 2**shift),
        shift,
        offset_shift,
    )


def _to_int16(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), -(2**15 - 1), 2**15 - 1).astype(np.int16)


def _most_shift(value: float, most: int) -> int:
    """Return the largest shift from 1 to MOST_SHIFT by which a value stays at most `most` when it is rounded."""
    return MOST_SHIFT if value == 0 else max(1, min(MOST_SHIFT, math.floor(math.log2(most / value))))


def _check_sizes(plan: InferencePlan) -> None:
    """Raise ExportError if a sum could leave the C code's 32-bit integers."""
    last, largest_product = plan.convolutions[-1], 255 * 127
    for what, size, most in (
        ("weights in a sum", max(c.side**2 * c.in_channels for c in plan.convolutions), 2**31 // largest_product),
        ("channels before the classifier", last.out_channels, 2**31 // (AVERAGE_STEPS * largest_product)),
        ("pixels in an average", last.pixels, 2**32 // (AVERAGE_STEPS * 256)),
    ):
        if size >= most:
            raise ExportError(f"C code may have fewer than {most:,} {what}, but this network has {size:,}")
