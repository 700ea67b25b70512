"""Training throughput on a GPU: against the naive loop, against the convolutions, packed, and of the paper's networks.

    python benchmarks/gpu.py --quick

Like `throughput.py`, with wall time between synchronisations of the GPU; ours is compiled where a training of 90 epochs
of 50,000 images would be, and compiling is not timed. The naive loop and the convolutions may choose their algorithms
freely (`cudnn.benchmark`); ours may not, as it gives the same numbers every time. Then: images/s of the networks of the
zoo (of some of them with `--quick`) and the share of the GPU's peak in bfloat16 that their convolutions are; trainings
per hour of several processes on one GPU against one at a time; and the time of a whole DACNN-18 (MIX,REG) training of
90 epochs on 50,000 images, without looks at test images, extrapolated from a few epochs on fewer. Images are random
ones in the format of CIFAR-10. Without a GPU it ends with exit code 2.
"""

import argparse
import dataclasses
import datetime
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from throughput import RESULTS, Case, Convolutions, NaiveTraining, cases, make_data
from torch import nn

from dacnn_search import zoo
from dacnn_search.architecture import Architecture, Section
from dacnn_search.cost import estimate_cost
from dacnn_search.data import ImageData
from dacnn_search.packing import Machine, demand_of, pack
from dacnn_search.recipe import Recipe
from dacnn_search.run_directory import package_versions
from dacnn_search.training import Training, build_seeded, is_compiled
from dacnn_search.trainings.resident import ResidentData

# Dense bfloat16 of tensor cores in FLOP/s, from the makers' data sheets; the name as `nvidia-smi` begins it.
PEAKS = {"NVIDIA H200": 989e12, "NVIDIA H100": 989e12, "NVIDIA A100": 312e12, "NVIDIA L40S": 362e12}
WHOLE_EPOCHS, WHOLE_IMAGES = 90, 50_000
QUICK_ZOO = ("dacnn18", "dacnn18-reg", "dacnn18-mix", "dacnn18-mix-reg", "vgg", "resnet18")
PACKED_NETWORK = Architecture(tuple(Section(2, width) for width in (16, 32, 64)))  # 73k parameters
FLOOR_STEPS = 50  # between two synchronisations
GPU = torch.device("cuda", 0)


class NaiveGpuTraining(NaiveTraining):
    """The naive script with `.to(device)`, and worker processes that prepare the images."""

    def __init__(self, model: nn.Module, data: ImageData, recipe: Recipe) -> None:
        super().__init__(model.to(GPU), data, recipe)
        more: dict[str, Any] = {"num_workers": 4, "persistent_workers": True, "pin_memory": True}
        train, validation = self.train_loader.dataset, self.validation_loader.dataset
        self.train_loader = _Moved(train, recipe.batch_size, shuffle=True, **more)
        self.validation_loader = _Moved(validation, 256, **more)


class _Moved(torch.utils.data.DataLoader):
    """A DataLoader whose batches are on the GPU."""

    def __iter__(self) -> Any:
        for images, labels in super().__iter__():
            yield images.to(GPU, non_blocking=True), labels.to(GPU, non_blocking=True)


def seconds(run: Callable[[], Any], rounds: int, warm_up: int = 2) -> float:
    """Median wall time of a call, the GPU's work included."""
    times = []
    for number in range(warm_up + rounds):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        run()
        torch.cuda.synchronize()
        if number >= warm_up:
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def make_training(architecture: Architecture, data: ResidentData, recipe: Recipe) -> Training:
    return Training(build_seeded(architecture, data.num_classes, data.input_shape[0], 0), data, recipe)


def whole(recipe: Recipe, images: int) -> Recipe:
    """The recipe with as many steps as 90 epochs of 50,000 images have, for as long is decided whether to compile."""
    return recipe.model_copy(update={"epochs": WHOLE_EPOCHS * WHOLE_IMAGES // images})


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Epochs of ours and of the naive loop, and the convolutions of as many steps."""
    data = make_data(case)
    recipe = whole(case.recipe, len(data.train))
    ours = make_training(case.architecture, ResidentData(data, GPU), recipe)
    naive = NaiveGpuTraining(build_seeded(case.architecture, 10, data.input_shape[0], 0), data, case.recipe)
    floor = Convolutions(case.architecture, data.input_shape, case.recipe.batch_size, ours.precision)
    floor.calls = [tuple(tensor.to(GPU) for tensor in call) for call in floor.calls]

    def run_floor() -> None:
        for _ in range(FLOOR_STEPS):
            floor.run_step()

    epoch = seconds(ours.run_epoch, rounds)
    step = seconds(ours._train_epoch, rounds) / len(data.train) * case.recipe.batch_size
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    naive_epoch, floor_step = seconds(naive.run_epoch, rounds), seconds(run_floor, rounds) / FLOOR_STEPS
    torch.backends.cudnn.benchmark = False
    return {
        "kind": case.kind,
        "network": str(case.architecture),
        "batch_size": case.recipe.batch_size,
        "precision": str(ours.precision).removeprefix("torch."),
        "compiled": is_compiled(recipe, case.architecture, data, GPU),
        "images_per_second": round(len(data.train) / epoch, 1),
        "naive_images_per_second": round(len(data.train) / naive_epoch, 1),
        "vs_naive": round(naive_epoch / epoch, 3),
        "share_of_convolutions": round(floor_step / step, 3),
    }


def measure_zoo(
    networks: Iterable[str], data: ResidentData, rounds: int, peak: float | None
) -> dict[str, dict[str, float | None]]:
    """Images/s of the paper's networks, and the share of the GPU's peak that the arithmetic of a step is."""
    found = {}
    for name in networks:
        architecture = zoo.get(name)
        training = make_training(architecture, data, whole(Recipe(batch_size=128), len(data.train)))
        rate = len(data.train) / seconds(training._train_epoch, rounds)
        flops = 6.0 * estimate_cost(architecture, data.input_shape, data.num_classes).macs * rate
        found[name] = {"images_per_second": round(rate, 1), "share_of_peak": peak and round(flops / peak, 4)}
        print(f"{name:24} {rate:12,.0f} images/s", flush=True)
    return found


def whole_training(data: ResidentData, epochs: int) -> float:
    """Seconds of 90 epochs of DACNN-18 (MIX,REG) on 50,000 images, extrapolated."""
    training = make_training(zoo.get("dacnn18-mix-reg"), data, whole(Recipe(name="paper"), len(data.train)))
    return seconds(training._train_epoch, epochs) * WHOLE_EPOCHS * WHOLE_IMAGES / len(data.train)


def train_some(barrier: Any, trainings: int) -> None:
    """The body of one of several processes on a GPU: all begin together, once each has warmed up."""
    data = ResidentData(make_data(_packed_case()), GPU)
    recipe = _packed_case().recipe.model_copy(update={"epochs": 4})
    make_training(PACKED_NETWORK, data, recipe).run_epoch()
    torch.cuda.synchronize()
    barrier.wait()
    for _ in range(trainings):
        training = make_training(PACKED_NETWORK, data, recipe)
        while not training.finished:
            training.run_epoch()
    barrier.wait()


def trainings_per_hour(processes: int, trainings: int) -> float:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    workers = [context.Process(target=train_some, args=(barrier, trainings)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    barrier.wait(timeout=300)
    begun = time.perf_counter()
    barrier.wait(timeout=1800)
    taken = time.perf_counter() - begun
    for worker in workers:
        worker.join()
    return 3600 * processes * trainings / taken


def _packed_case() -> Case:
    return Case("cifar", PACKED_NETWORK.sections, Recipe(batch_size=128, crop=4), 4096)


def packed_processes() -> int:
    """How many trainings of the small network a search would put on this GPU."""
    machine = Machine(len(os.sched_getaffinity(0)), 1, 2**40, torch.cuda.get_device_properties(0).total_memory)
    slots = pack(machine, demand_of([PACKED_NETWORK], (3, 32, 32), 10, _packed_case().recipe, trainings=100))
    return slots.concurrency


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("error: this benchmark needs a CUDA GPU, but torch sees none", file=sys.stderr)
        sys.exit(2)
    name = torch.cuda.get_device_name()
    peak = next((peak for key, peak in PEAKS.items() if name.startswith(key)), None)
    rounds, images = (3, 8192) if options.quick else (7, 40_960)
    measured = []
    for case in cases(options.quick):
        measured.append(result := measure(dataclasses.replace(case, images=images), rounds))
        print(json.dumps(result), flush=True)
    data = ResidentData(make_data(Case("cifar", PACKED_NETWORK.sections, Recipe(), images)), GPU)
    networks = measure_zoo(QUICK_ZOO if options.quick else zoo.names(), data, rounds, peak)
    training_seconds = whole_training(data, rounds)
    processes = packed_processes()
    alone, packed = trainings_per_hour(1, 4), trainings_per_hour(processes, 4)

    def median(kind: str, key: str) -> float:
        return round(statistics.median(result[key] for result in measured if result["kind"] == kind), 3)

    figures = {
        "small_vs_naive": median("digits", "vs_naive"),
        "cifar_vs_naive": median("cifar", "vs_naive"),
        "cifar_share_of_convolutions": median("cifar", "share_of_convolutions"),
        "packed_vs_one_at_a_time": round(packed / alone, 3),
        "packed_processes": processes,
        "trainings_per_hour": {"alone": round(alone), "packed": round(packed)},
        "dacnn_18_mix_reg_90_epochs_seconds": round(training_seconds),
        "zoo": networks,
    }
    report = {
        **figures,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": name,
        "peak_flops": peak,
        "versions": package_versions(),
        "rounds": rounds,
        "networks": measured,
    }
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
