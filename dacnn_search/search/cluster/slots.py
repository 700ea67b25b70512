"""Decide how many trainings run at once, on which share of the machine, from the costs of their networks.

On a CPU there is a training per core if there are memory and trainings for it: two of one thread get more done than one
of two threads (measured on two cores: 1.9 times as much for small networks, 1.15 for large ones). Ray Tune keeps its
workers between trials only if all take the same share of a GPU: that of the largest network. Ray only counts shares;
`dacnn_search.search.cluster.worker` keeps each training within its own.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_high
from typing import Any, Literal

from dacnn_search.common.errors import InputError
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import InputShape, estimate_cost, gpu_step_seconds
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.training.memory import GPU_DATA_SHARE, GPU_PROCESS_BYTES, peak_ratio, step_bytes
from dacnn_search.training.recipe import Recipe
from dacnn_search.training.speed import SMALL_STEP_MACS

Share = float | Literal["auto"] | None

USABLE = 0.9  # of a GPU's memory: allocators waste some
CPU_USABLE = 0.7  # of a machine's memory: others live there too
CPU_PROCESS_BYTES = 400 * 2**20  # a worker with torch
MOST_PER_GPU = 16
UNKNOWN_PER_GPU = 4  # where the memory of a GPU is not known
DRAWN = 50


@dataclass(frozen=True)
class Resources:
    """The resources that a user grants a job."""

    address: str | None = None  # of a running Ray cluster; by default Ray is started on this machine
    concurrency: int | None = None  # trainings at once; by default as many as cores and GPUs hold
    gpus_per_trial: Share = None  # the share of a GPU that a training gets; by default as many share one as it holds
    verbose: bool = False  # show what Ray prints


@dataclass(frozen=True)
class Machine:
    """The resources that are there for trainings."""

    cpus: float
    gpus: float
    memory: int  # bytes
    gpu_memory: int = 0  # bytes of one GPU; 0 if not known


@dataclass(frozen=True)
class Demand:
    """A description of the trainings to do."""

    trainings: int
    bytes: int  # of a step of the largest network
    step_macs: float  # of a network in the middle
    layers: int  # of a network in the middle
    data_bytes: int = 0


@dataclass(frozen=True)
class Slots:
    """The number of trainings at once, and the share of each."""

    concurrency: int
    cpus_per_trial: float
    gpus_per_trial: float
    threads: int = 1
    memory: float = field(default=math.inf, compare=False)  # bytes that a training may take on a CPU


def demand_of(
    networks: Sequence[Architecture],
    input_shape: InputShape,
    num_classes: int,
    recipe: Recipe,
    *,
    trainings: int | None = None,
    data_bytes: int = 0,
    factor: float = 1.0,
    teacher: Architecture | None = None,
) -> Demand:
    """Return what networks take to be trained by a recipe, once each unless `trainings` says otherwise.

    data_bytes: of the images. factor: of the memory that trainings take over what is estimated.
    """
    steps = [step_bytes(network, input_shape, num_classes, recipe, teacher=teacher) for network in networks]
    macs = 3.0 * median_high(estimate_cost(network, input_shape, num_classes).macs for network in networks)
    if teacher is not None:
        macs += estimate_cost(teacher, input_shape, num_classes).macs
    return Demand(
        trainings=len(networks) if trainings is None else trainings,
        bytes=int(factor * max(steps)),
        step_macs=macs * recipe.batch_size,
        layers=median_high(network.layers for network in networks),
        data_bytes=data_bytes,
    )


def demand_of_space(
    space: SearchSpace, trials: int, data_bytes: int, records: Iterable[Mapping[str, Any]] = ()
) -> Demand:
    """Return what the networks of a space take, judged by some drawn from it and by the trials that have ended.

    One that takes more than all of these is trained within the share that it finds, or refused (`must_recompute`).
    """
    conditions = (space.input_shape, space.num_classes, space.settings.recipe)
    factor = most_excess(records, *conditions)
    return demand_of(draw_networks(space), *conditions, trainings=trials, data_bytes=data_bytes, factor=factor)


def draw_networks(space: SearchSpace) -> list[Architecture]:
    """Return some networks of a space, always the same."""
    generator = random.Random(0)
    return [space.draw(generator)[0] for _ in range(DRAWN)]


def most_excess(
    records: Iterable[Mapping[str, Any]], input_shape: InputShape, num_classes: int, recipe: Recipe
) -> float:
    """Return the largest ratio of what a trial of a ledger took of a GPU (`peak_bytes`) to its estimate; at least 1."""
    taken = [(r["peak_bytes"], Architecture.from_dict(r["architecture"])) for r in records if r.get("peak_bytes")]
    ratios = [peak_ratio(peak, step_bytes(network, input_shape, num_classes, recipe)) for peak, network in taken]
    return max([1.0, *ratios])


def pack(machine: Machine, demand: Demand, concurrency: int | None = None, share: Share = "auto") -> Slots:
    """Return the slots of a machine. `concurrency` and `share` (GPUs per training) are kept where given. Raises
    InputError for more than there is."""
    if share is None or share == "auto":
        share = _rounded(1 / _per_gpu(machine, demand, concurrency)) if machine.gpus else 0.0
    if share > machine.gpus:
        raise InputError(f"gpus per trial must be at most the {machine.gpus:g} of the cluster, but is {share:g}")
    if share > 1 and share != int(share):
        raise InputError(f"gpus per trial must be a whole number or below 1, but is {share:g}")
    if share >= 1:
        most = int(machine.gpus / share)
    elif share:  # none is spread over two GPUs
        most = max(1, int(machine.gpus)) * (10_000 // max(1, round(1e4 * share)))
    else:
        held = int(CPU_USABLE * machine.memory / (demand.bytes + CPU_PROCESS_BYTES))
        most = max(1, min(int(machine.cpus), held, demand.trainings))
    if concurrency is None:
        concurrency = most
    elif share and concurrency > most:
        raise InputError(
            f"concurrency must be at most the {most} trials that the {machine.gpus:g} GPUs of the cluster hold at "
            f"{share:g} GPUs per trial, but is {concurrency}"
        )
    # Small steps are not worth being split among cores that would be idle otherwise.
    splits = not share and demand.step_macs >= SMALL_STEP_MACS
    threads = max(1, int(machine.cpus) // concurrency) if splits else 1
    cpus = min(float(threads), _rounded(machine.cpus / concurrency))
    return Slots(concurrency, cpus, share, threads, machine.memory / min(concurrency, max(1, demand.trainings)))


def _per_gpu(machine: Machine, demand: Demand, concurrency: int | None) -> int:
    """Return how many trainings share a GPU: as many of the largest as its memory holds, as its arithmetic has room for
    while each waits for its kernels to be launched, as there are CPU cores to feed, and as run at once."""
    most = math.ceil((concurrency or demand.trainings) / machine.gpus)
    if not machine.gpu_memory:
        return max(1, min(UNKNOWN_PER_GPU, most))
    training = demand.bytes + GPU_PROCESS_BYTES
    # Data stay in host memory where they would take more than GPU_DATA_SHARE of what a process has.
    data = min(demand.data_bytes, training * GPU_DATA_SHARE / (1 - GPU_DATA_SHARE))
    held = USABLE * machine.gpu_memory / (training + data)
    computing, launching = gpu_step_seconds(demand.step_macs, demand.layers)
    wanted = math.ceil((computing + launching) / computing)
    fed = machine.cpus / machine.gpus
    return max(1, int(min(held, wanted, fed, most, MOST_PER_GPU)))


def _rounded(amount: float) -> float:
    """Round down to Ray's units of 1e-4: Ray would round up as well."""
    return math.floor(1e4 * amount + 1e-6) / 1e4
