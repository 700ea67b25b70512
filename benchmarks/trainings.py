"""Trainings for a comparison of networks or recipes: one process per core, each appended to a file when it ends."""

import argparse
import functools
import json
import multiprocessing
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

from dacnn_search.data.dataset import DataConfig, ImageData, load
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import estimate_cost
from dacnn_search.training.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """One training on all training images of `data`, those of the validation too, and its score on the test images."""

    name: str  # what is compared
    network: Architecture | int  # or the width of a `Separable`
    recipe: Recipe
    seed: int
    data: DataConfig
    teacher: Path | None = None  # the folder of an exported network

    @property
    def key(self) -> dict[str, Any]:
        """What tells this training from all others in the file."""
        return {
            "name": self.name,
            "network": f"separable {self.network}" if isinstance(self.network, int) else str(self.network),
            "recipe": self.recipe.model_dump(mode="json"),
            "seed": self.seed,
            "data": self.data.model_dump(mode="json"),
            "teacher": self.teacher and self.teacher.name,
        }


@functools.cache
def read_data(data: DataConfig) -> ImageData:
    """Return the images, those of the validation among those to train on."""
    return load(data).with_validation_in_train()


def train(job: Job) -> dict[str, Any]:
    """Do one training and return its record."""
    import torch
    from separable import Separable

    from dacnn_search.export.classifier import load_model
    from dacnn_search.training.device_data import ResidentData
    from dacnn_search.training.trainer import Training, build_seeded, evaluate

    torch.set_num_threads(1)
    data = read_data(job.data)
    shape, classes = data.input_shape, data.num_classes
    if isinstance(job.network, int):
        torch.manual_seed(job.seed)
        model: Any = Separable(job.network, shape[0], classes)
        parameters, macs = model.parameter_count, model.macs(shape)
    else:
        model = build_seeded(job.network, classes, shape[0], job.seed)
        cost = estimate_cost(job.network, shape, classes)
        parameters, macs = cost.parameters, cost.macs
    teacher = None if job.teacher is None else load_model(job.teacher).network
    training = Training(model, ResidentData(data), job.recipe, seed=job.seed, teacher=teacher)
    seconds = 0.0
    while not training.finished:
        seconds += training.run_epoch().seconds
    accuracy = evaluate(model, training.data, "test").accuracy
    figures = {"parameters": parameters, "macs": macs, "images": len(data.train), "precision": training.precision}
    return {**job.key, **figures, "test_accuracy": accuracy, "seconds": round(seconds, 1)}


def add_options(parser: argparse.ArgumentParser, epochs: int) -> None:
    """Add the options of a comparison."""
    parser.add_argument("--data", required=True, help="an .npz file, or the folder of Fashion-MNIST")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--subset", type=int, help="use only so many training images")
    add_work_options(parser)


def chosen_data(options: argparse.Namespace, validation: float = 0.0) -> DataConfig:
    """Return the data set that the options of a comparison name."""
    name = "npz" if options.data.endswith(".npz") else "fashion_mnist"
    return DataConfig(name=name, root=options.data, validation=validation, subset=options.subset)


def add_work_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where trainings are kept, and how many run at once."""
    parser.add_argument("--work", type=Path, required=True, help="file to which each training is appended")
    parser.add_argument("--processes", type=int, default=os.cpu_count())


def train_all(jobs: Sequence[Job], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Do the trainings that the work file does not have yet; return the records of all."""
    work: Path = options.work
    done = [json.loads(line) for line in work.read_text().splitlines()] if work.exists() else []
    missing = [job for job in jobs if not _records_of([job], done)]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool, work.open("a") as file:
        for record in pool.imap_unordered(train, missing, chunksize=1):
            done.append(record)
            print(json.dumps(record), file=file, flush=True)
            print(f"{record['parameters']:7,} {record['name']:45} {record['test_accuracy']:.2%}", flush=True)
    return _records_of(jobs, done)


def tabulate(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each name and network: mean and standard deviation of the test accuracy over seeds."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["name"], record["network"]), []).append(record)
    return [
        {
            **{name: own[0][name] for name in ("name", "network", "parameters", "macs", "images", "precision")},
            "epochs": own[0]["recipe"]["epochs"],
            "seeds": len(own),
            "accuracy": round(statistics.mean(r["test_accuracy"] for r in own), 5),
            "spread": round(statistics.stdev(r["test_accuracy"] for r in own), 5) if len(own) > 1 else None,
            "seconds": round(statistics.median(r["seconds"] for r in own), 1),
        }
        for own in groups.values()
    ]


def _records_of(jobs: Iterable[Job], records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for job in jobs for record in records if job.key.items() <= record.items()]
