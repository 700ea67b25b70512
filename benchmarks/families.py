"""Which way to share weights is best at which size: one hand-made network of each family and size, trained alike.

    python benchmarks/families.py --data cifar10.npz --sizes 10k 30k --epochs 20 --seeds 3

A family has one shape; its width is the largest with which it has no more parameters than a size. Each network is
trained on all training images by the recipe `best` without a teacher, and scored on the test images once. Trainings run
one per core; each is appended to a file when it ends, and what is there is not done again.
"""

import functools
import json
import multiprocessing
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

from results_file import RESULTS, make_parser, write_figures

from dacnn_search.common.units import parse_count
from dacnn_search.data.dataset import DataConfig, ImageData, load
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import estimate_cost
from dacnn_search.training.recipe import Recipe

SHALLOW, DEEP, PLAIN = (2, 1, 1), (4, 3, 3), (3, 3, 3)  # with transitions: one block a section, two, and no transition
MOST_WIDTH = 256


def shape(depths: tuple[int, ...], growth: float, **fields: Any) -> Callable[[int], Architecture]:
    """Return a function that makes a network of three sections from its first width."""

    def build(width: int) -> Architecture:
        widths = (int(width * growth**index + 0.5) for index in range(len(depths)))
        return Architecture(tuple(map(Section, depths, widths)), **{"shortcuts": "block", **fields})

    return build


FAMILIES = {
    "free weights, ResNet-8": shape(SHALLOW, 2, sharing="none"),
    "free weights, ResNet-14": shape(DEEP, 2, sharing="none"),
    "second layers shared (ShaResNet-14)": shape(DEEP, 2, sharing="second"),
    "section (mixed DACNN)": shape(DEEP, 1.5, sharing="section"),
    "section, history of 3": shape(DEEP, 1.5, sharing="section", shortcuts="history", history=3),
    "network (plain DACNN)": shape(PLAIN, 1, sharing="network"),
    "network, history of 5 (ThriftyNet)": shape(PLAIN, 1, sharing="network", shortcuts="history", history=5),
    "network, 2 anchors in turn": shape(PLAIN, 1, sharing="network", anchors=2),
    "network, 2 learned mixes": shape(PLAIN, 1, sharing="network", anchors=2, mixing="learned"),
    "network, 4 learned mixes, history of 5": shape(
        PLAIN, 1, sharing="network", anchors=4, mixing="learned", shortcuts="history", history=5
    ),
}


def network_of(family: str, size: int, data: ImageData) -> Architecture:
    """Return a family's widest network with at most `size` parameters."""
    networks = [FAMILIES[family](width) for width in range(1, MOST_WIDTH)]
    return max(
        (n for n in networks if estimate_cost(n, data.input_shape, data.num_classes).parameters <= size),
        key=lambda n: n.sections[0].width,
    )


@functools.cache
def read_data(path: str, subset: int | None) -> ImageData:
    known = {"root": path, "name": "npz"} if path.endswith(".npz") else {"root": path, "name": "fashion_mnist"}
    return load(DataConfig(**known, validation=0.0, subset=subset)).with_validation_in_train()


def train(job: tuple[str, int, int, str, int | None, int]) -> dict[str, Any]:
    """Train one network and return its record."""
    import torch

    from dacnn_search.training.device_data import ResidentData
    from dacnn_search.training.trainer import Training, build_seeded, evaluate

    family, size, seed, path, subset, epochs = job
    torch.set_num_threads(1)
    data = read_data(path, subset)
    network = network_of(family, size, data)
    model = build_seeded(network, data.num_classes, data.input_shape[0], seed)
    training = Training(model, ResidentData(data), Recipe(name="best", epochs=epochs), seed=seed)
    seconds = 0.0
    while not training.finished:
        seconds += training.run_epoch().seconds
    cost = estimate_cost(network, data.input_shape, data.num_classes)
    return {
        "family": family,
        "size": size,
        "seed": seed,
        "epochs": epochs,
        "images": len(data.train),
        "network": str(network),
        "parameters": cost.parameters,
        "macs": cost.macs,
        "test_accuracy": evaluate(model, training.data, "test").accuracy,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Train what is missing, then print and write a table."""
    parser = make_parser(__doc__, output=RESULTS / "families.json")
    parser.add_argument("--data", required=True, help="an .npz file, or the folder of Fashion-MNIST")
    parser.add_argument("--sizes", nargs="+", type=parse_count, default=[10_000, 30_000], help="parameters at most")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--subset", type=int, help="use only so many training images")
    work = "file to which each training is appended; one per --data and --subset"
    parser.add_argument("--work", type=Path, required=True, help=work)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    done = [json.loads(line) for line in options.work.read_text().splitlines()] if options.work.exists() else []
    keys = {(r["family"], r["size"], r["seed"], r["epochs"]) for r in done}
    missing = [
        (family, size, seed, options.data, options.subset, options.epochs)
        for seed in range(options.seeds)
        for size in options.sizes
        for family in FAMILIES
        if (family, size, seed, options.epochs) not in keys
    ]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool, options.work.open("a") as file:
        for record in pool.imap_unordered(train, missing, chunksize=1):
            done.append(record)
            print(json.dumps(record), file=file, flush=True)
            print(f"{record['size']:6,} {record['family']:40} {record['test_accuracy']:.2%}", flush=True)
    figures = {f"{size}": table(done, size, options) for size in options.sizes}
    write_figures(options.output, figures, command=f"--epochs {options.epochs} --seeds {options.seeds}")


def table(records: list[dict[str, Any]], size: int, options: Any) -> list[dict[str, Any]]:
    """Return one row for each family of a size, the most accurate first."""
    rows = []
    for family in FAMILIES:
        own = [r for r in records if (r["family"], r["size"], r["epochs"]) == (family, size, options.epochs)]
        accuracies = [r["test_accuracy"] for r in own if r["seed"] < options.seeds]
        row = {name: own[0][name] for name in ("family", "network", "parameters", "macs", "epochs", "images")}
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else None
        rows.append({**row, "seeds": len(accuracies), "accuracy": statistics.mean(accuracies), "spread": spread})
    return sorted(rows, key=lambda row: -row["accuracy"])


if __name__ == "__main__":
    main()
