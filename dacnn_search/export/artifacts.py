"""Choose, write and check the files that an export adds to config, weights, metrics and card."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dacnn_search.common.errors import InputError
from dacnn_search.common.machine import processor_name
from dacnn_search.export.folder import WEIGHTS

if TYPE_CHECKING:
    from dacnn_search.export.classifier import Classifier
    from dacnn_search.export.parity import CheckImages

__all__ = ["FORMATS", "Formats", "write_files"]

FORMATS = ("safetensors", "onnx", "pt2")


@dataclass(frozen=True)
class Formats:
    """The files that an export writes. Raises InputError for an unknown name, and for int8 without onnx.

    Args:
        names: Some of `FORMATS`; the weights as safetensors are always written.
        float16: Write the weights, and the ONNX file if there is one, in half precision too.
        int8: Write a quantised ONNX file too.
    """

    names: tuple[str, ...] = FORMATS
    float16: bool = False
    int8: bool = False

    def __post_init__(self) -> None:
        if not self.names or not set(self.names) <= set(FORMATS):
            raise InputError(f"formats must be some of {', '.join(FORMATS)}, but are {', '.join(self.names)!r}")
        if self.int8 and "onnx" not in self.names:
            raise InputError(f"int8 needs the format onnx, but formats are {', '.join(self.names)}")


def write_files(folder: Path, model: "Classifier", formats: Formats, check: "CheckImages") -> dict[str, Any]:
    """Write the files beside the weights, run each on the images of `check`, and return the parts `files` and
    `measured` of `metrics.json`.

    Raises ExportError if a file does not do what the network does, InputError if a package for it is not installed.
    """
    from dacnn_search.export.formats import write_float16_weights
    from dacnn_search.export.parity import describe_file, measure_file

    reference = model.logits(check.images)
    files = {WEIGHTS: describe_file(folder / WEIGHTS, check, reference)}
    if formats.float16:
        path = folder / "weights-float16.safetensors"
        write_float16_weights(folder / WEIGHTS, path)
        files[path.name] = describe_file(path, check, model.with_weights(path).logits(check.images))
    for path, exact in _write_programs(folder, model, formats, check):
        files[path.name] = measure_file(path, check, reference, exact=exact)
    measured = {"part": check.part, "images": len(check.images), "processor": processor_name()}
    return {"files": files, "measured": measured}


def _write_programs(
    folder: Path, model: "Classifier", formats: Formats, check: "CheckImages"
) -> Iterator[tuple[Path, bool]]:
    """Write the files that run by themselves; yield each, and whether its logits must be those of the network."""
    from dacnn_search.export import formats as writers

    if set(formats.names) == {"safetensors"}:
        return
    if "onnx" in formats.names:
        writers.require("onnx", "onnxscript", "onnxruntime")
    program = writers.trace(model)
    if "pt2" in formats.names:
        writers.write_pt2(program, folder / "model.pt2")
        yield folder / "model.pt2", True
    if "onnx" not in formats.names:
        return
    onnx = folder / "model.onnx"
    writers.write_onnx(program, onnx, model.classes)
    yield onnx, True
    if formats.float16:
        writers.write_float16_onnx(onnx, folder / "model-float16.onnx")
        yield folder / "model-float16.onnx", False
    if formats.int8:
        writers.write_int8_onnx(onnx, folder / "model-int8.onnx", check.calibration)
        yield folder / "model-int8.onnx", False
