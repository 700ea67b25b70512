"""What runs on Ray Tune's workers: one process trains trial after trial, with torch imported and the data at hand."""

import dataclasses
import os
import platform
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ray import tune

from dacnn_search.architecture import Architecture
from dacnn_search.data import ImageData
from dacnn_search.errors import DacnnSearchError
from dacnn_search.recipe import Recipe

__all__ = ["TrialWorker", "train_fully"]

# Epochs shorter than this are reported together: a report costs the driver a few milliseconds.
SECONDS_PER_REPORT = 0.5


class TrialWorker(tune.Trainable):
    """Trains the network of a config `{"architecture", "seed"}`; each step is one or more epochs.

    A step's result has `epochs` (an `EpochResult` as a dict for each), `done`, `failure` (why the training can't go
    on, else None), `worker` (host:pid) and `peak_bytes` (of GPU memory; None on a CPU). Errors are reported, not
    raised, so that the process lives on for the next trial.
    """

    def setup(  # type: ignore[override]  # Tune passes what `with_parameters` was given
        self, config: dict[str, Any], data: ImageData, recipe: Recipe
    ) -> None:
        import torch

        from dacnn_search.training import ResidentData

        torch.set_num_threads(1)
        self._recipe = recipe
        self._data = ResidentData(data)
        self._config = config
        self._training: Any = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config = new_config
        self._training = None
        return True

    def step(self) -> dict[str, Any]:
        epochs: list[dict[str, Any]] = []
        failure = None
        start = time.perf_counter()
        try:
            if self._training is None:
                self._begin()
            while not self._training.finished and time.perf_counter() - start < SECONDS_PER_REPORT:
                epochs.append(dataclasses.asdict(self._training.run_epoch()))
        except DacnnSearchError as error:
            failure = str(error)
        except Exception as error:  # a fault of ours must not cost the worker
            failure = f"{type(error).__name__}: {error}"
        return {
            "epochs": epochs,
            "done": failure is not None or self._training.finished,
            "failure": failure,
            "worker": f"{platform.node()}:{os.getpid()}",
            "peak_bytes": self._peak_bytes(),
        }

    def _begin(self) -> None:
        from dacnn_search.training import Training, build_seeded

        architecture = Architecture.from_dict(self._config["architecture"])
        seed = self._config["seed"]
        if self._data.device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()
        model = build_seeded(architecture, self._data.num_classes, self._data.input_shape[0], seed)
        self._training = Training(model, self._data, self._recipe, seed=seed)

    def _peak_bytes(self) -> int | None:
        import torch

        return torch.cuda.max_memory_allocated() if self._data.device.type == "cuda" else None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Trials are short; one that is lost is trained again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See `save_checkpoint`."""


def train_fully(
    data: ImageData, architecture: Mapping[str, Any], recipe: Recipe, seed: int, threads: int
) -> Iterator[dict[str, Any]]:
    """Train one network in full and score the test images: yields `{"epoch": n}` after each epoch, then the scores and
    the weights as arrays."""
    import torch

    from dacnn_search.training import ResidentData, Training, build_seeded, evaluate
    from dacnn_search.weights import trained_weights

    torch.set_num_threads(threads)
    model = build_seeded(Architecture.from_dict(architecture), data.num_classes, data.input_shape[0], seed)
    resident = ResidentData(data)
    training = Training(model, resident, recipe, seed=seed)
    epochs = []
    while not training.finished:
        epochs.append(training.run_epoch())
        yield {"epoch": training.epoch}
    test = evaluate(model, resident, "test", precision="float32") if len(data.test) else None
    yield {
        "test_accuracy": test.accuracy if test else None,
        "test_loss": test.loss if test else None,
        "train_images": len(data.train),
        "seconds": sum(epoch.seconds for epoch in epochs),
        "train_loss": [round(epoch.train_loss, 5) for epoch in epochs],
        "weights": {name: tensor.numpy() for name, tensor in trained_weights(model).items()},
    }
