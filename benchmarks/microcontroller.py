"""Measure networks as C code on Arm cores: accuracy, flash, RAM, and instructions per image.

    python benchmarks/microcontroller.py results/digits

Each argument is a run directory, whose retrained networks are taken, or the folder of one network. Each network is
exported as C code with 8-bit integers, which must give the scores of its reference on all test images, bit for bit.
Flash and RAM are those of the plan in closed form, whose code is that of a Cortex-M4, and those that the compiled code
takes on each core (`arm-none-eabi-gcc -O2`). Each core classifies a few test images in QEMU, which must give the same
scores, while instructions are counted: not cycles, of which a load from slow flash takes several.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from results_file import RESULTS, make_parser, write_figures

from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.data.dataset import load
from dacnn_search.export.c.compiler import TARGETS, run_in_qemu, run_on_host
from dacnn_search.export.c.options import CodeOptions
from dacnn_search.export.exporter import export_folder, export_run
from dacnn_search.export.folder import CODE, read_config, read_metrics
from dacnn_search.export.formats import Formats
from dacnn_search.storage.run_directory import RunDirectory

IMAGES = 4  # that QEMU classifies with each network


def export(source: Path, to: Path) -> list[Path]:
    """Export the networks of a run directory, or the network of a folder, as C code, the smallest first."""
    formats = Formats(("c",), code=CodeOptions(targets=TARGETS))
    if (source / "trials.jsonl").is_file():
        return sorted(export_run(RunDirectory(source), to, formats))
    return [export_folder(source, to, formats)]


def measure(folder: Path) -> dict[str, Any]:
    """Return what is known of one exported network."""
    config, metrics = read_config(folder), read_metrics(folder)
    images = load(config.data).test.images[:IMAGES]
    code = metrics[CODE]
    cores = {}
    for target in TARGETS:
        scores, classes, instructions = run_in_qemu(folder / CODE, target, images)
        expected_scores, expected_classes = run_on_host(folder / CODE, images)
        if not (np.array_equal(scores, expected_scores) and np.array_equal(classes, expected_classes)):
            raise AssertionError(f"{folder}: {target} must give the scores that this computer gives")
        cores[target] = {**code["targets"][target], "instructions": instructions}
    return {
        "data": metrics["training"]["data"],
        "network": metrics["network"],
        "parameters": metrics["parameters"],
        "macs": metrics["macs"],
        "images": code["images"],
        "accuracy": {"float32": code["float_accuracy"], "int8": code["accuracy"]},
        "planned": {"flash": code["flash"], "ram": code["ram"]},
        "cores": cores,
    }


def row(network: dict[str, Any]) -> str:
    """Return a line of the table."""
    accuracy, planned, cores = network["accuracy"], network["planned"], network["cores"].values()
    cells = (
        network["network"],
        f"{network['parameters']:,}",
        f"{accuracy['float32']:.2%}",
        f"{accuracy['int8']:.2%}",
        f"{planned['flash']:,}",
        " / ".join(f"{core['flash']:,}" for core in cores),
        f"{planned['ram']:,}",
        " / ".join(f"{core['instructions'] / 1e6:.2f}M" for core in cores),
    )
    return f"| {' | '.join(cells)} |"


def summarise(networks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures: what the integers cost in accuracy, how exact the plan is (the largest difference), speed."""
    lost = [network["accuracy"]["float32"] - network["accuracy"]["int8"] for network in networks]
    figures = {"networks": len(networks), "most_points_lost": round(100 * max(lost), 2)}
    for target in TARGETS:
        over = {kind: [n["cores"][target][kind] - n["planned"][kind] for n in networks] for kind in ("flash", "ram")}
        per_mac = [network["cores"][target]["instructions"] / network["macs"] for network in networks]
        figures[target] = {
            "flash_over_plan": max(over["flash"], key=abs),
            "ram_over_plan": max(over["ram"], key=abs),
            "instructions_per_mac": round(statistics.median(per_mac), 2),
        }
    return figures


def main() -> None:
    parser = make_parser(__doc__, output=RESULTS / "microcontroller.json")
    parser.add_argument("sources", type=Path, nargs="+", help="run directories, folders of networks")
    options = parser.parse_args()
    networks = []
    cores = " / ".join(TARGETS)
    print(f"| network | parameters | float32 | int8 | flash, planned | flash, {cores} | RAM | instructions, {cores} |")
    print("|" + 8 * "---|")
    try:
        with tempfile.TemporaryDirectory() as to:
            for number, source in enumerate(options.sources):
                for folder in export(source, Path(to, str(number))):
                    networks.append(measure(folder))
                    print(row(networks[-1]), flush=True)
    except DacnnSearchError as error:
        sys.exit(str(error))
    figures = summarise(networks)
    write_figures(options.output, figures, networks=networks)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
