"""Write one network with one tool, run it there, and say what it stores: `microcontroller_peers.py` starts this.

    python benchmarks/microcontroller_tools.py TOOL FOLDER

It runs with the Python that has the tool. The folder is a network's, with `images.npy` and `calibration.npy`
(N, H, W, C) uint8. Scores of the images go to `TOOL.npy`. The last line is JSON: versions, the bytes that go into
flash, constants as pairs of elements and bytes, and the RAM with who states it.

Models for an interpreter count as their file, C code as what gcc makes of it for this computer (`-Os`, code and
constants). Neither has the interpreter or the C library in it.
"""

import argparse
import importlib.metadata
import json
import math
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

GCC = ("gcc", "-std=c11", "-Os")
Constants = list[tuple[int, int]]  # elements, bytes
BAKENN_CALIBRATION = 16  # images; each takes it seconds


def onnx_int8(folder: Path, images: np.ndarray, _: np.ndarray) -> dict[str, Any]:
    """The project's own quantised ONNX file."""
    import onnx
    import onnxruntime

    path = folder / "model-int8.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    return {
        "versions": versions("onnxruntime"),
        "bytes": path.stat().st_size,
        "constants": [(array.size, array.nbytes) for array in arrays],
        "scores": session.run(None, {"pixels": pixels_of(images)})[0],
    }


def c_int8(folder: Path, images: np.ndarray, _: np.ndarray) -> dict[str, Any]:
    """The project's own C code. Its weights are one array, which holds each kernel from an offset on."""
    from dacnn_search.export.c.compiler import run_on_host
    from dacnn_search.export.folder import read_config, read_input, read_metrics
    from dacnn_search.network.cost import tensor_shapes

    given, code = read_input(folder), read_metrics(folder)["c"]
    size, symbols = compile_code([folder / "c" / "network.c"], folder / "c")
    shapes = tensor_shapes(read_config(folder).architecture, given.shape[0], len(given.classes))
    tensors = [math.prod(shape) for _, shape in shapes if len(shape) > 1]
    assert symbols["weights"] == sum(tensors)  # one byte each: no kernel is there twice
    others = [(0, count) for name, count in symbols.items() if name != "weights"]
    return {
        "versions": versions("dacnn-search"),
        "bytes": size,
        "constants": [(count, count) for count in tensors] + others,
        "ram": code["ram"],
        "ram_by": "its header",
        "scores": run_on_host(folder / "c", images)[0],
    }


def litert_float32(folder: Path, images: np.ndarray, _: np.ndarray) -> dict[str, Any]:
    import litert_torch
    import torch

    from dacnn_search import load_model

    path = folder / "float32.tflite"
    model = load_model(folder)
    litert_torch.convert(model, (torch.rand(1, *model.input.shape),)).export(str(path))
    return run_litert(path, images)


def litert_int8(folder: Path, images: np.ndarray, calibration: np.ndarray) -> dict[str, Any]:
    """The file of `litert_float32`, quantised with the quantizer's recipe for 8-bit weights and activations."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    path = folder / "float32.tflite"
    signature, entry = next(iter(Interpreter(str(path)).get_signature_list().items()))
    tool = quantizer.Quantizer(str(path), recipe.static_wi8_ai8())
    samples = [{entry["inputs"][0]: image[None]} for image in pixels_of(calibration)]
    quantised = tool.quantize(tool.calibrate({signature: samples}))
    quantised.export_model(str(folder / "int8.tflite"), overwrite=True)
    return run_litert(folder / "int8.tflite", images)


def litert_int8_merged(folder: Path, images: np.ndarray, _: np.ndarray) -> dict[str, Any]:
    """The file of `litert_int8`, with constants of the same bytes stored once, which the tool itself does not do."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf((folder / "int8.tflite").read_bytes())
    stored: dict[bytes, int] = {}
    for tensor in model.subgraphs[0].tensors:
        buffer = model.buffers[tensor.buffer]
        if has_data(buffer):
            tensor.buffer = stored.setdefault(bytes(buffer.data), tensor.buffer)
    for index, buffer in enumerate(model.buffers):
        if index not in stored.values():
            buffer.data = None
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    (folder / "merged.tflite").write_bytes(builder.Output())
    return run_litert(folder / "merged.tflite", images)


def run_litert(path: Path, images: np.ndarray) -> dict[str, Any]:
    """Run a .tflite file. Its RAM is that of the tensors that are needed at the same time, at the worst moment."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scores = []
    for image in pixels_of(images):
        if given["dtype"] == np.int8:
            scale, zero = given["quantization"]
            image = np.clip(np.rint(image / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        scores.append(interpreter.get_tensor(result["index"])[0].astype(np.float32))
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    graph = model.subgraphs[0]
    width = {schema.TensorType.FLOAT32: 4, schema.TensorType.INT32: 4, schema.TensorType.INT8: 1}
    elements = [math.prod(map(int, tensor.shape)) for tensor in graph.tensors]
    stored = {t.buffer: n for t, n in zip(graph.tensors, elements, strict=True) if has_data(model.buffers[t.buffer])}
    operators = graph.operators
    first, last = dict.fromkeys(graph.inputs, 0), {index: len(operators) for index in graph.outputs}
    for step, operator in enumerate(operators):
        for index in operator.outputs:
            first.setdefault(index, step)
        for index in operator.inputs:
            last[index] = max(step, last.get(index, step))
    held = {i: elements[i] * width[graph.tensors[i].type] for i in first}
    return {
        "versions": versions("litert-torch", "ai-edge-quantizer", "ai-edge-litert", "torch"),
        "bytes": path.stat().st_size,
        "constants": [(count, len(model.buffers[buffer].data)) for buffer, count in stored.items()],
        "ram": max(sum(held[i] for i in first if first[i] <= s <= last.get(i, s)) for s in range(len(operators))),
        "ram_by": "computed here",
        "scores": scores,
    }


def has_data(buffer: Any) -> bool:
    return buffer.data is not None and len(buffer.data) > 0


def executorch_float32(folder: Path, images: np.ndarray, _: np.ndarray) -> dict[str, Any]:
    """ExecuTorch's portable operators, run by its runtime."""
    import torch
    from executorch.exir import to_edge
    from executorch.runtime import Runtime

    from dacnn_search import load_model

    model = load_model(folder)
    program = torch.export.export(model, (torch.rand(1, *model.input.shape),))
    report = write_executorch(to_edge(program), folder / "float32.pte")
    method = Runtime.get().load_program(folder / "float32.pte").load_method("forward")
    scores = [method.execute([torch.from_numpy(image[None])])[0].numpy()[0].copy() for image in pixels_of(images)]
    return report | {"scores": scores}


def executorch_cortex_m(folder: Path, images: np.ndarray, calibration: np.ndarray) -> dict[str, Any]:
    """ExecuTorch's int8 operators for Cortex-M. Its wheel can't run them, so torch runs the quantised graph."""
    from dacnn_search import load_model

    return quantise_executorch(load_model(folder), folder / "cortex-m.pte", images, calibration)


def executorch_cortex_m_mul_add(folder: Path, images: np.ndarray, calibration: np.ndarray) -> dict[str, Any]:
    """The same of a network whose batch norms are written as a multiplication and an addition."""
    from torch import nn

    from dacnn_search import load_model

    class ScaleShift(nn.Module):
        def __init__(self, norm: nn.BatchNorm2d) -> None:
            super().__init__()
            self.scale, self.shift = (nn.Parameter(p.detach().view(1, -1, 1, 1)) for p in (norm.weight, norm.bias))

        def forward(self, x: Any) -> Any:
            return x * self.scale + self.shift

    model = load_model(folder)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, ScaleShift(child))
    return quantise_executorch(model, folder / "cortex-m-mul-add.pte", images, calibration)


def quantise_executorch(model: Any, path: Path, images: np.ndarray, calibration: np.ndarray) -> dict[str, Any]:
    import torch
    from executorch.backends.cortex_m.edge_compile_config import cortex_m_edge_compile_config
    from executorch.backends.cortex_m.passes.cortex_m_pass_manager import CortexMPassManager
    from executorch.backends.cortex_m.quantizer.quantizer import CortexMQuantizer
    from executorch.backends.cortex_m.target_config import CortexM, CortexMTargetConfig
    from executorch.exir import to_edge
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    def tensors(of: np.ndarray) -> Iterable[Any]:
        return (torch.from_numpy(i[None]).to(memory_format=torch.channels_last) for i in pixels_of(of))

    example = (next(iter(tensors(images))),)
    model = model.to(memory_format=torch.channels_last)
    observed = prepare_pt2e(torch.export.export(model, example).module(), CortexMQuantizer())
    for image in tensors(calibration):
        observed(image)
    quantised = convert_pt2e(observed)
    with torch.inference_mode():
        scores = [quantised(image)[0].numpy() for image in tensors(images)]
    edge = to_edge(torch.export.export(quantised, example), compile_config=cortex_m_edge_compile_config())
    target = CortexMTargetConfig(cpu=CortexM.M4)
    edge._edge_programs["forward"] = CortexMPassManager(edge.exported_program(), target_config=target).transform()
    return write_executorch(edge, path) | {"scores": scores}


def write_executorch(edge: Any, path: Path) -> dict[str, Any]:
    written = edge.to_executorch()
    path.write_bytes(written.buffer)
    program = written.executorch_program
    plan = program.execution_plan[0]
    elements = {v.val.data_buffer_idx: math.prod(v.val.sizes) for v in plan.values if hasattr(v.val, "data_buffer_idx")}
    buffers = enumerate(program.constant_buffer)
    return {
        "versions": versions("executorch", "torchao", "torch"),
        "bytes": path.stat().st_size,
        "constants": [(elements.get(index, 0), len(buffer.storage)) for index, buffer in buffers if index],
        "ram": sum(plan.non_const_buffer_sizes),
        "ram_by": "its file",
    }


def emx_float32(folder: Path, images: np.ndarray, _: np.ndarray) -> dict[str, Any]:
    return run_emx(folder, "model", 4, images)


def emx_int8(folder: Path, images: np.ndarray, _: np.ndarray) -> dict[str, Any]:
    """C code for the project's quantised ONNX file."""
    return run_emx(folder, "model-int8", 1, images)


def run_emx(folder: Path, name: str, width: int, images: np.ndarray) -> dict[str, Any]:
    """Compile an ONNX file with kernels of `width` bytes per weight. RAM is the stack of the function."""
    from emx_onnx_cgen.cli import main as emx

    target = folder / f"emx-{name}"
    target.mkdir(exist_ok=True)
    code = target / "net.c"
    thresholds = ("--large-weight-threshold", "0", "--large-temp-threshold", "0")  # no files, no heap
    emx(["compile", "--input-dim", "batch=1", *thresholds, "--model-name", "net", f"{folder / name}.onnx", str(code)])
    size, symbols = compile_code([code], target)
    stack = next(line.split("\t") for line in (target / "net.su").read_text().splitlines() if ":net\t" in line)
    harness = """void net(const float *pixels, float *scores);
        #define CALL net(input, output)
        typedef float in_t; typedef float out_t;"""
    scores = run_code([code], target, harness, pixels_of(images), np.float32)
    return {
        "versions": versions("emx-onnx-cgen"),
        "bytes": size,
        "constants": [(count // width, count) for count in symbols.values()],
        "ram": int(stack[1]),
        "ram_by": "gcc, as stack",
        "scores": scores,
    }


def bakenn_int8(folder: Path, images: np.ndarray, calibration: np.ndarray) -> dict[str, Any]:
    """BakeNN's C code. It can't subtract a mean, so it is given normalised images."""
    import bakenn
    import torch

    from dacnn_search import load_model

    model = load_model(folder)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # it reads no buffers that are not persistent
            module.running_mean, module.running_var = (
                torch.nn.Buffer(buffer.clone()) for buffer in (module.running_mean, module.running_var)
            )
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (model.input.mean, model.input.std))

    def normalised(of: np.ndarray) -> np.ndarray:
        return ((pixels_of(of) - mean) / std)[:, None]

    samples = [torch.from_numpy(image) for image in normalised(calibration[:BAKENN_CALIBRATION])]
    target = folder / "bakenn"
    compiled = bakenn.compile_torch_ptq(model.network, samples[0], samples, target, name="net")
    sources = [target / f"bknn_net{part}.c" for part in ("", "_weights", "_kernels")]
    size, symbols = compile_code(sources, target)
    harness = """#include "bknn_net.h"
        static _Alignas(16) uint8_t arena[BKNN_NET_ARENA_SIZE];
        #define CALL bknn_net_infer(arena, input, output)
        typedef int8_t in_t; typedef int8_t out_t;"""
    given = [bakenn.quantize_input(compiled.plan, i.transpose(0, 2, 3, 1)) for i in normalised(images)]
    header = (target / "bknn_net.h").read_text().split()
    return {
        "versions": versions("bakenn", "torch"),
        "bytes": size,
        "constants": [(count, count) for count in symbols.values()],
        "ram": int(header[header.index("BKNN_NET_ARENA_SIZE") + 1].rstrip("u")),
        "ram_by": "its header",
        "scores": run_code(sources, target, harness, np.stack(given).astype(np.int8), np.int8),
    }


def versions(*packages: str) -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in packages}


def pixels_of(images: np.ndarray) -> np.ndarray:
    """Return images (N, H, W, C) uint8 as float32 (N, C, H, W) in [0, 1]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255


def compile_code(sources: list[Path], folder: Path) -> tuple[int, dict[str, int]]:
    """Return the bytes of code and constants of C files, and the bytes of each constant array."""
    size, symbols = 0, {}
    for source in sources:
        made = folder / f"{source.stem}.o"
        subprocess.run([*GCC, "-fstack-usage", "-c", "-o", made, source], check=True)
        sections = subprocess.run(["size", made], check=True, capture_output=True, text=True).stdout
        size += int(sections.splitlines()[1].split()[0])  # text, which has the constants in it
        for line in subprocess.run(["nm", "-S", made], check=True, capture_output=True, text=True).stdout.splitlines():
            match line.split():
                case [_, count, "r" | "R", name]:
                    symbols[name] = int(count, 16)
    return size, symbols


def run_code(sources: list[Path], folder: Path, harness: str, given: np.ndarray, kind: type) -> np.ndarray:
    """Run generated code on images `given` (N, ...); return its scores (N, 10), numbers of the given kind."""
    (folder / "harness.c").write_text(
        f"""#include <stdint.h>
        #include <stdio.h>
        {harness}
        static in_t input[{given[0].size}];
        static out_t output[10];
        int main(void)
        {{
            while (fread(input, sizeof input, 1, stdin) == 1) {{
                CALL;
                fwrite(output, sizeof output, 1, stdout);
            }}
        }}"""
    )
    program = folder / "harness"
    subprocess.run([*GCC, "-O2", "-o", program, folder / "harness.c", *sources, "-lm"], check=True)
    printed = subprocess.run([program], input=given.tobytes(), capture_output=True, check=True).stdout
    return np.frombuffer(printed, kind).reshape(len(given), 10)


TOOLS: dict[str, Callable[[Path, np.ndarray, np.ndarray], dict[str, Any]]] = {
    "onnx-int8": onnx_int8,
    "c-int8": c_int8,
    "litert-float32": litert_float32,
    "litert-int8": litert_int8,
    "litert-int8-merged": litert_int8_merged,
    "executorch-float32": executorch_float32,
    "executorch-cortex-m": executorch_cortex_m,
    "executorch-cortex-m-mul-add": executorch_cortex_m_mul_add,
    "emx-float32": emx_float32,
    "emx-int8": emx_int8,
    "bakenn-int8": bakenn_int8,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    images, calibration = (np.load(options.folder / f"{name}.npy") for name in ("images", "calibration"))
    report = TOOLS[options.tool](options.folder, images, calibration)
    np.save(options.folder / f"{options.tool}.npy", np.asarray(report.pop("scores"), np.float32))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
