"""The C export beside other tools, on the same networks: bytes, copies of a shared kernel, RAM, accuracy.

    python benchmarks/microcontroller_peers.py --quick
    python benchmarks/microcontroller_peers.py --python litert=PATH --python executorch=PATH --python emx=PATH

Two networks are trained: `plain`, on digits, uses one kernel 18 times; `mixed`, on Fashion-MNIST, has three kernels
that are used 3 times each, and regulators. Every tool of `microcontroller_tools.py` writes and runs them. Tools can't
share an environment; `--python` names the interpreter that has one, in an environment with this package and

    litert       litert-torch ai-edge-quantizer
    executorch   "executorch[ethos-u]"
    bakenn       BakeNN, and torch below 2.11 (that of litert will do)
    emx          emx-onnx-cgen, which needs no other package

A tool whose package is missing gets a line that says so. gcc is needed as well. All took 9 minutes on two busy cores,
after 2 minutes of training.

All run the same test images. They are calibrated with 100 validation images, except for our own export, which takes up
to 512, and BakeNN (see there). Copies are counted by structure: constants with as many elements as a shared kernel.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from microcontroller_tools import TOOLS
from results_file import RESULTS, make_parser, write_figures

from dacnn_search import load_model
from dacnn_search.data.dataset import DataConfig, load
from dacnn_search.export.exporter import export_folder
from dacnn_search.export.formats import Formats
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.space.settings import TrainSettings
from dacnn_search.train import train_one
from dacnn_search.training.recipe import Recipe

PLAIN = Architecture((Section(9, 32), Section(9, 32)), sharing="network")
MIXED = Architecture((Section(3, 8, "block"), Section(3, 16, "block"), Section(3, 32, "block")), sharing="section")
NETWORKS = {
    "plain": (PLAIN, DataConfig(name="digits"), Recipe()),
    "mixed": (MIXED, DataConfig(name="fashion_mnist"), Recipe(epochs=4, batch_size=128)),
}
IMAGES, CALIBRATION = 500, 100  # at most: of the test, of the validation
SECONDS = 1800  # for one tool
COLUMNS = "{:<28} {:>9} {:>9} {:>11} {:>9} {:<14} {:>8} {:>7}"


def prepare(name: str, folder: Path) -> np.ndarray:
    """Train and export a network, unless the folder has it, and write the images. Return the labels of the test."""
    architecture, source, recipe = NETWORKS[name]
    if not folder.exists():
        settings = TrainSettings(architecture=architecture.to_dict(), data=source, recipe=recipe, name=name)
        train_one(settings, folder, say=lambda _: None)
        export_folder(folder, None, Formats(("onnx", "c"), int8=True))
    data = load(source)
    np.save(folder / "images.npy", data.test.images[:IMAGES])
    np.save(folder / "calibration.npy", data.validation.images[:CALIBRATION])
    return data.test.labels[:IMAGES]


def run_tool(tool: str, python: str, folder: Path) -> dict[str, Any]:
    """Return what a tool reports. If it fails, that is the last line of its message, under `failed`."""
    script = Path(__file__).with_name("microcontroller_tools.py")
    (folder / f"{tool}.log").unlink(missing_ok=True)
    done = subprocess.run(
        [python, script, tool, folder],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    (folder / f"{tool}.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def measure(tool: str, python: str, name: str, folder: Path, labels: np.ndarray) -> dict[str, Any]:
    report = run_tool(tool, python, folder)
    if "failed" in report:
        return report
    scores, constants = np.load(folder / f"{tool}.npy"), report.pop("constants")
    reference = load_model(folder).logits(np.load(folder / "images.npy"))
    kernels = shared_kernels(NETWORKS[name][0])
    stored = sum(elements in kernels for elements, _ in constants)
    return report | {
        "constant_bytes": sum(size for _, size in constants),
        "copies": stored,
        "kernels": len(kernels),
        "uses": sum(kernels.values()),
        "accuracy": round(float((scores.argmax(1) == labels).mean()), 4),
        "same_answers": round(float((scores.argmax(1) == reference.argmax(1)).mean()), 4),
    }


def measure_all(
    tools: list[str], pythons: dict[str, str], name: str, folder: Path, labels: np.ndarray
) -> dict[str, Any]:
    """Measure tools one after the other, since some go on from another's files, and print their table."""
    found = {
        tool: measure(tool, pythons.get(tool.split("-")[0], sys.executable), name, folder, labels) for tool in tools
    }
    heading = COLUMNS.format("", "bytes", "constants", "copies/uses", "RAM", "told by", "accuracy", "same")
    lines = [show(tool, report) for tool, report in found.items()]
    print("", f"{name}: {NETWORKS[name][0]}; {len(labels)} test images", heading, *lines, sep="\n", flush=True)
    return found


def shared_kernels(architecture: Architecture) -> dict[int, int]:
    """Return how often each kernel is used that is used more than once, by its elements: all differ in size here."""
    uses = Counter(9 * layer.in_width * layer.width for block in architecture.blocks for layer in block.layers)
    return {elements: count for elements, count in uses.items() if count > 1}


def show(tool: str, found: dict[str, Any]) -> str:
    if "failed" in found:
        return f"{tool:<28} {found['failed']}"
    copies = f"{found['copies']} / {found['uses']}"
    ram = f"{found['ram']:,}" if "ram" in found else "?"
    sizes = f"{found['bytes']:,}", f"{found['constant_bytes']:,}"
    shares = f"{found['accuracy']:.1%}", f"{found['same_answers']:.1%}"
    return COLUMNS.format(tool, *sizes, copies, ram, found.get("ram_by", "not stated"), *shares)


def main() -> None:
    parser = make_parser(__doc__, "the network for digits alone", RESULTS / "microcontroller_peers.json")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="see above")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--folder", type=Path, help="keep the networks here, and use those that are here")
    options = parser.parse_args()
    pythons = dict(given.split("=", 1) for given in options.python)
    names = ["plain"] if options.quick else list(NETWORKS)
    with tempfile.TemporaryDirectory(prefix="peers-") as temporary, ThreadPoolExecutor() as pool:
        folders = [(options.folder or Path(temporary)).absolute() / name for name in names]
        labels = [prepare(*given) for given in zip(names, folders, strict=True)]
        found = pool.map(lambda *given: measure_all(options.tools, pythons, *given), names, folders, labels)
        figures = dict(zip(names, found, strict=True))
    write_figures(options.output, figures, quick=options.quick)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
