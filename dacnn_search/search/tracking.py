"""Weights & Biases, MLflow and TensorBoard: where a search may report its trials to while it runs."""

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.logger import LoggerCallback

from dacnn_search.common.errors import InputError
from dacnn_search.common.privacy import mask_secrets
from dacnn_search.dashboard.tensorboard import write_tensorboard
from dacnn_search.storage.run_directory import RunDirectory

HIDDEN = ["architecture", "checkpoint"]  # keys of a trial's config that trackers do not get
SCALARS = ("epoch", "parameters", "flash", "accuracy", "loss", "train_loss")  # of a worker's results, which they get


@dataclass(frozen=True)
class Tracking:
    """Report the trials of a search to trackers, beside the ledger.

    Raises InputError if a package is missing, if nobody is logged in to Weights & Biases, or if MLflow does not answer.
    """

    tensorboard: bool = False  # event files in the run directory
    wandb: str | None = None  # a project of Weights & Biases
    mlflow: str | None = None  # the URI of an MLflow server or database

    def __post_init__(self) -> None:
        for package in ("wandb", "mlflow"):
            if getattr(self, package) is not None and importlib.util.find_spec(package) is None:
                raise InputError(f"--{package} needs a package that is not installed: pip install {package}")
        if self.wandb is not None:
            _wandb_key()
        if self.mlflow is not None:
            _check_mlflow(self.mlflow)

    def begin(self, run: RunDirectory, say: Callable[[str], None]) -> list["Tracker"]:
        """Return the callbacks for Ray Tune. They call `say` with a message if a tracker breaks."""
        folder = run.folder.resolve()
        loggers: list[LoggerCallback] = []
        if self.tensorboard:
            write_tensorboard(run.folder, run.records)  # makes the folder, which the report then keeps up to date
        if self.wandb is not None:
            from ray.air.integrations.wandb import WandbLoggerCallback

            key = _wandb_key()
            loggers.append(WandbLoggerCallback(self.wandb, folder.name, api_key=key, excludes=HIDDEN, dir=str(folder)))
        if self.mlflow is not None:
            from ray.air.integrations.mlflow import MLflowLoggerCallback

            loggers.append(MLflowLoggerCallback(self.mlflow, experiment_name=folder.name))
        return [Tracker(logger, say) for logger in loggers]


class Tracker(LoggerCallback):
    """Passes trials on to `logger`, one of Ray's: only their scalars, with the epoch as the step.

    If the logger breaks, `say` gets one message, the logger is left out from then on, and the search goes on.
    """

    def __init__(self, logger: LoggerCallback, say: Callable[[str], None]) -> None:
        self._logger = logger
        self._say = say

    def setup(self, *arguments: Any, **info: Any) -> None:
        self._call("setup", *arguments, **info)

    def log_trial_start(self, trial: Any) -> None:
        trial.init_local_path()  # W&B works in that folder
        self._call("log_trial_start", trial)

    def log_trial_result(self, iteration: int, trial: Any, result: Mapping[str, Any]) -> None:
        scalars = {name: result[name] for name in SCALARS if result.get(name) is not None}
        scalars["training_iteration"] = result["epoch"]  # Ray's name for the step
        self._call("log_trial_result", iteration, trial, scalars)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self._call("log_trial_end", trial, failed)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._call("on_experiment_end", trials, **info)

    def _call(self, event: str, *arguments: Any, **info: Any) -> None:
        try:
            getattr(self._logger, event)(*arguments, **info)
        except Exception as error:
            name = type(self._logger).__name__
            self._logger = LoggerCallback()  # which does nothing
            self._say(f"{name} broke and is left out from here on: {mask_secrets(str(error))}")

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tracker":
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its own state, which nobody reads."""
        return {}


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
        rule = f"--mlflow needs a server or database that answers, but is {mask_secrets(uri)}"
        raise InputError(f"{rule}: {reason}") from None
