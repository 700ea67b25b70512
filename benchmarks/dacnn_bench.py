"""Make a table of DACNN-Bench: the learning curves of all networks of a search space, or of a sample of them.

    python benchmarks/dacnn_bench.py benchmarks/dacnn_bench/digits.yaml --work FOLDER
    python benchmarks/dacnn_bench.py benchmarks/dacnn_bench/digits.yaml --work FOLDER --pack

The first command trains, at low priority with one thread per process, and appends each result to a file in FOLDER;
killed and started again it goes on where it was. The second packs the results into a Parquet file beside the YAML.
Networks are trained in the order of their fingerprints, which are hashes: any beginning is a random sample. A quarter
of the networks (fingerprints whose first digits, as a number, are divisible by 4) is trained with a second seed.

`--networks N` trains N random networks of a larger space. `--epochs N` trains by a shorter schedule, complete in
itself; its results have a FOLDER and a table (`digits-3.parquet`) of their own.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

from results_file import make_parser

from dacnn_search.network.architecture import Architecture
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.training.recipe import Recipe

MOST_TEST_IMAGES = 1500  # scored after each epoch; where there are more, the first ones
CURVES = ("validation_accuracy", "validation_loss", "test_accuracy", "seconds")
Job = tuple[str, int]  # fingerprint, seed


def jobs_of(networks: dict[str, Architecture]) -> list[Job]:
    """Return the trainings of the table: each network with seed 0, a quarter of them with seed 1."""
    ordered = sorted(networks)
    return [(f, 0) for f in ordered] + [(f, 1) for f in ordered if int(f[:8], 16) % 4 == 0]


def networks_of(space: SearchSpace, count: int | None = None) -> dict[str, Architecture]:
    """Return all networks of a space by fingerprint, or `count` random ones, always the same."""
    if count is None:
        return {architecture.fingerprint: architecture for architecture, _ in space.networks()}
    generator, networks = random.Random(0), {}
    while len(networks) < count:
        architecture, _ = space.draw(generator)
        networks[architecture.fingerprint] = architecture
    return networks


def read_results(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield all results in a work folder; a line that was torn by a kill is left out."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def train_jobs(path: Path, jobs: list[Job], output: Path, count: int | None, epochs: int | None) -> None:
    """Train each job and append its curves to a file. Runs in a process of its own."""
    os.nice(19 - os.nice(0))
    import torch

    from dacnn_search.data.dataset import Split, load
    from dacnn_search.training.device_data import ResidentData
    from dacnn_search.training.trainer import Training, build_seeded, evaluate

    torch.set_num_threads(1)
    space = SearchSpace.from_yaml(path)
    networks = networks_of(space, count)
    recipe = recipe_of(space, epochs)
    images = load(space.settings.data)
    test = Split(images.test.images[:MOST_TEST_IMAGES], images.test.labels[:MOST_TEST_IMAGES])
    data = ResidentData(dataclasses.replace(images, test=test), "cpu")
    with output.open("a", encoding="utf-8") as file:
        file.write("\n")  # so that a torn last line stays alone
        for fingerprint, seed in jobs:
            model = build_seeded(networks[fingerprint], space.num_classes, space.input_shape[0], seed)
            training = Training(model, data, recipe, seed=seed)
            curves: dict[str, list[float]] = {name: [] for name in CURVES}
            while not training.finished:
                begun = time.process_time()
                result = training.run_epoch()
                curves["seconds"].append(time.process_time() - begun)  # others use the machine too
                curves["validation_accuracy"].append(result.validation_accuracy or 0.0)
                curves["validation_loss"].append(result.validation_loss or 0.0)
                curves["test_accuracy"].append(evaluate(model, data, "test").accuracy)
            rounded = {name: [round(value, 6) for value in values] for name, values in curves.items()}
            file.write(json.dumps({"fingerprint": fingerprint, "seed": seed, **rounded}) + "\n")
            file.flush()


def recipe_of(space: SearchSpace, epochs: int | None) -> Recipe:
    """Return the recipe of a space, with other epochs if they are given."""
    recipe = space.settings.recipe
    return recipe if epochs is None else recipe.model_copy(update={"epochs": epochs})


def train_all(options: argparse.Namespace) -> None:
    """Train what the work folder does not have yet."""
    folder, processes = options.work, options.processes
    folder.mkdir(parents=True, exist_ok=True)
    done = {(result["fingerprint"], result["seed"]) for result in read_results(folder)}
    networks = networks_of(SearchSpace.from_yaml(options.space), options.networks)
    jobs = [job for job in jobs_of(networks) if job not in done]
    print(f"{len(done)} done, {len(jobs)} to do", flush=True)
    begun = time.monotonic()
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(
            target=train_jobs,
            args=(options.space, jobs[i::processes], folder / f"worker-{i}.jsonl", options.networks, options.epochs),
        )
        for i in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(f"{len(jobs)} trained in {time.monotonic() - begun:.0f} s", flush=True)


def pack(path: Path, folder: Path, output: Path, count: int | None = None) -> None:
    """Write the table: a row per training, in the order of `jobs_of`."""
    import numpy as np
    import pyarrow
    import pyarrow.parquet

    space = SearchSpace.from_yaml(path)
    networks = networks_of(space, count)
    results = {(result["fingerprint"], result["seed"]): result for result in read_results(folder)}
    jobs = [job for job in jobs_of(networks) if job in results]
    costs = [space.cost(networks[fingerprint]) for fingerprint, _ in jobs]
    columns: dict[str, Any] = {
        "fingerprint": [fingerprint for fingerprint, _ in jobs],
        "seed": np.array([seed for _, seed in jobs], np.int8),
        "architecture": [json.dumps(networks[fingerprint].to_dict()) for fingerprint, _ in jobs],
        "parameters": np.array([cost.parameters for cost in costs], np.int32),
        "macs": np.array([cost.macs for cost in costs], np.int32),
    }
    for name in CURVES:
        curves = np.array([results[job][name] for job in jobs], np.float32)
        columns[name] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(curves.ravel()), curves.shape[1])
    summary = json.dumps(dataclasses.asdict(space.summary))
    table = pyarrow.table(columns).replace_schema_metadata({"summary": summary})  # so that nobody needs the images
    pyarrow.parquet.write_table(table, output, compression="zstd", compression_level=19)
    missing = len(jobs_of(networks)) - len(jobs)
    print(f"{output}: {len(jobs)} trainings of {len(networks)} networks, {missing} missing, {output.stat().st_size} B")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("space", type=Path, help="YAML file of the space")
    parser.add_argument("--work", type=Path, required=True, help="folder for the results so far")
    parser.add_argument("--networks", type=int, help="so many random networks instead of all")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--pack", action="store_true", help="train nothing, write the Parquet file")
    options = parser.parse_args()
    if options.pack:
        suffix = "" if options.epochs is None else f"-{options.epochs}"
        output = options.space.with_name(f"{options.space.stem}{suffix}.parquet")
        pack(options.space, options.work, output, options.networks)
    else:
        train_all(options)


if __name__ == "__main__":
    main()
