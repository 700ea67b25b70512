"""Training throughput on a GPU: against the naive loop, against the convolutions, packed, and of the paper's networks.

    python benchmarks/gpu.py --quick

Like `throughput.py`, with wall time between synchronisations of the GPU. Ours is timed as it comes and, of some
networks with `--quick`, compiled (`recipe: compiled`), with the seconds that compiling took beside it; ratios are of
ours as it comes. The convolutions are launched as one CUDA graph, so that they are no measure of Python. The naive
loops and the convolutions may choose their algorithms freely (`cudnn.benchmark`); ours may not, as it gives the same
numbers every time. Then: images/s of the networks of the zoo (of some of them with `--quick`) and the share of the
GPU's peak in bfloat16 that their convolutions are; trainings per hour of several processes on one GPU against one at a
time; and the time of a whole DACNN-18 (MIX,REG) training of 90 epochs on 50,000 images, without looks at test images,
extrapolated from a few epochs on fewer. Images are random ones in the format of CIFAR-10. Without a GPU it ends with
exit code 2.
"""

import dataclasses
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Container, Iterable
from typing import Any

import torch
from naive_training import NaiveTraining
from results_file import RESULTS, make_parser, write_figures
from throughput import Case, Convolutions, cases, make_data, without_validation
from torch import nn

from dacnn_search.data.dataset import ImageData
from dacnn_search.network import zoo
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.cost import estimate_cost
from dacnn_search.search.cluster.slots import Machine, demand_of, pack
from dacnn_search.training.device_data import ResidentData
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.trainer import Training, build_seeded

# Dense bfloat16 of tensor cores in FLOP/s, from the makers' data sheets; the name as `nvidia-smi` begins it.
PEAKS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L40S": 362e12,
}
WHOLE_EPOCHS, WHOLE_IMAGES = 90, 50_000
QUICK_COMPILED = ("dacnn18-mix-reg",)  # and the second network of CIFAR-10's size
QUICK_ZOO = ("dacnn18", "dacnn18-reg", "dacnn18-mix", "dacnn18-mix-reg", "vgg", "resnet18", "thriftynet-h5")
PACKED_NETWORK = Architecture(tuple(Section(2, width) for width in (16, 32, 64)))  # 73k parameters
FLOOR_STEPS = 50  # between two synchronisations
GPU = torch.device("cuda", 0)


class NaiveGpuTraining(NaiveTraining):
    """The naive script with `.to(device)`, and a worker process per core that prepares the images."""

    def __init__(self, model: nn.Module, data: ImageData, recipe: Recipe, tuned: bool = False) -> None:
        super().__init__(model.to(GPU), data, recipe, tuned)
        workers = len(os.sched_getaffinity(0))
        more: dict[str, Any] = {"num_workers": workers, "persistent_workers": True, "pin_memory": True}
        train, validation = self.train_loader.dataset, self.validation_loader.dataset
        self.train_loader = _Moved(train, recipe.batch_size, shuffle=True, **more)
        self.validation_loader = _Moved(validation, 256, **more)


class _Moved(torch.utils.data.DataLoader):
    """A DataLoader whose batches are on the GPU."""

    def __iter__(self) -> Any:
        for images, labels in super().__iter__():
            yield images.to(GPU, non_blocking=True), labels.to(GPU, non_blocking=True)


def seconds(run: Callable[[], Any], rounds: int, warm_up: int = 2) -> float:
    """Return the median wall time of a call, the GPU's work included."""
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


def endless(recipe: Recipe, compiled: bool) -> Recipe:
    """Return the recipe with more epochs than are run here, compiled or not."""
    return recipe.model_copy(update={"epochs": 10_000, "compiled": compiled})


def compiled_rate(architecture: Architecture, data: ResidentData, recipe: Recipe, rounds: int) -> tuple[float, float]:
    """Return images/s of compiled training steps, and the seconds of the first epoch, in which they are compiled.

    The data have no validation images.
    """
    training = make_training(architecture, data, endless(recipe, compiled=True))
    first = seconds(training.run_epoch, 1, warm_up=0)
    return len(data.train) / seconds(training.run_epoch, rounds), first


def graph_of(run: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    """Record the kernels that a call launches, so that they can be launched at once."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        run()
    return graph


def measure(case: Case, rounds: int, compiles: bool) -> dict[str, Any]:
    """Time epochs of ours and of the naive loops, and the convolutions of as many steps."""
    data = make_data(case)
    steps_alone = ResidentData(without_validation(data), GPU)
    recipe = endless(case.recipe, compiled=False)
    ours, steps = (
        make_training(case.architecture, images, recipe) for images in (ResidentData(data, GPU), steps_alone)
    )
    models = (build_seeded(case.architecture, 10, data.input_shape[0], 0) for _ in range(2))
    naive, tuned = (
        NaiveGpuTraining(model, data, case.recipe, better) for model, better in zip(models, (False, True), strict=True)
    )
    epoch = seconds(ours.run_epoch, rounds)
    step = seconds(steps.run_epoch, rounds) / len(data.train) * case.recipe.batch_size
    compiled: dict[str, float] = {}
    if compiles:
        rate, compiling = compiled_rate(case.architecture, steps_alone, case.recipe, rounds)
        compiled["steps_compiled_vs_not"] = round(rate * step / case.recipe.batch_size, 3)
        compiled["compiling_seconds"] = round(compiling, 1)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    naive_epoch, tuned_epoch = seconds(naive.run_epoch, rounds), seconds(tuned.run_epoch, rounds)
    floor = Convolutions(case.architecture, data.input_shape, case.recipe.batch_size, getattr(torch, ours.precision))
    floor.calls = [tuple(tensor.to(GPU) for tensor in call) for call in floor.calls]
    graph = graph_of(floor.run_step)

    def run_floor() -> None:
        for _ in range(FLOOR_STEPS):
            graph.replay()

    floor_step = seconds(run_floor, rounds) / FLOOR_STEPS
    torch.backends.cudnn.benchmark = False
    return {
        "kind": case.kind,
        "network": str(case.architecture),
        "batch_size": case.recipe.batch_size,
        "precision": ours.precision,
        "images_per_second": round(len(data.train) / epoch, 1),
        "naive_images_per_second": round(len(data.train) / naive_epoch, 1),
        "tuned_images_per_second": round(len(data.train) / tuned_epoch, 1),
        "vs_naive": round(naive_epoch / epoch, 3),
        "vs_tuned": round(tuned_epoch / epoch, 3),
        **compiled,
        "share_of_convolutions": round(floor_step / step, 3),
    }


def measure_zoo(
    networks: Iterable[str], compiles: Container[str], data: ResidentData, rounds: int, peak: float | None
) -> dict[str, dict[str, float | None]]:
    """Images/s of the paper's networks, some compiled as well, and the share of the GPU's peak that the arithmetic of a
    step is."""
    found = {}
    for name in networks:
        architecture = zoo.get(name)
        recipe = Recipe(batch_size=128)
        training = make_training(architecture, data, endless(recipe, compiled=False))
        rate = len(data.train) / seconds(training.run_epoch, rounds)
        flops = 6.0 * estimate_cost(architecture, data.input_shape, data.num_classes).macs * rate
        found[name] = {
            "images_per_second": round(rate, 1),
            "share_of_peak": peak and round(flops / peak, 4),
        }
        if name in compiles:
            compiled, compiling = compiled_rate(architecture, data, recipe, rounds)
            found[name] |= {"compiled_images_per_second": round(compiled, 1), "compiling_seconds": round(compiling, 1)}
        print(f"{name:24} {found[name]}", flush=True)
    return found


def whole_training(data: ResidentData, epochs: int) -> float:
    """Extrapolate the seconds of 90 epochs of DACNN-18 (MIX,REG) on 50,000 images."""
    training = make_training(zoo.get("dacnn18-mix-reg"), data, endless(Recipe(name="paper"), compiled=False))
    return seconds(training.run_epoch, epochs) * WHOLE_EPOCHS * WHOLE_IMAGES / len(data.train)


def train_some(barrier: Any, rates: Any, least: float) -> None:
    """The body of one of several processes on a GPU: all begin together, once each has warmed up, and train for some
    seconds; puts the trainings per second."""
    data = ResidentData(make_data(_packed_case()), GPU)
    recipe = _packed_case().recipe.model_copy(update={"epochs": 4})
    make_training(PACKED_NETWORK, data, recipe).run_epoch()
    torch.cuda.synchronize()
    barrier.wait(timeout=300)
    begun, trainings = time.perf_counter(), 0
    while time.perf_counter() < begun + least:
        training = make_training(PACKED_NETWORK, data, recipe)
        while not training.finished:
            training.run_epoch()
        trainings += 1
    rates.put(trainings / (time.perf_counter() - begun))


def trainings_per_hour(processes: int, least: float) -> float:
    """Return the trainings per hour of all processes together, which train for at least `least` seconds."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=train_some, args=(barrier, rates, least)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    together = sum(rates.get(timeout=600 + least) for _ in workers)
    for worker in workers:
        worker.join()
    return 3600 * together


def _packed_case() -> Case:
    return Case("cifar", PACKED_NETWORK.sections, Recipe(batch_size=128, crop=4), 4096)


def packed_processes() -> int:
    """Return how many trainings of the small network a search would put on this GPU."""
    machine = Machine(len(os.sched_getaffinity(0)), 1, 2**40, torch.cuda.get_device_properties(0).total_memory)
    slots = pack(machine, demand_of([PACKED_NETWORK], (3, 32, 32), 10, _packed_case().recipe, trainings=100))
    return slots.concurrency


def main() -> None:
    options = make_parser(__doc__, "fewer images and rounds", RESULTS / "gpu.json").parse_args()
    if not torch.cuda.is_available():
        print("error: this benchmark needs a CUDA GPU, but torch sees none", file=sys.stderr)
        sys.exit(2)
    name = torch.cuda.get_device_name()
    peak = next((peak for key, peak in PEAKS.items() if name.startswith(key)), None)
    rounds, images = (3, 8192) if options.quick else (7, 40_960)
    measured = []
    for number, case in enumerate(cases(options.quick)):
        compiles = not options.quick or number == 6
        measured.append(result := measure(dataclasses.replace(case, images=images), rounds, compiles))
        print(json.dumps(result), flush=True)
    data = make_data(Case("cifar", PACKED_NETWORK.sections, Recipe(), images))
    data = ResidentData(without_validation(data), GPU)
    names = QUICK_ZOO if options.quick else zoo.names()
    networks = measure_zoo(names, QUICK_COMPILED if options.quick else names, data, rounds, peak)
    training_seconds = whole_training(data, rounds)
    processes = packed_processes()
    least = 10.0 if options.quick else 60.0
    pairs = [(trainings_per_hour(1, least), trainings_per_hour(processes, least)) for _ in range(3)]
    alone, packed = (statistics.median(rates) for rates in zip(*pairs, strict=True))

    def median(kind: str, key: str) -> float:
        return round(statistics.median(result[key] for result in measured if result["kind"] == kind), 3)

    figures = {
        "small_vs_naive": median("digits", "vs_naive"),
        "cifar_vs_naive": median("cifar", "vs_naive"),
        "small_vs_tuned": median("digits", "vs_tuned"),
        "cifar_vs_tuned": median("cifar", "vs_tuned"),
        "cifar_share_of_convolutions": median("cifar", "share_of_convolutions"),
        "packed_vs_one_at_a_time": round(statistics.median(both / one for one, both in pairs), 3),
        "packed_processes": processes,
        "trainings_per_hour": {"alone": round(alone), "packed": round(packed)},
        "dacnn_18_mix_reg_90_epochs_seconds": round(training_seconds),
        "zoo": networks,
    }
    gpu = {"name": name, "peak_flops": peak}
    write_figures(options.output, figures, quick=options.quick, gpu=gpu, rounds=rounds, networks=measured)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
