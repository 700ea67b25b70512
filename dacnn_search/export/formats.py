"""Write a `Classifier` as files that other programs run: `torch.export`'s `.pt2`, ONNX, and smaller ONNX variants.

Each file stores a shared kernel once, holds no trace of where it was made, and is run before it counts as exported. It
computes what layers mix from the anchors, which are stored once too.
"""

import contextlib
import importlib.util
import io
import json
import logging
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from dacnn_search.common.errors import ExportError, InputError
from dacnn_search.common.files import write_atomic
from dacnn_search.export.c.options import CodeOptions
from dacnn_search.export.classifier import Classifier
from dacnn_search.export.folder import ALL_FORMATS, FORMATS

INPUT, OUTPUT, BATCH_NAME, CLASSES = "pixels", "logits", "batch", "classes"
# Notes that tracing adds to each operation: source files, lines, module names.
TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")
MOST_CALIBRATION = 512  # images
# Constants of so many numbers are folded into others: not even the smallest 3x3 kernel, so mixes are still computed.
# Only the 1x1 parts of separable kernels of two channels are folded.
LARGEST_FOLDED = 8
# Smaller tensors stay in single precision: the node that converts them back takes more bytes than halving saves.
SMALLEST_HALVED = 64


@dataclass(frozen=True)
class Formats:
    """The files that an export writes. Raises InputError for an unknown name, and for int8 without onnx."""

    names: tuple[str, ...] = FORMATS  # some of these and "c"; the weights as safetensors are always written
    float16: bool = False  # the weights, and the ONNX file if there is one, in half precision too
    int8: bool = False  # a quantised ONNX file too
    code: CodeOptions = field(default_factory=CodeOptions)  # how C code is written

    def __post_init__(self) -> None:
        if not self.names or not set(self.names) <= set(ALL_FORMATS):
            raise InputError(f"formats must be some of {', '.join(ALL_FORMATS)}, but are {', '.join(self.names)!r}")
        if self.int8 and "onnx" not in self.names:
            raise InputError(f"int8 needs the format onnx, but formats are {', '.join(self.names)}")

    @property
    def calibrated(self) -> bool:
        """True if images are needed, which set the ranges of integers."""
        return self.int8 or "c" in self.names


def write_files(folder: Path, model: Classifier, formats: Formats, images: np.ndarray) -> Iterator[Path]:
    """Write a network in these formats to a folder, and yield each file.

    The images (N, H, W, C) uint8 set the ranges of int8. Raises ExportError if the network can't be written in a
    format, InputError if there are no images for int8 or a package is not installed.
    """
    if formats.float16:
        path = folder / "weights-float16.safetensors"
        half = {k: torch.from_numpy(_half(k, tensor.numpy())) for k, tensor in model.weights.items()}
        write_atomic(path, save(half))
        yield path
    if not {"onnx", "pt2"} & set(formats.names):
        return
    if "onnx" in formats.names:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise InputError(
                    f"ONNX files need the package {package}, which is not installed: "
                    "pip install onnx onnxscript onnxruntime, or choose other formats"
                )
    program = _trace(model)
    if "pt2" in formats.names:
        yield _write_pt2(program, folder / "model.pt2")
    if "onnx" in formats.names:
        onnx = _write_onnx(program, folder / "model.onnx", model.classes)
        yield onnx
        if formats.float16:
            yield _write_float16_onnx(onnx, folder / "model-float16.onnx")
        if formats.int8:
            yield _write_int8_onnx(onnx, folder / "model-int8.onnx", images)


def _half(name: str, values: np.ndarray) -> np.ndarray:
    """Return values in half precision. Raises ExportError if one of them is beyond its range."""
    largest, most = float(np.abs(values).max()), float(np.finfo(np.float16).max)
    if not largest <= most:
        raise ExportError(f"float16 holds at most {most:,.0f}, but {name} has {largest:g}")
    return values.astype(np.float16)


def _trace(model: Classifier) -> torch.export.ExportedProgram:
    """Return the model as a graph for any number of images. Raises ExportError if torch can't trace it."""
    example = torch.rand(2, *model.input.shape)
    shapes = {INPUT: {0: torch.export.Dim(BATCH_NAME, min=1)}}
    try:
        program = torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch raises its own kinds
        raise ExportError(f"torch.export can't trace the network: {type(error).__name__}: {error}") from error
    for node in program.graph.nodes:
        for key in TRACES:
            node.meta.pop(key, None)
    program.example_inputs = None
    return program


def _write_pt2(program: torch.export.ExportedProgram, path: Path) -> Path:
    """Write a file that `torch.export.load(path).module()` runs, compressed, since most of a small one is JSON."""
    plain = io.BytesIO()
    torch.export.save(program, plain)
    packed = io.BytesIO()
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    write_atomic(path, packed.getvalue())
    return path


def _write_onnx(program: torch.export.ExportedProgram, path: Path, classes: Sequence[str]) -> Path:
    """Write an ONNX file: input `pixels` (batch, C, H, W) in [0, 1], output `logits` (batch, classes), both float32.

    The model's metadata hold the names of the classes as JSON, under `classes`.
    """
    from onnxscript.optimizer import optimize_ir

    with _quiet():
        exported = torch.onnx.export(
            program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False, optimize=False
        )
        assert exported is not None
        optimize_ir(exported.model, input_size_limit=LARGEST_FOLDED)
    model = exported.model_proto
    model.metadata_props.add(key=CLASSES, value=json.dumps(list(classes), ensure_ascii=False))
    return _save(model, path)


def _write_float16_onnx(source: Path, path: Path) -> Path:
    """Write an ONNX file anew with its weights in half precision. It computes in float32, as CPUs do anyway."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < SMALLEST_HALVED:
            continue
        name, half = tensor.name, f"{tensor.name}_half"
        tensor.CopyFrom(numpy_helper.from_array(_half(name, values), half))
        model.graph.node.insert(0, helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    return _save(model, path)


def _write_int8_onnx(source: Path, path: Path, images: np.ndarray) -> Path:
    """Quantise convolutions and classifier to 8 bits, statically, with one scale per output channel.

    A mixed kernel, as it is computed in the graph, is quantised there like an activation, with one scale; its anchors
    are stored in 8 bits too. The ranges of activations are taken from the images (N, H, W, C) uint8. Raises InputError
    if there are none.
    """
    if not len(images):
        raise InputError("int8 needs at least 1 validation image to calibrate with, but there are 0")
    import onnx

    chosen = images[:: max(1, len(images) // MOST_CALIBRATION)][:MOST_CALIBRATION].transpose(0, 3, 1, 2)
    batches = ({INPUT: np.ascontiguousarray(chosen[i : i + 64], np.float32) / 255} for i in range(0, len(chosen), 64))
    with _quiet():
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        quantize_static(
            source,
            path,
            SimpleNamespace(get_next=lambda: next(batches, None)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    model = onnx.load(path)
    _quantize_anchors(model)
    return _save(model, path)


def _quantize_anchors(model: Any) -> None:
    """Store the kernels that are still in float32, the anchors of mixes, in 8 bits."""
    from onnx import helper, numpy_helper

    for tensor in list(model.graph.initializer):
        kernel = numpy_helper.to_array(tensor)
        is_kernel = tensor.name.startswith("network.kernels.") and kernel.ndim == 4  # others are scales of kernels
        if not is_kernel or kernel.dtype != np.float32:
            continue
        scales = np.abs(kernel).max(axis=(1, 2, 3)) / 127
        scales[scales == 0] = 1
        whole = np.rint(kernel / scales[:, None, None, None]).astype(np.int8)
        name, parts = tensor.name, [f"{tensor.name}_quantized", f"{tensor.name}_scale"]
        tensor.CopyFrom(numpy_helper.from_array(whole, parts[0]))
        model.graph.initializer.append(numpy_helper.from_array(scales, parts[1]))
        model.graph.node.insert(0, helper.make_node("DequantizeLinear", parts, [name], axis=0))


def _save(model: Any, path: Path) -> Path:
    """Write an ONNX model, checked, without notes on its origin and with a name for its dimension of images."""
    import onnx

    graph = model.graph
    classes = [entry for entry in model.metadata_props if entry.key == CLASSES]
    del model.metadata_props[:]
    model.metadata_props.extend(classes)
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH_NAME
    onnx.checker.check_model(model, full_check=True)
    write_atomic(path, model.SerializeToString())
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings about the insides of these libraries, and advice in their logs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
