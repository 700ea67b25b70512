"""Which way to share weights is best at which size: one hand-made network of each family and size, trained alike.

    python benchmarks/families.py --data cifar10.npz --sizes 5k 20k --subset 15000 --seeds 3 --work families.jsonl

A family has one shape; its width is the largest with which it has no more parameters than a size. Each network is
trained by the recipe `best`, with or without a teacher, and scored on the test images once.
Trainings run one per core; what the work file has is not done again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from results_file import RESULTS, make_parser, write_figures
from separable import Separable
from trainings import Job, add_options, chosen_data, read_data, tabulate, train_all

from dacnn_search.common.units import parse_count
from dacnn_search.data.dataset import ImageData
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import estimate_cost
from dacnn_search.training.recipe import Recipe

SHALLOW, DEEP, PLAIN = (2, 1, 1), (4, 3, 3), (3, 3, 3)  # with transitions: one block a section, two, and no transition
MOST_WIDTH, STEP = 256, 0.25  # of the first section; the widths of all sections are rounded
Build = Callable[[float], Architecture | int]  # from the first width; an int is the width of a `Separable`


def shape(depths: tuple[int, ...], growth: float, **fields: Any) -> Build:
    """Return a function that makes a network of three sections from its first width."""

    def build(width: float) -> Architecture:
        widths = (int(width * growth**index + 0.5) for index in range(len(depths)))
        return Architecture(tuple(map(Section, depths, widths)), **{"shortcuts": "block", **fields})

    return build


FAMILIES: dict[str, Build] = {
    "free weights, ResNet-8": shape(SHALLOW, 2, sharing="none"),
    "free weights, ResNet-14": shape(DEEP, 2, sharing="none"),
    "free weights, MobileNet-like": int,
    "free weights, separable": shape(DEEP, 2, sharing="none", convolutions="separable"),
    "second layers shared (ShaResNet-14)": shape(DEEP, 2, sharing="second"),
    "section (mixed DACNN)": shape(DEEP, 1.5, sharing="section"),
    "section, separable": shape(DEEP, 1.5, sharing="section", convolutions="separable"),
    "section, history of 3": shape(DEEP, 1.5, sharing="section", shortcuts="history", history=3),
    "network (plain DACNN)": shape(PLAIN, 1, sharing="network"),
    "network, history of 5 (ThriftyNet)": shape(PLAIN, 1, sharing="network", shortcuts="history", history=5),
    "network, history of 5, separable (ThriftyNet)": shape(
        PLAIN, 1, sharing="network", shortcuts="history", history=5, convolutions="separable"
    ),
    "network, 2 anchors in turn": shape(PLAIN, 1, sharing="network", anchors=2),
    "network, 2 learned mixes": shape(PLAIN, 1, sharing="network", anchors=2, mixing="learned"),
    "network, 4 learned mixes, history of 5": shape(
        PLAIN, 1, sharing="network", anchors=4, mixing="learned", shortcuts="history", history=5
    ),
}


def network_of(family: str, size: int, data: ImageData) -> Architecture | int:
    """Return a family's widest network with at most `size` parameters. Ends the program if none is as small."""

    def parameters(network: Architecture | int) -> int:
        if isinstance(network, int):
            return Separable(network, data.input_shape[0], data.num_classes).parameter_count
        return estimate_cost(network, data.input_shape, data.num_classes).parameters

    widths = (step * STEP for step in range(int(MOST_WIDTH / STEP), int(1 / STEP) - 1, -1))
    fitting = (network for network in map(FAMILIES[family], widths) if parameters(network) <= size)
    if network := next(fitting, None):
        return network
    raise SystemExit(f"{family}: no network has at most {size} parameters")


def main() -> None:
    """Train what is missing, then print and write a table."""
    parser = make_parser(__doc__, output=RESULTS / "families.json")
    add_options(parser, epochs=15)
    parser.add_argument("--sizes", nargs="+", type=parse_count, default=[5_000, 20_000], help="parameters at most")
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES), metavar="NAME")
    parser.add_argument("--crop", type=int, default=0, help="shift images by up to so many pixels")
    parser.add_argument("--teacher", type=Path, metavar="FOLDER", help="exported network that teaches all of them")
    options = parser.parse_args()
    data = chosen_data(options)
    images = read_data(data)
    recipe = Recipe(name="best", epochs=options.epochs, crop=options.crop)
    figures = {}
    jobs = {
        size: [
            Job(family, network_of(family, size, images), recipe, seed, data, options.teacher)
            for seed in range(options.seeds)
            for family in options.families
        ]
        for size in options.sizes
    }
    records = train_all([job for of_size in jobs.values() for job in of_size], options)
    for size, of_size in jobs.items():
        own = [record for job in of_size for record in records if job.key.items() <= record.items()]
        figures[f"{size}"] = sorted(tabulate(own), key=lambda row: -row["accuracy"])
    command = f"--epochs {options.epochs} --seeds {options.seeds} --subset {options.subset} --crop {options.crop}"
    write_figures(options.output, figures, command=command)


if __name__ == "__main__":
    main()
