"""What the recipe `best` is worth, beside `paper` and `fast`, at equal epochs, and what each part of it gives.

    python benchmarks/recipes.py --data cifar10.npz --subset 15000 --epochs 15 --seeds 3 --work recipes.jsonl

Three networks of 5,000 to 50,000 parameters are trained by each recipe, the middle one also by the steps from `fast` to
`best`, and scored on the test images once. Their teacher, a larger network with free weights, is trained first, unless
it lies beside the work file.
"""

from pathlib import Path
from typing import Any

from results_file import RESULTS, make_parser, write_figures
from trainings import Job, add_options, chosen_data, tabulate, train_all

from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.space.settings import TrainSettings
from dacnn_search.train import train_one
from dacnn_search.training.recipe import Recipe


def of(*sections: tuple[int, int], **fields: Any) -> Architecture:
    return Architecture(tuple(Section(depth, width) for depth, width in sections), **fields)


NETWORKS = {
    "small": of((2, 10), (3, 15), (3, 20), sharing="section", shortcuts="block"),
    "middle": of((1, 32), (1, 32), (2, 32), (6, 32), sharing="network", anchors=2, shortcuts="block"),
    "large": of((2, 20), (3, 30), (3, 40), sharing="section", shortcuts="block"),
}
TEACHER = of((2, 24), (2, 36), (2, 54), sharing="none", shortcuts="block")
CROP = 2
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {"name": "paper"},
    "fast, batches of 128": {"name": "fast", "batch_size": 128},
    "fast": {"name": "fast"},
    "best without crops and teacher": {"name": "best", "distillation": 0.0},
    "best without teacher": {"name": "best", "distillation": 0.0, "crop": CROP},
    "best": {"name": "best", "crop": CROP},
}
FOR_ALL = ("paper", "best")  # the others train the middle network alone


def main() -> None:
    """Train what is missing, then print and write a table."""
    parser = make_parser(__doc__, output=RESULTS / "recipes.json")
    add_options(parser, epochs=15)
    options = parser.parse_args()
    teacher: Path = options.work.with_suffix(".teacher")
    if not teacher.exists():
        recipe, data = Recipe(name="best", epochs=options.epochs, crop=CROP), chosen_data(options, validation=0.1)
        train_one(
            TrainSettings(architecture=TEACHER.to_dict(), data=data, recipe=recipe, seed=0, name="teacher"), teacher
        )
    jobs = [
        Job(
            name,
            network,
            Recipe(**given, epochs=options.epochs),
            seed,
            chosen_data(options),
            teacher if name == "best" else None,
        )
        for seed in range(options.seeds)
        for size, network in NETWORKS.items()
        for name, given in RECIPES.items()
        if size == "middle" or name in FOR_ALL
    ]
    table = tabulate(train_all(jobs, options))
    write_figures(options.output, {"table": table}, command=f"--epochs {options.epochs} --subset {options.subset}")


if __name__ == "__main__":
    main()
