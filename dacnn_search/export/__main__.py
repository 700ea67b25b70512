"""Export trained networks: `python -m dacnn_search.export results/digits --max-parameters 50k`."""

from pathlib import Path
from typing import Any

import click

from dacnn_search.common.command import BYTES, COUNT, PATH, at_least, command, option_group
from dacnn_search.common.errors import InputError
from dacnn_search.common.units import format_bytes
from dacnn_search.export.c.compiler import TARGETS
from dacnn_search.export.c.options import NAME, CodeOptions, describe_code
from dacnn_search.export.folder import ALL_FORMATS, CODE, FORMATS, METRICS, read_metrics
from dacnn_search.storage.run_directory import RunDirectory

EPILOG = """\
Networks are chosen among those that were trained in full; accuracy is that of the test images. Every file is run on
them in a process of its own and compared with the network before its folder takes its place.
"""


which = option_group("Which networks (default: all that were trained in full)")
what = option_group("What is written")
code = option_group("C code with 8-bit integers")


@command(epilog=EPILOG)
@click.argument("folder", type=PATH)
@which("--max-parameters", type=COUNT, metavar="N", help="at most so many, such as 50k")
@which("--max-macs", type=COUNT, metavar="N", help="at most so many multiply-accumulates, such as 2M")
@which("--max-bytes", type=BYTES, metavar="SIZE", help="of the weights, such as 100kB")
@which(
    "--max-flash", type=BYTES, metavar="SIZE", help="of the C code with 8-bit integers, on a Cortex-M4, such as 32kB"
)
@which("--max-ram", type=BYTES, metavar="SIZE", help="of that code, without image and stack, such as 8kB")
@which("--min-accuracy", type=click.FloatRange(0, 1), metavar="A", help="on the test images, such as 0.97")
@which("--trial", type=at_least(0), metavar="N", help="the network of this trial")
@which("--top", type=at_least(1), metavar="K", help="the K most accurate of them")
@what("--to", type=PATH, metavar="FOLDER", help="below this folder (default: best/ of the run)")
@what("--formats", metavar="LIST", help=f"some of {','.join(ALL_FORMATS)} (default: {','.join(FORMATS)})")
@what("--float16", is_flag=True, help="weights in half precision too")
@what("--int8", is_flag=True, help="a quantised ONNX file too")
@code(
    "--c", is_flag=True, help="C99 code for microcontrollers; other formats only if --formats or --int8 asks for them"
)
@code("--c-name", default=NAME, metavar="NAME", help="begins the names of its files, functions and macros")
@code("--arena", type=BYTES, metavar="SIZE", help="RAM that it may use, such as 16kB; more is an error")
@code("--target", multiple=True, metavar="CORE", help=f"measure its flash and RAM for {', '.join(TARGETS)}")
def main(
    folder: Path,
    to: Path | None,
    formats: str | None,
    float16: bool,
    int8: bool,
    c: bool,
    c_name: str,
    arena: int | None,
    target: tuple[str, ...],
    **limits: Any,
) -> None:
    """Export the trained networks of a run as safetensors, ONNX and torch.export files or as C code. FOLDER is the run
    directory of a search, or the folder of one trained network."""
    from dacnn_search.export.exporter import export_folder, export_run
    from dacnn_search.export.formats import Formats

    if not c and "c" not in (formats or "").split(",") and (c_name != NAME or arena is not None or target):
        raise InputError("--c-name, --arena and --target are for C code: add --c")
    names = tuple(formats.split(",")) if formats else ("safetensors",) if c and not int8 else FORMATS
    code = CodeOptions(c_name, arena, target)
    wanted = Formats((*names, "c") if c and "c" not in names else names, float16, int8, code)
    if (folder / METRICS).is_file():
        if any(value is not None for value in limits.values()):
            raise InputError(f"{folder} is one network: there is nothing to choose")
        folders = [export_folder(folder, to, wanted)]
    else:
        folders = export_run(RunDirectory(folder), to, wanted, **limits)
    for written in folders:
        print(written)
        metrics = read_metrics(written)
        for name, file in metrics["files"].items():
            accuracy = "" if file["accuracy"] is None else f"{file['accuracy']:.2%}"
            print(f"  {name:<28} {format_bytes(file['bytes']):>8}  {accuracy}".rstrip())
        if CODE in metrics:
            for line in describe_code(metrics[CODE]):
                print(f"  {line}")


if __name__ == "__main__":
    main()
