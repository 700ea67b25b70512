"""Weights & Biases, MLflow and TensorBoard: where a search may report its trials to while it runs."""

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dacnn_search.common.errors import InputError
from dacnn_search.dashboard.tensorboard import write_tensorboard
from dacnn_search.storage.run_directory import RunDirectory

__all__ = ["Tracker", "Tracking"]

SCALARS = ("epoch", "parameters", "accuracy", "loss", "train_loss")  # of a worker's results
HIDDEN = ["architecture", "checkpoint"]  # of a trial's config


@dataclass(frozen=True)
class Tracking:
    """Where a search reports its trials to, beside the ledger.

    tensorboard: whether event files go to the run directory. wandb: a project of Weights & Biases. mlflow: the URI of
    an MLflow server or database. Raises InputError if a package is missing, for want of a login, or if MLflow does not
    answer.
    """

    tensorboard: bool = False
    wandb: str | None = None
    mlflow: str | None = None

    def __post_init__(self) -> None:
        if self.wandb is not None:
            _need("wandb")
            _wandb_key()
        if self.mlflow is not None:
            _need("mlflow")
            _check_mlflow(self.mlflow)

    def begin(self, run: RunDirectory, say: Callable[[str], None]) -> list[Any]:
        """Make ready for a run's trials and return the callbacks for Ray Tune. say: is told if a tracker breaks."""
        callbacks: list[Any] = []
        name = run.folder.resolve().name
        if self.tensorboard:
            write_tensorboard(run.folder, run.records)  # from here on, what is derived from the ledger has it too
        if self.wandb is not None:
            from ray.air.integrations.wandb import WandbLoggerCallback

            callbacks.append(
                WandbLoggerCallback(
                    self.wandb, name, api_key=_wandb_key(), excludes=HIDDEN, dir=str(run.folder.resolve())
                )
            )
        if self.mlflow is not None:
            from ray.air.integrations.mlflow import MLflowLoggerCallback

            callbacks.append(MLflowLoggerCallback(self.mlflow, experiment_name=name))
        return [Tracker(callback, say) for callback in callbacks]


class Tracker:
    """Passes a trial's scalars on to a callback of Ray's, with the epoch as the step.

    If the callback breaks, this is told once, it is left out from then on, and the search goes on.
    """

    def __init__(self, inner: Any, say: Callable[[str], None]) -> None:
        self._inner = inner
        self._say = say
        self._broken = False

    def __getattr__(self, event: str) -> Any:
        if event.startswith("_"):  # of copying and pickling, not of Tune
            raise AttributeError(event)
        handler = getattr(self._inner, event)

        def guarded(*arguments: Any, **named: Any) -> Any:
            try:
                if event == "on_trial_start":
                    named["trial"].init_local_path()  # W&B works in that folder
                elif event == "on_trial_result":
                    named["result"] = _scalars(named["result"])
                return None if self._broken else handler(*arguments, **named)
            except Exception as error:
                self._broken = True
                self._say(f"{type(self._inner).__name__} broke and is left out from here on: {error}")

        return guarded if callable(handler) else handler

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tracker":
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its own state, which nobody takes up."""
        return {}


def _scalars(result: Mapping[str, Any]) -> dict[str, Any]:
    scalars = {name: result[name] for name in SCALARS if result.get(name) is not None}
    return {**scalars, "training_iteration": result["epoch"]}  # Ray's name for the step


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise InputError(f"--{package} needs a package that is not installed: pip install {package}")


def _wandb_key() -> str | None:
    """The key of who is logged in; None if none is needed or it's in the environment. Raises InputError."""
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
        reason = str(error).splitlines()[0]
        raise InputError(f"--mlflow needs a server or database that answers, but is {uri}: {reason}") from None
