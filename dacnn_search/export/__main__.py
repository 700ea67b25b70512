"""Export trained networks: `python -m dacnn_search.export results/digits --max-parameters 50k`."""

from pathlib import Path
from typing import Any

import click

from dacnn_search.common.command import BYTES, COUNT, PATH, at_least, command, option_group
from dacnn_search.common.errors import InputError
from dacnn_search.common.units import format_bytes
from dacnn_search.export.folder import FORMATS, METRICS, read_metrics
from dacnn_search.storage.run_directory import RunDirectory

EPILOG = """\
Networks are chosen among those that were trained in full; accuracy is that of the test images. Every file is run on
them in a process of its own and compared with the network before its folder takes its place.
"""


which = option_group("Which networks (default: all that were trained in full)")
what = option_group("What is written")


@command(epilog=EPILOG)
@click.argument("folder", type=PATH)
@which("--max-parameters", type=COUNT, metavar="N", help="at most so many, such as 50k")
@which("--max-macs", type=COUNT, metavar="N", help="at most so many multiply-accumulates, such as 2M")
@which("--max-bytes", type=BYTES, metavar="SIZE", help="of the weights, such as 100kB")
@which("--max-flash", type=BYTES, metavar="SIZE", help="of the C code with 8-bit integers, such as 32kB")
@which("--max-ram", type=BYTES, metavar="SIZE", help="of the activations that it keeps, such as 8kB")
@which("--min-accuracy", type=click.FloatRange(0, 1), metavar="A", help="on the test images, such as 0.97")
@which("--trial", type=at_least(0), metavar="N", help="the network of this trial")
@which("--top", type=at_least(1), metavar="K", help="the K most accurate of them")
@what("--to", type=PATH, metavar="FOLDER", help="below this folder (default: best/ of the run)")
@what("--formats", default=",".join(FORMATS), metavar="LIST", help="some of these")
@what("--float16", is_flag=True, help="weights in half precision too")
@what("--int8", is_flag=True, help="a quantised ONNX file too")
def main(folder: Path, to: Path | None, formats: str, float16: bool, int8: bool, **limits: Any) -> None:
    """Export the trained networks of a run as safetensors, ONNX and torch.export files. FOLDER is the run directory of
    a search, or the folder of one trained network."""
    from dacnn_search.export.exporter import export_folder, export_run
    from dacnn_search.export.formats import Formats

    wanted = Formats(tuple(formats.split(",")), float16, int8)
    if (folder / METRICS).is_file():
        if any(value is not None for value in limits.values()):
            raise InputError(f"{folder} is one network: there is nothing to choose")
        folders = [export_folder(folder, to, wanted)]
    else:
        folders = export_run(RunDirectory(folder), to, wanted, **limits)
    for written in folders:
        print(written)
        for name, file in read_metrics(written)["files"].items():
            accuracy = "" if file["accuracy"] is None else f"{file['accuracy']:.2%}"
            print(f"  {name:<28} {format_bytes(file['bytes']):>8}  {accuracy}".rstrip())


if __name__ == "__main__":
    main()
