"""Write the dashboard of a run again, compare several: `python -m dacnn_search.dashboard results/digits`."""

import webbrowser
from pathlib import Path

import click

from dacnn_search.common.command import PATH, Parsed, command
from dacnn_search.common.errors import InputError
from dacnn_search.dashboard.page import runs_in, write_comparison, write_dashboard, write_figure, write_index
from dacnn_search.dashboard.payload import read_run
from dacnn_search.dashboard.server import make_server
from dacnn_search.dashboard.tensorboard import write_tensorboard


def _port(text: str) -> int:
    """A port's number. Raises ValueError for anything else, such as a run directory that stands behind `--serve`."""
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
    folders = list(runs)
    if image or tensorboard:
        if serve is not None or open_page:
            raise InputError(
                "--image and --tensorboard write files and show none: --serve and --open can't go with them"
            )
        if len(folders) > 1:
            raise InputError(f"--image and --tensorboard take one run, but got {len(folders)}")
        if image:
            print(write_figure(folders[0], image))
        if tensorboard:
            print(write_tensorboard(folders[0], read_run(folders[0]).records, anew=True))
        return

    if out and len(folders) == 1:
        raise InputError("--out is only used with several runs, which are compared")

    def build(path: str = "/") -> Path | None:
        if len(folders) > 1:
            return write_comparison(folders, out or folders[0].parent / "comparison.html") if path == "/" else None
        if not (folders[0] / "trials.jsonl").exists() and any(folders[0].glob("*/trials.jsonl")):
            return page_of_index(folders[0], path)
        return write_dashboard(folders[0]) if path == "/" else None

    page = build()
    assert page is not None
    print(page)
    if serve is not None:
        with make_server(build, serve) as server:
            address = f"http://127.0.0.1:{server.server_port}/"
            print(f"Serving {address} until Ctrl-C", flush=True)
            if open_page:
                webbrowser.open(address)
            server.serve_forever()
    elif open_page:
        webbrowser.open(page.resolve().as_uri())


def page_of_index(results: Path, path: str) -> Path | None:
    """The index of a folder of runs or, where its links lead, the page of one of these."""
    if path == "/":
        return write_index(results)
    name = path.removeprefix("/").removesuffix("dashboard.html").removesuffix("/")
    return write_dashboard(results / name) if name in {run.name for run in runs_in(results)} else None


if __name__ == "__main__":
    main()
