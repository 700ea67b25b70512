"""Export trained networks: `python -m dacnn_search.export results/digits --max-parameters 50k`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from dacnn_search.common.command import command, parsed, whole
from dacnn_search.common.errors import InputError
from dacnn_search.common.units import format_bytes, parse_bytes, parse_count
from dacnn_search.export.artifacts import FORMATS, Formats
from dacnn_search.export.exporter import export_folder, export_run
from dacnn_search.export.folder import METRICS
from dacnn_search.storage.run_directory import RunDirectory

__all__ = ["main"]

LIMITS = ("max_parameters", "max_macs", "max_bytes", "min_accuracy", "trial", "top")
EPILOG = """\
Networks are chosen among those that were trained in full; accuracy is that of the test images. Every file is run on
them in a process of its own and compared with the network before its folder takes its place.
"""


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and export."""
    options = _parser().parse_args(arguments)
    formats = Formats(tuple(options.formats.split(",")), options.float16, options.int8)
    limits = {name: getattr(options, name) for name in LIMITS}
    if (options.folder / METRICS).is_file():
        if any(value is not None for value in limits.values()):
            raise InputError(f"{options.folder} is one network: there is nothing to choose")
        folders = [export_folder(options.folder, options.to, formats)]
    else:
        folders = export_run(RunDirectory(options.folder), options.to, formats, **limits)
    for folder in folders:
        _print(folder)


def _print(folder: Path) -> None:
    print(folder)
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    for name, file in metrics["files"].items():
        accuracy = "" if file["accuracy"] is None else f"{file['accuracy']:.2%}"
        print(f"  {name:<28} {format_bytes(file['bytes']):>8}  {accuracy}".rstrip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dacnn_search.export",
        description="Export the trained networks of a run as safetensors, ONNX and torch.export files.",
        epilog=EPILOG,
    )
    parser.add_argument("folder", type=Path, help="run directory of a search, or the folder of one trained network")
    which = parser.add_argument_group("which networks (default: all that were trained in full)")
    count = parsed(parse_count)
    which.add_argument("--max-parameters", type=count, metavar="N", help="at most so many, such as 50k")
    which.add_argument("--max-macs", type=count, metavar="N", help="at most so many multiply-accumulates, such as 2M")
    which.add_argument("--max-bytes", type=parsed(parse_bytes), metavar="SIZE", help="of the weights, such as 100kB")
    which.add_argument("--min-accuracy", type=_accuracy, metavar="A", help="on the test images, such as 0.97")
    which.add_argument("--trial", type=whole(0), metavar="N", help="the network of this trial")
    which.add_argument("--top", type=whole(1), metavar="K", help="the K most accurate of them")
    what = parser.add_argument_group("what is written")
    what.add_argument("--to", type=Path, metavar="FOLDER", help="below this folder (default: best/ of the run)")
    what.add_argument("--formats", default=",".join(FORMATS), help=f"some of {','.join(FORMATS)} (all)")
    what.add_argument("--float16", action="store_true", help="weights in half precision too")
    what.add_argument("--int8", action="store_true", help="a quantised ONNX file too")
    return parser


def _accuracy(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number in [0, 1], but is {text!r}")
    return value


if __name__ == "__main__":
    main()
