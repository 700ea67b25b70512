"""Write the dashboard of a run again, compare several: `python -m dacnn_search.dashboard results/digits`."""

import webbrowser
from collections.abc import Sequence
from pathlib import Path

import click

from dacnn_search.common.command import PATH, Parsed, command
from dacnn_search.common.errors import InputError
from dacnn_search.dashboard.page import runs_in, write_comparison, write_dashboard, write_figure, write_index
from dacnn_search.dashboard.server import make_server
from dacnn_search.dashboard.tensorboard import write_tensorboard
from dacnn_search.storage.run_directory import RunDirectory


def _port(text: str) -> int:
    """Return a port's number. Raises ValueError for anything else, such as a run directory behind `--serve`."""
    if not text.isdecimal():
        raise ValueError(f"must be a port's number (run directories stand before it), but is {text!r}")
    return int(text)


@command()
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN...")
@click.option("--open", "open_page", is_flag=True, help="open the page in the browser")
@click.option(
    "--serve", is_flag=False, flag_value="8000", type=Parsed(_port, "port"),
    help="serve the page to this machine only, rebuilt for each visit (default port 8000; 0: any free one)",
)  # fmt: skip
@click.option("--image", type=PATH, metavar="FILE", help="write the front as a figure instead: .svg or .png")
@click.option("--tensorboard", is_flag=True, help="write the learning curves for TensorBoard instead, into the run")
@click.option("--out", type=PATH, metavar="FILE", help="where to write a comparison")
def main(
    runs: tuple[Path, ...], open_page: bool, serve: int | None, image: Path | None, tensorboard: bool, out: Path | None
) -> None:
    """Rebuild the dashboard of a run from its ledger; of several runs, write a page that compares them; of a folder of
    runs, its index. RUN is a run directory, such as results/digits."""
    if out and (len(runs) == 1 or image or tensorboard):
        raise InputError(f"--out is only used for a page that compares several runs, but got {out}")
    if image or tensorboard:
        if serve is not None or open_page:
            raise InputError("--image and --tensorboard write files, show none: --serve and --open can't go with them")
        if len(runs) > 1:
            raise InputError(f"--image and --tensorboard take one run, but got {len(runs)}")
        if image:
            print(write_figure(runs[0], image))
        if tensorboard:
            print(write_tensorboard(runs[0], RunDirectory(runs[0], snapshot=True).records, anew=True))
        return
    page = build_page(runs, out)
    assert page is not None  # there is always a page at /
    print(page)
    if serve is not None:
        with make_server(lambda path: build_page(runs, out, path), serve) as server:
            address = f"http://127.0.0.1:{server.server_port}/"
            print(f"Serving {address} until Ctrl-C", flush=True)
            if open_page:
                webbrowser.open(address)
            server.serve_forever()
    elif open_page:
        webbrowser.open(page.resolve().as_uri())


def build_page(folders: Sequence[Path], out: Path | None = None, path: str = "/") -> Path | None:
    """Write the page at a `path` of the server, and return its file; None if there is no such page.

    At `/` is the dashboard of one run, the comparison of several, or the index of a folder of runs, with links to them.
    """
    first = folders[0]
    is_index = not (first / "trials.jsonl").exists() and any(first.glob("*/trials.jsonl"))
    if path == "/":
        if len(folders) > 1:
            return write_comparison(folders, out or first.parent / "comparison.html")
        return write_index(first) if is_index else write_dashboard(first)
    name = path.removeprefix("/").removesuffix("dashboard.html").removesuffix("/")
    if len(folders) == 1 and is_index and name in {run.name for run in runs_in(first)}:
        return write_dashboard(first / name)
    return None


if __name__ == "__main__":
    main()
