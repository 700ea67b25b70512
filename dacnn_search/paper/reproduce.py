"""Trains what the paper's tables and figures need, on Ray's workers, and writes ours beside the published.

The paper's protocol: the test set is looked at every epoch, nothing is selected by it. The whole training set is
trained on, there is no validation part, the test curve is what figures 4 and 6 show, and the error of a table is that
of the last epoch. (A search never does this: it does not see the test images.)

`results/paper/` holds `trainings.jsonl`, a ledger with one line per network, data, recipe and seed; `networks/`, the
trained networks as folders like those of an export; and per experiment a folder with its tables and its page. A
training that is in the ledger is not done again, whichever table or figure it was done for.
"""

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.common.files import lock, replace_folder, write_atomic
from dacnn_search.common.interrupt import Interrupted, Stop, orderly_end
from dacnn_search.common.machine import package_versions
from dacnn_search.data.dataset import DataConfig, ImageData, load
from dacnn_search.data.published import KNOWN_SETS
from dacnn_search.export.folder import (
    CONFIG,
    WEIGHTS,
    NetworkInput,
    config_text,
    describe_network,
    describe_training,
    write_metrics,
)
from dacnn_search.network.cost import estimate_cost
from dacnn_search.paper.experiments import Conditions, Experiment, Member
from dacnn_search.paper.page import write_report
from dacnn_search.paper.progress import Board, Job
from dacnn_search.paper.rows import Results
from dacnn_search.paper.worker import train_watched
from dacnn_search.search.cluster.ray_cluster import start_ray
from dacnn_search.search.cluster.slots import Demand, Share, Slots, demand_of
from dacnn_search.search.cluster.tasks import Broken, WorkerDied, run_streams
from dacnn_search.search.listener import Listener
from dacnn_search.storage.checkpoint import Checkpoints
from dacnn_search.storage.ledger import Ledger, now

import ray  # isort: skip  # after dacnn_search.search.cluster.ray_cluster, which sets what Ray reads

__all__ = ["NETWORKS", "PROTOCOL", "Source", "reproduce"]

PROTOCOL = "The paper's protocol: the test set is looked at every epoch, nothing is selected by it."
NETWORKS = "networks"
CHECKPOINT_SECONDS = 300.0


@dataclass(frozen=True)
class Source:
    """Where the data sets are: .npz files by data set, the others below `root`, downloaded where they are missing."""

    root: str | None
    files: Mapping[str, str]

    def config(self, dataset: str, subset: int | None) -> DataConfig:
        """Without a validation part."""
        name, root = ("npz", self.files[dataset]) if dataset in self.files else (dataset, self.root)
        return DataConfig(name=name, root=root, validation=0.0, subset=subset)  # type: ignore[arg-type]


def reproduce(
    experiments: Sequence[Experiment],
    conditions: Conditions,
    source: Source,
    results: Path,
    *,
    address: str | None = None,
    concurrency: int | None = None,
    gpus_per_trial: Share = None,
    repair: bool = False,
    listener: Listener | None = None,
    verbose: bool = False,
) -> list[Path]:
    """Train what these experiments need and `results` does not have; write tables and pages; return their folders.

    They are written again after each training, so that an interrupted reproduction shows what it has. repair: leave out
    damaged lines of the ledger, which otherwise are an error. Raises DataError
    if data can't be read, InputError for conditions that can't be, RunDirectoryError if another process is at it,
    DacnnSearchError naming the trainings that broke, after all others are done.
    """
    results.mkdir(parents=True, exist_ok=True)
    with (
        lock(results),
        _orderly(results) as stop,
        Ledger.open(results / "trainings.jsonl", repair=repair, advice="the same command with --repair") as ledger,
    ):
        reproduction = _Reproduction(experiments, conditions, source, results, ledger, listener or Listener())
        missing = reproduction.missing()
        reproduction.announce(missing)
        broken: list[str] = []
        if missing:
            demand = reproduction.demand(missing)
            with start_ray(address, concurrency, gpus_per_trial, verbose, demand) as slots:
                broken = reproduction.train(missing, slots, stop)
        folders = reproduction.report()
    if broken:
        raise DacnnSearchError("these trainings broke, all others are done:\n" + "\n".join(broken))
    return folders


class _Reproduction:
    """Experiments to reproduce, with the data loaded and the ledger open."""

    def __init__(
        self,
        experiments: Sequence[Experiment],
        conditions: Conditions,
        source: Source,
        results: Path,
        ledger: Ledger,
        listener: Listener,
    ) -> None:
        self._experiments = experiments
        self._conditions = conditions
        self._results = results
        self._ledger = ledger
        self._listener = listener
        self._checkpoints = Checkpoints(results / "checkpoints")
        members = dict.fromkeys(member for experiment in experiments for member in experiment.members)
        names = dict.fromkeys(member.dataset for member in members)
        self._configs = {name: source.config(name, conditions.subset) for name in names}
        self._data = {name: load(config).with_validation_in_train() for name, config in self._configs.items()}
        self._digests = {name: _digest(data) for name, data in self._data.items()}
        self._jobs = [self._job(member, seed) for member in members for seed in range(conditions.seeds)]

    def missing(self) -> list[Job]:
        """What is to be trained, the most work first, so that the workers end together."""
        done = {record["key"] for record in self._ledger.records}
        in_use = {member for e in self._experiments if e.kind == "filters" for member in e.members}
        jobs = [
            job
            for job in self._jobs
            if job.key not in done
            or (job.member in in_use and not (self._results / NETWORKS / job.folder / WEIGHTS).is_file())
        ]
        return sorted(jobs, key=lambda job: -job.work)

    def announce(self, missing: Sequence[Job]) -> None:
        """Tell what is going to happen, and under which conditions."""
        say = self._listener.say
        for line in (PROTOCOL, *self._conditions.notes(), *self._data_notes().values()):
            say(line)
        say(f"trainings: {len(self._jobs)}, of them done already: {len(self._jobs) - len(missing)}")

    def demand(self, jobs: Sequence[Job]) -> Demand:
        """What these trainings take; all data sets of the paper have images of one size."""
        networks, (first, *_) = [job.architecture for job in jobs], jobs
        data = self._data[first.member.dataset]
        return demand_of(networks, data.input_shape, data.num_classes, first.recipe, data_bytes=data.nbytes)

    def train(self, jobs: Sequence[Job], slots: Slots, stop: Stop) -> list[str]:
        """Train all; what broke, a line each."""
        remote = ray.remote(num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_trial, max_retries=0)(train_watched)
        shared = {name: ray.put(data) for name, data in self._data.items()}

        def start(job: Job) -> Any:
            values = (job.architecture.to_dict(), job.recipe, job.seed, slots, self._checkpoints.load(job.key))
            return remote.remote(shared[job.member.dataset], *values, CHECKPOINT_SECONDS)

        board = Board(jobs, self._listener)
        broken = []
        for job, message in run_streams(jobs, start, slots.concurrency, stop):
            if isinstance(message, WorkerDied):
                board.lost(job)
            elif isinstance(message, Broken):
                board.left(job)
                broken.append(f"{job}: {message.reason}")
            elif "epoch" in message:
                self._keep_checkpoint(job, message)
                board.progress(job, message)
            else:
                board.finished(job, self._keep(job, message))
                self.report()
        return broken

    def report(self) -> list[Path]:
        """Write tables and pages of all experiments."""
        seeds: dict[str, dict[int, Mapping[str, Any]]] = {}  # more of them may be known than were asked for
        for record in self._ledger.records:
            identity = _identity(record["fingerprint"], record["data"]["digest"], record["recipe"])
            seeds.setdefault(json.dumps(identity), {})[record["seed"]] = record
        found: dict[Member, list[Mapping[str, Any]]] = {}
        for job in self._jobs:
            digest, recipe = self._digests[job.member.dataset], job.recipe.model_dump(mode="json")
            by_seed = seeds.get(json.dumps(_identity(job.architecture.fingerprint, digest, recipe)), {})
            found[job.member] = [by_seed[seed] for seed in sorted(by_seed)]
        inputs = {name: NetworkInput.of(data) for name, data in self._data.items()}
        notes = [PROTOCOL, *self._conditions.notes()]
        whole = {name for name in self._data if self._is_whole(name)}
        results = Results(self._conditions, found, inputs, notes, self._data_notes(), whole, self._results / NETWORKS)
        return [write_report(experiment, results, self._results) for experiment in self._experiments]

    def _job(self, member: Member, seed: int) -> Job:
        data, architecture = self._data[member.dataset], self._conditions.architecture(member.network)
        recipe = self._conditions.recipe_for(member.dataset)
        cost = estimate_cost(architecture, data.input_shape, data.num_classes)
        work = cost.macs * recipe.epochs * (3 * len(data.train) + len(data.test))
        identity = _identity(architecture.fingerprint, self._digests[member.dataset], recipe.model_dump(mode="json"))
        key = hashlib.sha256(json.dumps([*identity, seed]).encode()).hexdigest()[:16]
        return Job(member, architecture, recipe, seed, key, float(work))

    def _keep_checkpoint(self, job: Job, message: Mapping[str, Any]) -> None:
        if message["checkpoint"] is not None:
            self._checkpoints.save(job.key, message["epoch"], message["checkpoint"])

    def _keep(self, job: Job, result: dict[str, Any]) -> Mapping[str, Any]:
        """Write the network, then the record that speaks of it."""
        data = self._data[job.member.dataset]
        cost = estimate_cost(job.architecture, data.input_shape, data.num_classes)
        weights = result.pop("weights")
        record = {
            "key": job.key,
            "network": job.member.network,
            "scale": self._conditions.scale,
            "fingerprint": job.architecture.fingerprint,
            "architecture": job.architecture.to_dict(),
            "data": {"name": data.name, "digest": self._digests[job.member.dataset], "test": len(data.test)},
            "parameters": cost.parameters,
            "macs": cost.macs,
            "seed": job.seed,
            "epochs": job.recipe.epochs,
            "train_images": len(data.train),
            **result,
            "recipe": job.recipe.model_dump(mode="json"),
            "versions": package_versions(),
            "command": [_without_folder(argument) for argument in sys.argv],
            "time": now(),
        }
        if record["reason"] is None:
            self._write_network(job, record, weights)
        kept = self._ledger.append(record)
        self._checkpoints.drop(job.key)
        return kept

    def _write_network(self, job: Job, record: Mapping[str, Any], weights: bytes) -> None:
        data, config = self._data[job.member.dataset], self._configs[job.member.dataset]
        scale = self._conditions.scale
        name = job.member.network + (f", widths times {scale:g}" if scale != 1 else "")
        metrics = describe_network(job.architecture, NetworkInput.of(data), name)
        metrics["training"] = describe_training([record], data, config)
        with replace_folder(self._results / NETWORKS / job.folder) as folder:
            write_atomic(folder / CONFIG, config_text(job.architecture, config, record["recipe"], job.seed, name))
            write_atomic(folder / WEIGHTS, weights)
            write_metrics(folder, metrics, job.folder)

    def _is_whole(self, dataset: str) -> bool:
        known, data = KNOWN_SETS[dataset], self._data[dataset]
        found, expected = (data.num_classes, len(data.train), len(data.test)), (known.train_counts, known.test_counts)
        return found == (len(known.train_counts), *map(sum, expected))

    def _data_notes(self) -> dict[str, str]:
        notes = {}
        for dataset, data in self._data.items():
            deviation = 50 / len(data.test) ** 0.5  # at most, of a share of so many, in points
            origin = "" if data.name == dataset else f" (from {Path(self._configs[dataset].root or '').name})"
            known = KNOWN_SETS[dataset]
            notes[dataset] = (
                f"{dataset}{origin}: {len(data.train):,} training and {len(data.test):,} test images, "
                f"{data.num_classes} classes. The test images alone give an error a standard error of up to "
                f"{deviation:.2f} points, a difference of two {2**0.5 * deviation:.2f}; the seed adds to that."
            )
            if not self._is_whole(dataset):
                notes[dataset] += (
                    f" The published set has {sum(known.train_counts):,} and {sum(known.test_counts):,} images of "
                    f"{len(known.train_counts)}."
                )
        return notes


def _identity(fingerprint: str, digest: str, recipe: Mapping[str, Any]) -> list[Any]:
    """What trainings have in common that differ in their seed alone."""
    return [fingerprint, digest, {key: value for key, value in recipe.items() if key != "compiled"}]


def _digest(data: ImageData) -> str:
    """The identity of training and test images with their labels, wherever they were read from: 16 hex digits."""
    digest = hashlib.sha256(str(data.num_classes).encode())
    for split in (data.train, data.test):
        digest.update(str(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()[:16]


def _without_folder(argument: str) -> str:
    """An argument for others to read: where this machine keeps its files is left out."""
    key, equals, value = argument.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if Path(value).is_absolute() else argument


@contextlib.contextmanager
def _orderly(folder: Path) -> Iterator[Stop]:
    """A signal ends this with a word on how to go on."""
    try:
        with orderly_end(folder) as stop:
            yield stop
    except Interrupted as error:
        error.args = ("interrupted; the same command goes on with what is not done",)
        raise
