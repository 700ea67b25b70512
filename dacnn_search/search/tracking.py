"""Weights & Biases, MLflow and TensorBoard: where a search may report its trials to while it runs."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dacnn_search.common.errors import InputError
from dacnn_search.common.privacy import mask_secrets
from dacnn_search.dashboard.tensorboard import write_tensorboard
from dacnn_search.storage.run_directory import RunDirectory

__all__ = ["Tracking"]

HIDDEN = ["architecture", "checkpoint"]  # keys of a trial's config that trackers do not get


@dataclass(frozen=True)
class Tracking:
    """Where a search reports its trials to, beside the ledger.

    Raises InputError if a package is missing, if nobody is logged in to Weights & Biases, or if MLflow does not answer.

    Args:
        tensorboard: Write event files to the run directory.
        wandb: A project of Weights & Biases.
        mlflow: The URI of an MLflow server or database.
    """

    tensorboard: bool = False
    wandb: str | None = None
    mlflow: str | None = None

    def __post_init__(self) -> None:
        if self.wandb is not None:
            _check_installed("wandb")
            _wandb_key()
        if self.mlflow is not None:
            _check_installed("mlflow")
            _check_mlflow(self.mlflow)

    def begin(self, run: RunDirectory, say: Callable[[str], None]) -> list[Any]:
        """Return the callbacks for Ray Tune. They call `say` with a message if a tracker breaks."""
        if self.tensorboard:
            write_tensorboard(run.folder, run.records)  # makes the folder, which the report then keeps up to date
        callbacks: list[Any] = []
        name = run.folder.resolve().name
        if self.wandb is not None:
            from ray.air.integrations.wandb import WandbLoggerCallback

            folder = str(run.folder.resolve())
            callbacks.append(WandbLoggerCallback(self.wandb, name, api_key=_wandb_key(), excludes=HIDDEN, dir=folder))
        if self.mlflow is not None:
            from ray.air.integrations.mlflow import MLflowLoggerCallback

            callbacks.append(MLflowLoggerCallback(self.mlflow, experiment_name=name))
        if not callbacks:
            return []

        from dacnn_search.search.tracker import Tracker

        return [Tracker(callback, say) for callback in callbacks]


def _check_installed(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise InputError(f"--{package} needs a package that is not installed: pip install {package}")


def _wandb_key() -> str | None:
    """Return the key of who is logged in, or None if none is needed or the environment has it. Raises InputError."""
    import wandb

    if os.environ.get("WANDB_MODE") in ("offline", "disabled") or os.environ.get("WANDB_API_KEY"):
        return None
    try:
        return str(wandb.Api().api_key)
    except Exception as error:
        raise InputError(f"--wandb needs `wandb login`, WANDB_API_KEY or WANDB_MODE=offline: {error}") from None


def _check_mlflow(uri: str) -> None:
    import mlflow

    try:
        mlflow.MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except Exception as error:
        reason = mask_secrets(str(error).replace(uri, mask_secrets(uri)).partition("\n")[0])
        raise InputError(
            f"--mlflow needs a server or database that answers, but is {mask_secrets(uri)}: {reason}"
        ) from None
