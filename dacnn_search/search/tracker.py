"""`Tracker`: a callback of Ray Tune that passes a trial's figures on to another one and survives if that breaks."""

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.logger import LoggerCallback

from dacnn_search.common.privacy import mask_secrets

__all__ = ["Tracker"]

SCALARS = ("epoch", "parameters", "accuracy", "loss", "train_loss")  # of a worker's results


class Tracker(LoggerCallback):
    """Passes trials on to `logger`, one of Ray's: only their scalars, with the epoch as the step.

    If the logger breaks, `say` gets one message, the logger is left out from then on, and the search goes on.
    """

    def __init__(self, logger: LoggerCallback, say: Callable[[str], None]) -> None:
        self._logger = logger
        self._say = say
        self._broken = False

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
        if self._broken:
            return
        try:
            getattr(self._logger, event)(*arguments, **info)
        except Exception as error:
            self._broken = True
            name = type(self._logger).__name__
            self._say(f"{name} broke and is left out from here on: {mask_secrets(str(error))}")

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tracker":
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its own state, which nobody reads."""
        return {}
