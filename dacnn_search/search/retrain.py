"""Train chosen networks of the front in full, and score the test images: the only time that they are looked at."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.numpy

from dacnn_search.common.errors import DacnnSearchError, InputError
from dacnn_search.common.files import lock, sha256_of, write_atomic
from dacnn_search.common.interrupt import Stop, orderly_end
from dacnn_search.data.dataset import ImageData, load
from dacnn_search.network.architecture import Architecture
from dacnn_search.network.cost import COSTS, UNITS
from dacnn_search.search.cluster.ray_cluster import RaySession
from dacnn_search.search.cluster.slots import Resources, Share, demand_of, most_excess
from dacnn_search.search.cluster.tasks import fix_run_precision, run_tasks, train_fully
from dacnn_search.search.listener import Listener
from dacnn_search.search.report import snapshot_of, write_status
from dacnn_search.space.settings import RetrainSettings
from dacnn_search.storage.checkpoint import Checkpoints
from dacnn_search.storage.front import best_under, spread
from dacnn_search.storage.ledger import Ledger, now
from dacnn_search.storage.run_directory import RETRAINED, RunDirectory
from dacnn_search.storage.trained import judge
from dacnn_search.training.recipe import Recipe

CHECKPOINT_SECONDS = 60.0  # between two checkpoints of a training


@dataclass(frozen=True, eq=False)
class FullTraining:
    """A full training of one network of the front by one seed."""

    record: Mapping[str, Any]
    seed: int

    @property
    def key(self) -> tuple[str, int]:
        """The network and the seed."""
        return self.record["fingerprint"], self.seed


def retrain(
    run: RunDirectory | Path | str,
    *,
    top: int | None = None,
    epochs: int | None = None,
    seeds: int | None = None,
    address: str | None = None,
    concurrency: int | None = None,
    gpus_per_trial: Share = None,
    repair: bool = False,
    listener: Listener | None = None,
    verbose: bool = False,
) -> list[dict[str, Any]]:
    """Train networks of a run's front in full and score the test images once each; return the records of all of them.

    They are trained on the training and validation images together, by the space's `retrain` recipe. If it has a share
    of distillation, the most accurate network of the front, by seed 0, teaches all other networks and is trained first.
    What has been done is not done again; a training whose weights are damaged is, and one that a crash cut short goes
    on from its last checkpoint. Weights go to `retrained/`, records to `retrained.jsonl`. A training that breaks is
    reported to the listener and left out. The listener is also told of budgets that no network fits, and how the front
    fares on the test images.

    Args:
        run: The run directory.
        top: How many networks, spread over the front by size; the space's budgets do not count then.
        epochs: The length of a training.
        seeds: How often each network is trained.
        address: The address of a running Ray cluster. By default Ray is started on this machine.
        concurrency: The trainings at once. By default as in the search.
        gpus_per_trial: The share of a GPU that a training gets. By default as in the search.
        repair: Leave out damaged lines of `retrained.jsonl`, which otherwise are an error.
        listener: Is told what happens.
        verbose: Show what Ray prints.

    Raises InputError for a run without finished trials, Interrupted after SIGINT or SIGTERM, DacnnSearchError if every
    training breaks, or that of the teacher.
    """
    run = run if isinstance(run, RunDirectory) else RunDirectory(run)
    searched = run.environment
    resources = Resources(
        address,
        concurrency or searched.get("concurrency"),
        searched.get("gpus_per_trial") if gpus_per_trial is None else gpus_per_trial,
        verbose,
    )
    with RaySession(resources) as session:
        return retrain_in_session(
            run, session, top=top, epochs=epochs, seeds=seeds, repair=repair, listener=listener or Listener()
        )


def retrain_in_session(
    run: RunDirectory,
    session: RaySession,
    *,
    listener: Listener,
    top: int | None = None,
    epochs: int | None = None,
    seeds: int | None = None,
    repair: bool = False,
) -> list[dict[str, Any]]:
    """Do what `retrain` does, on Ray that may have been started before."""
    space = run.space
    given = {"top": top, "budgets": None if top is None else (), "epochs": epochs, "seeds": seeds}
    settings = space.settings.retrain.model_copy(update={k: v for k, v in given.items() if v is not None})
    recipe = settings.full_recipe(space.settings.recipe)
    if not run.front:
        raise InputError(f"{run.folder}: retraining needs a finished trial, but there is none")
    chosen = _chosen(run, settings, listener)
    with (
        lock(run.folder),
        orderly_end(run.folder) as stop,
        Ledger.open(run.retrained_file, RETRAINED, repair=repair) as ledger,
    ):
        if trainings := _missing_trainings(run, chosen, settings.seeds, recipe):
            data = load(space.settings.data).with_validation_in_train()
            retraining = _Retraining(run, session, data, recipe, ledger, listener, trainings)
            with retraining.reported():
                retraining.run_all(stop)
                if len(retraining.failures) == len(trainings):
                    raise DacnnSearchError(retraining.failures[0])
        if judgement := judge(run.networks):
            listener.say(judgement)
        fingerprints = {record["fingerprint"] for record in chosen}
        return [dict(record) for record in ledger.records if record["fingerprint"] in fingerprints]


def _chosen(run: RunDirectory, settings: RetrainSettings, listener: Listener) -> Sequence[Mapping[str, Any]]:
    """Return the networks of the front to train, smallest first. Tell the listener of budgets that no network fits."""
    front, size = run.front, run.objective
    if not settings.budgets:
        return spread(front, settings.top, size)
    try:
        budgets = settings.sizes(size)
    except ValueError as error:  # those in the file are of another objective
        raise InputError(f"{run.space_file}: retrain.budgets: {error}") from None
    fitting = {}
    for budget in budgets:
        if record := best_under(front, budget, size):
            fitting[record["fingerprint"]] = record
        else:
            least = f"the smallest has {front[0][size]:,}"
            listener.say(f"no network of the front has at most {budget:,} {UNITS[size]}: {least}")
    return list(fitting.values())


def _missing_trainings(
    run: RunDirectory, chosen: Sequence[Mapping[str, Any]], seeds: int, recipe: Recipe
) -> list[FullTraining]:
    """Return the trainings to do, largest network first so that the workers end together.

    They are those of the front that have not been done, all whose weights are lost, and the teacher's if others need
    it and its weights are not there.
    """
    done = {_key(record) for record in _done(run, recipe)}
    wanted = [FullTraining(record, seed) for record in chosen for seed in range(seeds)]
    lost = [FullTraining(r, r["seed"]) for network in run.networks for r in network.records if not run.has_weights(r)]
    missing = [*lost, *(training for training in wanted if training.key not in done)]
    teacher = FullTraining(run.front[-1], 0)
    if recipe.distillation and teacher.key not in done and any(t.key[0] != teacher.key[0] for t in missing):
        missing.append(teacher)
    return sorted({training.key: training for training in missing}.values(), key=lambda t: -t.record["macs"])


def _done(run: RunDirectory, recipe: Recipe) -> list[Mapping[str, Any]]:
    """Return the records of the trainings by this recipe that count and whose weights are there."""
    records = (record for network in run.networks for record in network.records)
    return [r for r in records if Recipe.model_validate(r["recipe"]) == recipe and run.has_weights(r)]


def _key(record: Mapping[str, Any]) -> tuple[str, int]:
    """Return the network and the seed of a record of a training."""
    return record["fingerprint"], record["seed"]


@dataclass(eq=False)
class _Retraining:
    """Starts trainings as Ray tasks; keeps their checkpoints, weights and records; reports on them."""

    run: RunDirectory
    session: RaySession
    data: ImageData
    recipe: Recipe  # by which a training is known on any machine
    ledger: Ledger
    listener: Listener
    trainings: Sequence[FullTraining]

    def __post_init__(self) -> None:
        self.failures: list[str] = []
        self._checkpoints = Checkpoints(self.run.checkpoints)
        self._search = snapshot_of(self.run, "retraining")
        self._running: dict[FullTraining, int] = {}  # epochs done
        self._done = 0
        self._shared = self.session.share(self.data)
        self._teacher: Mapping[str, Any] | None = None  # the record of the network that teaches what is started
        self._lesson: Any = None  # the teacher as `train_fully` takes it, in Ray's memory

    def run_all(self, stop: Stop) -> None:
        """Do all trainings. With a share of distillation those of the teacher's network come first, by themselves."""
        teacher = FullTraining(self.run.front[-1], 0)
        first = [t for t in self.trainings if not self.recipe.distillation or t.key[0] == teacher.key[0]]
        taught = [training for training in self.trainings if training not in first]
        if first:
            self._run(first, stop)
        if taught:
            self._let_teach(teacher)
            self._run(taught, stop)

    def _let_teach(self, teacher: FullTraining) -> None:
        """Let the weights of a training teach what is started from now on. Raises DacnnSearchError if it broke."""
        self._teacher = next((r for r in _done(self.run, self.recipe) if _key(r) == teacher.key), None)
        if self._teacher is None:
            alone = "to train the others without it, set retrain: {recipe: {distillation: 0}}"
            raise DacnnSearchError(f"{self.failures[0]}; it is the teacher of the others: {alone}")
        weights = safetensors.numpy.load(self.run.weights_file(*teacher.key).read_bytes())
        self._lesson = self.session.share({"architecture": self._teacher["architecture"], "weights": weights})

    def _run(self, trainings: Sequence[FullTraining], stop: Stop) -> None:
        networks = [Architecture.from_dict(training.record["architecture"]) for training in trainings]
        teacher = None if self._teacher is None else Architecture.from_dict(self._teacher["architecture"])
        images = self.data.input_shape, self.data.num_classes
        factor = most_excess(self.run.records, *images, self.run.space.settings.recipe)
        demand = demand_of(networks, *images, self.recipe, data_bytes=self.data.nbytes, factor=factor, teacher=teacher)
        self._slots = self.session.slots(demand)
        self._fixed = fix_run_precision(self.run, self.recipe, networks, self._slots)()
        run_tasks(trainings, self, train_fully, self._slots, stop)

    def arguments(self, training: FullTraining) -> tuple[Any, ...]:
        architecture, seed = training.record["architecture"], training.seed
        checkpoint = self._checkpoints.load(self._checkpoint_key(training))
        return self._shared, architecture, self._fixed, seed, self._slots, checkpoint, CHECKPOINT_SECONDS, self._lesson

    def progressed(self, training: FullTraining, message: Mapping[str, Any]) -> None:
        if message["checkpoint"]:
            with _disk_errors_as_ours(self.run.checkpoints):
                self._checkpoints.save(self._checkpoint_key(training), message["epoch"], message["checkpoint"])
        self._running[training] = message["epoch"]
        self._tell("retraining")

    def finished(self, training: FullTraining, result: dict[str, Any]) -> None:
        """Write the weights, then the record that refers to them."""
        path = self.run.weights_file(*training.key)
        copied = ("trial", "fingerprint", "architecture", *COSTS, "accuracy")
        scored = ("test_accuracy", "test_loss", "train_images", "seconds")
        with _disk_errors_as_ours(path.parent):
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, safetensors.numpy.save(result["weights"]))
            record = self.ledger.append(
                {
                    **{name: training.record[name] for name in copied},
                    "seed": training.seed,
                    "epochs": self.recipe.epochs,
                    **{name: result[name] for name in scored},
                    "curve": {"train_loss": result["train_loss"]},
                    "recipe": self.recipe.model_dump(mode="json"),
                    "teacher": self._teacher and self._teacher["fingerprint"],
                    "weights_sha256": sha256_of(path),
                    "time": now(),
                }
            )
        self._checkpoints.drop("{}-{}-*".format(*training.key))  # also those of other recipes and teachers
        self._running.pop(training, None)
        self._done += 1
        self.listener.retrained(record)
        self._tell("retraining")

    def lost(self, training: FullTraining) -> None:
        self._running.pop(training, None)
        self.listener.say(f"retraining of trial {training.record['trial']}: its worker process died")

    def failed(self, training: FullTraining, reason: str) -> None:
        self._running.pop(training, None)
        self.failures.append(f"retraining of trial {training.record['trial']} broke: {reason}")
        self.listener.say(self.failures[-1])

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Report the begin of the retraining, and how it ended."""
        self._tell("retraining")
        try:
            yield
        except KeyboardInterrupt:
            self._tell("interrupted")
            raise
        except DacnnSearchError as error:
            self._tell("failed", str(error))
            raise
        self._tell("finished")

    def _tell(self, state: str, message: str | None = None) -> None:
        running = [
            {name: training.record[name] for name in ("trial", "fingerprint", "parameters", "flash")}
            | {"epoch": epoch, "epochs": self.recipe.epochs, "accuracy": None}
            for training, epoch in self._running.items()
        ]
        progress = {"finished": self._done, "trainings": len(self.trainings)}
        snapshot = replace(self._search, state=state, message=message, running=running, retraining=progress)
        with contextlib.suppress(OSError):  # the status is for others; nothing depends on it
            write_status(self.run, snapshot)
        self.listener.update(snapshot)

    def _checkpoint_key(self, training: FullTraining) -> str:
        """Return the key of a training's checkpoints; it includes a hash of the recipe and of the teacher's weights."""
        given = json.dumps(self.recipe.model_dump(mode="json"), sort_keys=True)
        if self._teacher is not None:
            given += self._teacher["weights_sha256"]
        return f"{training.record['fingerprint']}-{training.seed}-{hashlib.sha256(given.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def _disk_errors_as_ours(folder: Path) -> Iterator[None]:
    """Raise OSError as DacnnSearchError."""
    try:
        yield
    except OSError as error:
        raise DacnnSearchError(f"{folder} can't be written: {error.strerror}") from error
