"""Turn a trained network into one that computes with integers alone, and run that on images.

An integer v stands for the real number step * v. Kernels have 8 bits and a step for each output channel. Activations,
which come from a ReLU, have 8 bits without sign and a step for each convolution. A convolution with its batch norm
(scale g and shift b of a channel) and a shortcut becomes

    (sum * multiplier + offset * 2^offset_shift + shortcut * shortcut_multiplier + half) >> shift

limited to 0 and 255, with multiplier = 2^shift * g * input step * kernel step / output step, a 16-bit integer, and the
offset likewise from b. This is requantization as in section 2.2 of Jacob et al. (https://arxiv.org/abs/1712.05877), but
batch norm stays beside a kernel that others may share, where they fold it into a copy. For the same reason a mix of
anchors is not one kernel: each anchor has a sum, and a multiplier with the scalar of the mix as a further factor. The
last inputs that a layer adds before its batch norm are one more sum: of each times a 32-bit multiplier, its scalar.

A separable kernel has 8-bit weights in both parts. The sums of its 3x3 part are divided by 2^FILTER_SHIFT, which leaves
at most 15 bits. Its 3x3 part has a step for each input channel, a factor of the weights of its 1x1 part.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from dacnn_search.common.errors import ExportError, InputError
from dacnn_search.export.classifier import Classifier
from dacnn_search.network.inference import Convolution, InferencePlan, plan_inference

MOST_CALIBRATION = 512  # images
BATCH = 128
MOST_VALUES = 2**23  # of a convolution's outputs for the images computed at once, which limits the memory they take
AVERAGE_STEPS = 16  # averages before the classifier are finer than activations by this factor
MOST_SHIFT, MOST_OFFSET_SHIFT = 40, 30
FILTER_SHIFT = 5
MOST_PIXEL, MOST_WEIGHT = 255, 127
MOST_FILTERED = (9 * MOST_PIXEL * MOST_WEIGHT >> FILTER_SHIFT) + 1  # of the sums of a separable kernel's 3x3 part

T = TypeVar("T")


@dataclass(frozen=True)
class Scaling:
    """Multipliers and offsets of a convolution's output channels, or of the classes."""

    multipliers: np.ndarray  # (sums, channels) int16: of each kernel, then of a projected shortcut or the last inputs
    offsets: np.ndarray  # (channels,) int16
    shift: int
    offset_shift: int
    identity: int = 0  # the multiplier of an identity shortcut
    history: tuple[int, ...] = ()  # those of the last inputs in their sum, the newest first

    def outputs(self, sums: Sequence[np.ndarray], added: Sequence[np.ndarray]) -> np.ndarray:
        """Return activations (N, H, W, channels) from all sums and the activations of an identity shortcut."""
        values = self.apply(sums)
        for activations in added:
            values += activations.astype(np.int64) * self.identity
        return self.round(values, 0, 255)

    def apply(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        """Return 2^shift times the outputs (..., channels) int64 that sums of the same shape lead to."""
        offsets = self.offsets.astype(np.int64) << self.offset_shift
        return sum((s.astype(np.int64) * m for s, m in zip(sums, self.multipliers, strict=True)), start=offsets)

    def round(self, values: np.ndarray, least: int, most: int) -> np.ndarray:
        """Return what `apply` gave as integers between two limits, rounded to the nearest, halves up."""
        return np.clip((values + (1 << (self.shift - 1))) >> self.shift, least, most)


@dataclass(frozen=True)
class IntegerNetwork:
    """A network that computes with integers, exactly as its C code does."""

    plan: InferencePlan
    # int8 (out_channels, side, side, in_channels), the 3x3 part of a separable kernel (3, 3, in_channels), by name
    kernels: dict[str, np.ndarray]
    scalings: tuple[Scaling, ...]  # of each convolution
    zero_points: np.ndarray  # (channels,) uint8: the pixels that stand for zero, which surround an image
    classifier: np.ndarray  # (classes, channels) int8
    classifier_scaling: Scaling
    score_step: float  # of the scores: a logit is about this times the score

    def scores(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores (N, classes) int8 and the classes (N,) int64 of images (N, H, W, C) uint8.

        As in C, the class has the highest score before rounding.
        """
        batch = _most_images(self.plan, BATCH)
        values = [self._values(images[start : start + batch]) for start in range(0, len(images), batch)]
        exact = np.concatenate(values) if values else np.zeros((0, len(self.classifier)), np.int64)
        return self.classifier_scaling.round(exact, -128, 127).astype(np.int8), exact.argmax(axis=1)

    def _values(self, images: np.ndarray) -> np.ndarray:
        scalings = dict(zip(self.plan.convolutions, self.scalings, strict=True))

        def convolve(c: Convolution, x: np.ndarray, added: Sequence[np.ndarray]) -> np.ndarray:
            padding = self.zero_points if c.reads_image else 0
            sums = [_apply(self.kernels, kernel, x, padding) for kernel in c.kernels]
            if c.projection:
                sums += [_apply(self.kernels, c.projection, entered) for entered in added]
                added = ()
            if c.history:
                sums.append(_weigh(added, scalings[c].history))
                added = ()
            return scalings[c].outputs(sums, added)

        last = _run(self.plan, images.astype(np.int64), convolve, _pool)
        return self.classifier_scaling.apply([_averages(last) @ self.classifier.T.astype(np.int64)])


def _run(
    plan: InferencePlan, pixels: T, convolve: Callable[[Convolution, T, Sequence[T]], T], pool: Callable[[T], T]
) -> T:
    """Return the last activations of images.

    `convolve` computes a convolution from its input and the activations that it adds: the input of its block, where a
    shortcut begins, or its last inputs, the newest first.
    """
    inputs, entered, block = [pixels], pixels, -1
    for convolution in plan.convolutions:
        if convolution.is_regulator:
            inputs[0] = convolve(convolution, inputs[0], ())
            continue
        inputs = inputs[: max(1, convolution.history)]
        if convolution.pool:
            inputs = [pool(x) for x in inputs]
        if convolution.block != block:
            entered, block = inputs[0], convolution.block
        added = inputs if convolution.history else [entered] * (convolution.shortcut != "none")
        inputs = [convolve(convolution, inputs[0], added), *inputs]
    return inputs[0]


def _weigh(inputs: Sequence[np.ndarray], factors: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the sum of the last inputs of a layer, each times its factor."""
    return sum((x * factor for x, factor in zip(inputs, factors, strict=True)), start=np.zeros(1, inputs[0].dtype))


def _pool(x: np.ndarray) -> np.ndarray:
    images, height, width, channels = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(images, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


def _apply(kernels: Mapping[str, np.ndarray], name: str, x: np.ndarray, padding: np.ndarray | int = 0) -> np.ndarray:
    """Return the sums of a kernel, full or separable, over x, both in floats or both in integers."""
    if name in kernels:
        return _correlate(x, kernels[name], padding)
    filtered = _filter(x, kernels[f"{name}_depthwise"])
    if x.dtype.kind == "i":
        filtered = (filtered.astype(np.int64) + (1 << (FILTER_SHIFT - 1))) >> FILTER_SHIFT
    return _correlate(filtered, kernels[f"{name}_pointwise"], most=MOST_FILTERED)


def _correlate(x: np.ndarray, kernel: np.ndarray, padding: np.ndarray | int = 0, most: int = MOST_PIXEL) -> np.ndarray:
    """Return the sums (N, H, W, out) of a kernel (out, side, side, in) over x (N, H, W, in), with `padding` around it.

    Integers, up to `most`, are multiplied as floats, which libraries do fast, of a size that holds every sum exactly.
    """
    out, side, _, channels = kernel.shape
    exact = x.dtype.kind == "i" and side**2 * channels * most * MOST_WEIGHT >= 2**24
    kind = np.float64 if exact else np.float32
    sums = np.zeros((*x.shape[:3], out), kind)
    for dy, dx, shifted in _shifted(x.astype(kind), side, padding):
        sums += shifted @ kernel[:, dy, dx].T.astype(kind)
    return sums


def _filter(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return the sums (N, H, W, channels) of each channel of x and its own kernel, of (side, side, channels)."""
    sums = np.zeros(x.shape, np.float32)  # which holds those of integers exactly
    for dy, dx, shifted in _shifted(x.astype(np.float32), len(kernel), 0):
        sums += shifted * kernel[dy, dx].astype(np.float32)
    return sums


def _shifted(x: np.ndarray, side: int, padding: np.ndarray | int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield each place (dy, dx) of a kernel and the values of x (N, H, W, channels) under it, with `padding` around."""
    radius, (images, height, width, channels) = side // 2, x.shape
    padded = np.empty((images, height + 2 * radius, width + 2 * radius, channels), x.dtype)
    padded[:] = padding
    padded[:, radius : radius + height, radius : radius + width] = x
    for dy in range(side):
        for dx in range(side):
            yield dy, dx, padded[:, dy : dy + height, dx : dx + width]


def quantize(model: Classifier, images: np.ndarray) -> IntegerNetwork:
    """Return a network with 8-bit integers; calibration images (N, H, W, C) uint8 set the steps of its activations.

    Raises InputError without images or for a network without batch norm, ExportError for one too large for the
    integers of the C code, or with numbers that are not finite.
    """
    if not model.architecture.batch_norm:
        raise InputError(f"C code needs a network with batch norm, but this one is: {model.architecture}")
    if not len(images):
        raise InputError("C code needs at least 1 validation image to calibrate with, but there are 0")
    plan = plan_inference(model.architecture, model.input.shape, len(model.classes))
    _check_sizes(plan)
    chosen = images[:: math.ceil(len(images) / _most_images(plan, MOST_CALIBRATION))]
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
        return _Quantizer(plan, model).quantize(chosen)


@dataclass(frozen=True)
class _Activations:
    """The same activations in floats and in integers, (N, H, W, C); an integer stands for `step` times itself."""

    real: np.ndarray
    whole: np.ndarray
    step: float

    def pooled(self) -> "_Activations":
        return _Activations(_pool(self.real), _pool(self.whole), self.step)


class _Quantizer:
    """Run a network in floats and in integers side by side, and choose the integers on the way.

    What the integers of a channel are off by, on average over the images, its offset makes up for: the bias correction
    of Nagel et al. (https://arxiv.org/abs/1906.04721), section 4.2, with measured means.
    """

    def __init__(self, plan: InferencePlan, model: Classifier) -> None:
        self._plan = plan
        self._weights = {name: tensor.numpy().astype(np.float64) for name, tensor in model.weights.items()}
        self._mean, std = (255 * np.array(values) for values in (model.input.mean, model.input.std))
        self._kernels = {name: _in_c_order(name, w) for name, w in self._weights.items() if w.ndim == 4}
        self._kernels["kernels.stem"] = self._kernels["kernels.stem"] / std  # so that it takes pixels less their mean
        self._int8: dict[str, np.ndarray] = {}
        self._steps: dict[str, np.ndarray] = {}  # of each output channel, (out,), by the names of the plan
        for kernel in {name for c in plan.convolutions for name in (*c.kernels, c.projection) if name}:
            self._quantize_kernel(kernel)
        self._zero_points = np.clip(np.rint(self._mean), 0, 255).astype(np.uint8)
        self._scalings: list[Scaling] = []

    def quantize(self, images: np.ndarray) -> IntegerNetwork:
        pixels = _Activations(images - self._mean, images.astype(np.int64), 1.0)
        last = _run(self._plan, pixels, self._convolve, _Activations.pooled)
        weights, bias = self._weights["classifier.weight"], self._weights["classifier.bias"]
        classifier, steps = _to_int8(weights)
        steps *= last.step / AVERAGE_STEPS
        logits = last.real.mean(axis=(1, 2)) @ weights.T + bias
        unbiased = (_averages(last.whole) @ classifier.T * steps).mean(axis=0)
        score_step = float(np.abs(logits).max()) / 127 or 1.0
        scaling = _scaling(steps[None] / score_step, (logits.mean(axis=0) - unbiased) / score_step)
        return IntegerNetwork(
            self._plan, self._int8, tuple(self._scalings), self._zero_points, classifier, scaling, score_step
        )

    def _quantize_kernel(self, name: str) -> None:
        if name in self._kernels:
            self._int8[name], self._steps[name] = _to_int8(self._kernels[name])
            return
        depthwise, pointwise = f"{name}_depthwise", f"{name}_pointwise"
        filters, steps = _to_int8(self._kernels[depthwise].transpose(2, 0, 1))
        self._int8[depthwise] = filters.transpose(1, 2, 0)
        steps[~filters.any(axis=(1, 2))] = 0  # of channels that nothing comes through
        self._int8[pointwise], self._steps[name] = _to_int8(self._kernels[pointwise] * steps * 2**FILTER_SHIFT)

    def _convolve(self, c: Convolution, x: _Activations, added: Sequence[_Activations]) -> _Activations:
        layer, padding = c.norm.removesuffix(".norm"), self._zero_points if c.reads_image else 0
        scale, shift = self._weights[f"{c.norm}.weight"], self._weights[f"{c.norm}.bias"]
        mixing = self._weights[f"{layer}.mixing"] if len(c.kernels) > 1 else np.ones(1)
        terms = [(name, x, scalar * scale) for name, scalar in zip(c.kernels, mixing, strict=True)]
        identity = added[0].step if c.shortcut == "identity" else 0.0
        if c.projection:
            terms.append((c.projection, added[0], self._weights[f"{c.projection_norm}.weight"]))
            shift = shift + self._weights[f"{c.projection_norm}.bias"]
            added = ()
        real = shift + sum(_apply(self._kernels, name, source.real) * factor for name, source, factor in terms)
        sums = [_apply(self._int8, name, source.whole, padding) for name, source, _ in terms]
        multipliers = [factor * self._steps[name] * source.step for name, source, factor in terms]
        history: tuple[int, ...] = ()
        if c.history:
            scalars = self._weights[f"{layer}.history"]
            real += _weigh([past.real for past in added], scalars) * scale
            of_inputs = scalars * [past.step for past in added]
            unit = _unit(of_inputs, scale, multipliers)
            history = tuple(np.rint(of_inputs / unit).astype(np.int64).tolist())
            sums.append(_weigh([past.whole for past in added], history))
            multipliers.append(unit * scale)
            added = ()
        real += sum(past.real for past in added)
        whole = sum(s * m for s, m in zip(sums, multipliers, strict=True))
        whole += sum(identity * past.whole for past in added)
        offsets = (real - whole).mean(axis=(0, 1, 2))
        real = np.maximum(real, 0)
        step = float(real.max()) / 255 or 1.0
        scaling = _scaling(np.array(multipliers) / step, offsets / step, identity / step, history)
        self._scalings.append(scaling)
        return _Activations(real, scaling.outputs(sums, [past.whole for past in added]), step)


def _unit(of_inputs: np.ndarray, scale: np.ndarray, multipliers: Sequence[np.ndarray]) -> float:
    """Return the step of the sum of a layer's last inputs as an integer; `of_inputs` are their real factors in it.

    The largest factor then takes about as many bits as the 16-bit multiplier of the sum, which is the step times the
    norm's `scale`, if the largest of the kernels' `multipliers` takes 15. The sum itself must have no more than 32.
    """
    norm, kernel = float(np.abs(scale).max()), float(np.abs(multipliers).max())
    if norm and not of_inputs.any():
        return kernel / norm or 1.0
    even = math.sqrt(float(np.abs(of_inputs).max()) * kernel / norm / 2**15) if norm else 0.0
    return max(even, float(np.abs(of_inputs).sum()) / 2**23) or 1.0


def _averages(whole: np.ndarray) -> np.ndarray:
    """Return the averages (N, C) of integer activations (N, H, W, C) in sixteenths of their step."""
    count = whole.shape[1] * whole.shape[2]
    return (AVERAGE_STEPS * whole.sum(axis=(1, 2)) + count // 2) // count


def _in_c_order(name: str, kernel: np.ndarray) -> np.ndarray:
    """Return a kernel (out, in, side, side) as (out, side, side, in), the 3x3 part of a separable one as (3, 3, in)."""
    return kernel[:, 0].transpose(1, 2, 0) if name.endswith("_depthwise") else kernel.transpose(0, 2, 3, 1)


def _to_int8(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel (out, ...) as int8 and the step (out,) of each output channel."""
    steps = np.abs(kernel).reshape(len(kernel), -1).max(axis=1) / 127
    steps[steps == 0] = 1
    return np.rint(kernel / steps.reshape(-1, *[1] * (kernel.ndim - 1))).astype(np.int8), steps


def _scaling(
    multipliers: np.ndarray, offsets: np.ndarray, identity: float = 0.0, history: tuple[int, ...] = ()
) -> Scaling:
    """Return real multipliers and offsets as integers, with as many bits as these hold; `history` are integers.

    Raises ExportError if one is not finite.
    """
    if not all(np.isfinite(values).all() for values in (multipliers, offsets)):
        raise ExportError("C code needs a network with finite weights and activations, but some are not")
    largest = float(np.abs(multipliers).max())
    of_offsets = _most_shift(float(np.abs(offsets).max()), 2**15 - 1)
    shift = min(_most_shift(largest, 2**15 - 1), _most_shift(identity, 2**31 - 1), of_offsets + MOST_OFFSET_SHIFT)
    offset_shift = max(0, shift - of_offsets)
    return Scaling(
        _to_int16(multipliers * 2.0**shift),
        _to_int16(offsets * 2.0 ** (shift - offset_shift)),
        shift,
        offset_shift,
        min(round(identity * 2**shift), 2**31 - 1),
        history,
    )


def _to_int16(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), -(2**15 - 1), 2**15 - 1).astype(np.int16)


def _most_shift(value: float, most: int) -> int:
    """Return the largest shift from 1 to MOST_SHIFT by which a value stays at most `most` when it is rounded."""
    return MOST_SHIFT if value == 0 else max(1, min(MOST_SHIFT, math.floor(math.log2(most / value))))


def _most_images(plan: InferencePlan, most: int) -> int:
    """Return how many images, at most `most`, to compute at once."""
    values = max(c.pixels * c.out_channels * max(1, c.history) for c in plan.convolutions)
    return max(1, min(most, MOST_VALUES // values))


def _check_sizes(plan: InferencePlan) -> None:
    """Raise ExportError if a sum could leave the C code's 32-bit integers, or a size those that hold it."""
    stem, last, largest_product = plan.convolutions[0], plan.convolutions[-1], MOST_PIXEL * MOST_WEIGHT
    separable = max((c.in_channels for c in plan.convolutions if c.separable), default=0)
    for what, size, most in (
        ("weights in a sum", max(c.side**2 * c.in_channels for c in plan.convolutions), 2**31 // largest_product),
        ("channels under a separable kernel", separable, 2**31 // (MOST_FILTERED * MOST_WEIGHT)),
        ("channels before the classifier", last.out_channels, 2**31 // (AVERAGE_STEPS * largest_product)),
        ("pixels in an average", last.pixels, 2**32 // (AVERAGE_STEPS * 256)),
        ("pixels in a row or a column", max(stem.height, stem.width), 2**16),
        ("bytes in its arena", plan.arena, 2**31),
        ("anchors in a mix", max(len(c.kernels) for c in plan.convolutions), 2**8),
    ):
        if size >= most:
            raise ExportError(f"C code may have fewer than {most:,} {what}, but this network has {size:,}")
