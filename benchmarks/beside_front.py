"""What sharing and search are worth: free weights and hand-made networks, trained as the front of a run was.

    python benchmarks/beside_front.py results/cifar10_50k --free results/cifar10_50k_free --work beside.jsonl

The networks of the run that were trained in full are compared with MLPerf Tiny's ResNet-8 and, at each of their sizes,
with the best network of free weights that a search of its own found in the same space, and the widest network of some
families of `families.py`. All are trained by the run's recipe, taught by its teacher, with as many seeds, and scored on
the test images once. Trainings run one per core; what the work file has is not done again.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from families import FAMILIES, network_of
from results_file import RESULTS, make_parser, write_figures
from trainings import Job, add_work_options, read_data, tabulate, train_all

from dacnn_search.common.units import parse_count
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.zoo import get
from dacnn_search.storage.front import best_under
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.storage.trained import deviation_of

HAND_MADE = ("free weights, ResNet-8", "free weights, MobileNet-like")
SEARCHED, SEARCHED_FREE, RESNET = "found by the search", "free weights, found by the search", "ResNet-8 of MLPerf Tiny"


def main() -> None:
    """Train what is missing, then print and write a table."""
    parser = make_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="FOLDER", help="run directory whose front was trained in full")
    parser.add_argument("--free", type=Path, metavar="FOLDER", help="run of the same space with `sharing: none`")
    parser.add_argument("--families", nargs="*", choices=list(FAMILIES), default=HAND_MADE, metavar="NAME")
    parser.add_argument("--sizes", nargs="+", type=parse_count, help="parameters at most (default: the front's)")
    parser.add_argument("--output", type=Path, help="(default: results/beside-<name of the run>.json)")
    add_work_options(parser)
    options = parser.parse_args()
    run = RunDirectory(options.run)
    table = [*retrained(run), *tabulate(train_all(list(rivals(run, options)), options))]
    table.sort(key=lambda row: row["parameters"])
    for row in table:
        print(f"{row['parameters']:7,} {row['macs']:11,} {row['accuracy']:.2%} {row['name']}: {row['network']}")
    output = options.output or RESULTS / f"beside-{run.name}.json"
    write_figures(output, {"table": table}, command=f"{run.name} --families {' '.join(map(repr, options.families))}")


def rivals(run: RunDirectory, options: argparse.Namespace) -> Iterator[Job]:
    """Yield the trainings of all networks but the retrained ones."""
    data = run.space.settings.data
    recipe = run.space.settings.retrain.full_recipe(run.space.settings.recipe)
    teacher = next((n for n in run.networks if n.fingerprint == run.front[-1]["fingerprint"]), None)
    if teacher is None:
        raise SystemExit(f"{run.folder}: the most accurate network of the front must be trained in full, but is not")
    images = read_data(data)
    free = RunDirectory(options.free).front if options.free else []
    networks: dict[Architecture | int, str] = {get("resnet8"): RESNET}
    for size in options.sizes or [network.parameters for network in run.networks]:
        networks |= {network_of(family, size, images): family for family in options.families}
        if record := best_under(free, size):
            networks[Architecture.from_dict(record["architecture"])] = SEARCHED_FREE
    for seed in range(run.space.settings.retrain.seeds):
        for network, name in networks.items():
            yield Job(name, network, recipe, seed, data, teacher.folder)


def retrained(run: RunDirectory) -> Iterator[dict[str, Any]]:
    """Yield the rows of the networks of the run that were trained in full."""
    for network in run.networks:
        first, deviation = network.records[0], deviation_of(network.tested)
        yield {
            "name": SEARCHED,
            "network": str(network.architecture),
            "parameters": network.parameters,
            "macs": network.macs,
            "images": first["train_images"],
            "epochs": first["epochs"],
            "seeds": len(network.records),
            "accuracy": round(network.accuracy, 5),
            "spread": deviation and round(deviation, 5),
        }


if __name__ == "__main__":
    main()
