"""Write the dashboard of a run again, compare several: `python -m dacnn_search.dashboard results/digits`."""

import argparse
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from dacnn_search.common.command import command, parsed
from dacnn_search.common.errors import InputError
from dacnn_search.dashboard.page import runs_in, write_comparison, write_dashboard, write_figure, write_index
from dacnn_search.dashboard.payload import read_run
from dacnn_search.dashboard.server import make_server
from dacnn_search.dashboard.tensorboard import write_tensorboard


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Write the dashboard of a run, the comparison of several, or the index of a folder of runs."""
    options = _parser().parse_args(arguments)
    folders: list[Path] = options.runs
    if options.image or options.tensorboard:
        if options.serve is not None or options.open:
            raise InputError(
                "--image and --tensorboard write files and show none: --serve and --open can't go with them"
            )
        if len(folders) > 1:
            raise InputError(f"--image and --tensorboard take one run, but got {len(folders)}")
        if options.image:
            print(write_figure(folders[0], options.image))
        if options.tensorboard:
            print(write_tensorboard(folders[0], read_run(folders[0]).records, anew=True))
        return

    if options.out and len(folders) == 1:
        raise InputError("--out is only used with several runs, which are compared")

    def build(path: str = "/") -> Path | None:
        if len(folders) > 1:
            return (
                write_comparison(folders, options.out or folders[0].parent / "comparison.html") if path == "/" else None
            )
        if not (folders[0] / "trials.jsonl").exists() and any(folders[0].glob("*/trials.jsonl")):
            return page_of_index(folders[0], path)
        return write_dashboard(folders[0]) if path == "/" else None

    page = build()
    assert page is not None
    print(page)
    if options.serve is not None:
        with make_server(build, options.serve) as server:
            address = f"http://127.0.0.1:{server.server_port}/"
            print(f"Serving {address} until Ctrl-C", flush=True)
            if options.open:
                webbrowser.open(address)
            server.serve_forever()
    elif options.open:
        webbrowser.open(page.resolve().as_uri())


def page_of_index(results: Path, path: str) -> Path | None:
    """The index of a folder of runs or, where its links lead, the page of one of these."""
    if path == "/":
        return write_index(results)
    name = path.removeprefix("/").removesuffix("dashboard.html").removesuffix("/")
    return write_dashboard(results / name) if name in {run.name for run in runs_in(results)} else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dacnn_search.dashboard",
        description="Rebuild the dashboard of a run from its ledger; of several runs, write a page that compares them; "
        "of a folder of runs, its index.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory, such as results/digits")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--serve", nargs="?", type=parsed(_port), const=8000, metavar="PORT",
        help="serve the page to this machine only, rebuilt for each visit (default port 8000; 0: any free one)",
    )  # fmt: skip
    parser.add_argument("--image", type=Path, metavar="FILE", help="write the front as a figure instead: .svg or .png")
    parser.add_argument(
        "--tensorboard", action="store_true", help="write the learning curves for TensorBoard instead, into the run"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write a comparison")
    return parser


def _port(text: str) -> int:
    """A port's number. Raises ValueError for anything else, such as a run directory that stands behind `--serve`."""
    if not text.isdecimal():
        raise ValueError(f"must be a port's number (run directories stand before it), but is {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
