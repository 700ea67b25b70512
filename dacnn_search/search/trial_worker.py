"""What runs on Ray Tune's workers: one process trains trial after trial, with torch imported and the data at hand."""

import dataclasses
import os
import platform
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dacnn_search.search.cluster.ray_cluster  # noqa: F401  sets what Ray reads when it is imported
from dacnn_search.common.errors import DacnnSearchError
from dacnn_search.data.dataset import ImageData
from dacnn_search.network.architecture import Architecture
from dacnn_search.search.cluster.slots import Slots
from dacnn_search.training.recipe import Recipe

from ray import tune  # isort: skip

if TYPE_CHECKING:
    from dacnn_search.search.cluster.worker import Place
    from dacnn_search.training.trainer import Training

__all__ = ["Parcel", "TrialWorker", "train_fully"]

REPORT_SHARE = 0.2  # of the time that a training has taken so far: epochs shorter than that are reported together


class Parcel:
    """Bytes that travel through Tune, which copies what it is given and makes names of it: not of these."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __deepcopy__(self, memo: dict[int, Any]) -> "Parcel":
        return self

    def __repr__(self) -> str:
        return f"<{len(self.data)} bytes>"


class TrialWorker(tune.Trainable):
    """Trains the network of a config `{"architecture", "parameters", "seed", "checkpoint"}`; each step is one or more
    epochs, of at least `report_seconds` and a fifth of the training so far: between steps the worker waits.

    A step's result has `epochs` (an `EpochResult` as a dict for each), `done`, `failure` (why the training can't go
    on, else None), `worker` (host:pid), `peak_bytes` (of GPU memory beside the data; None on a CPU), `recomputes`
    (whether it computes sections again to save memory), `checkpoint` (a `Parcel` now and then, else None) and the
    scalars of `_scalars`. A training carried on from a checkpoint tells its earlier epochs again. Errors are reported,
    not raised, so that the process lives on for the next trial; unless its GPU does not answer any more.
    """

    def setup(  # type: ignore[override]  # Tune passes what `with_parameters` was given
        self,
        config: dict[str, Any],
        data: ImageData,
        recipe: Recipe,
        slots: Slots,
        checkpoint_seconds: float,
        report_seconds: float,
    ) -> None:
        self._recipe = recipe
        self._images = data
        self._slots = slots
        self._place: Place | None = None  # made in `step`, where errors are reported
        self._checkpoint_seconds = checkpoint_seconds
        self._report_seconds = report_seconds
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config = new_config
        self._training: Training | None = None
        self._history: list[dict[str, Any]] = []  # of all epochs
        self._kept = time.monotonic()  # when the last checkpoint was made
        return True

    def step(self) -> dict[str, Any]:
        epochs: list[dict[str, Any]] = []
        failure = None
        start = time.perf_counter()
        try:
            if self._training is None:
                self._training = self._begin()
                epochs += self._history
            enough = max(self._report_seconds, REPORT_SHARE * sum(epoch["seconds"] for epoch in self._history))
            while not self._training.finished and time.perf_counter() - start < enough:
                epochs.append(dataclasses.asdict(self._training.run_epoch()))
                self._history.append(epochs[-1])
        except DacnnSearchError as error:
            failure = str(error)
        except Exception as error:  # a fault of ours must not cost the worker
            if self._slots.gpus_per_trial and not (self._place and self._place.answers()):
                raise
            failure = f"{type(error).__name__}: {error}"
        done = failure is not None or self._training is None or self._training.finished
        return {
            "epochs": epochs,
            "done": done,
            "failure": failure,
            "worker": f"{platform.node()}:{os.getpid()}",
            "peak_bytes": self._peak_bytes(),
            "recomputes": self._training is not None and self._training.model.recomputes,
            "checkpoint": None if done else self._checkpoint(),
            **self._scalars(),
        }

    def _scalars(self) -> dict[str, Any]:
        """Where the training stands, for trackers."""
        last = self._history[-1] if self._history else {}
        return {
            "epoch": len(self._history),
            "parameters": self._config["parameters"],
            "accuracy": last.get("validation_accuracy"),
            "loss": last.get("validation_loss"),
            "train_loss": last.get("train_loss"),
        }

    def _begin(self) -> "Training":
        """The training of the config, at its beginning or at its checkpoint."""
        from dacnn_search.search.cluster.worker import Place

        if self._place is None:
            self._place = Place(self._images, self._slots)
        architecture = Architecture.from_dict(self._config["architecture"])
        parcel: Parcel | None = self._config["checkpoint"]
        checkpoint = parcel.data if parcel else None
        training, self._history = self._place.training(architecture, self._recipe, self._config["seed"], checkpoint)
        return training

    def _checkpoint(self) -> Parcel | None:
        """The training as it stands, if the last checkpoint is some time ago."""
        if self._training is None or time.monotonic() - self._kept < self._checkpoint_seconds:
            return None
        from dacnn_search.search.cluster.worker import packed

        parcel = Parcel(packed(self._training, self._history))
        self._kept = time.monotonic()
        return parcel

    def _peak_bytes(self) -> int | None:
        if self._place is None or self._training is None:
            return None
        return self._place.peak_bytes(self._training.model, self._recipe)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune's own checkpoints are not used: ours travel with the results, to the run directory of the driver."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See `save_checkpoint`."""


def train_fully(
    data: ImageData,
    architecture: Mapping[str, Any],
    recipe: Recipe,
    seed: int,
    slots: Slots,
    checkpoint: bytes | None,
    checkpoint_seconds: float,
) -> Iterator[dict[str, Any]]:
    """Train one network in full, from a checkpoint if there is one, and score the test images: yields `{"epoch": n,
    "checkpoint": bytes now and then, else None}` after each epoch, then the scores and the weights as arrays."""
    from dacnn_search.search.cluster.worker import Place, packed
    from dacnn_search.training.trainer import evaluate
    from dacnn_search.training.weights import trained_weights

    place = Place(data, slots)
    training, epochs = place.training(Architecture.from_dict(architecture), recipe, seed, checkpoint)
    kept = time.monotonic()
    while not training.finished:
        epochs.append(dataclasses.asdict(training.run_epoch()))
        due = time.monotonic() - kept >= checkpoint_seconds and not training.finished
        yield {"epoch": training.epoch, "checkpoint": packed(training, epochs) if due else None}
        kept = time.monotonic() if due else kept
    model = training.model
    test = evaluate(model, place.data, "test", precision="float32") if len(data.test) else None
    yield {
        "test_accuracy": test.accuracy if test else None,
        "test_loss": test.loss if test else None,
        "train_images": len(data.train),
        "seconds": sum(epoch["seconds"] for epoch in epochs),
        "train_loss": [round(epoch["train_loss"], 5) for epoch in epochs],
        "weights": {name: tensor.numpy() for name, tensor in trained_weights(model).items()},
    }
