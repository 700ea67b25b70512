"""`Tracker`: a callback of Ray Tune that passes a trial's figures on to another one and survives if that breaks."""

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Callback

from dacnn_search.common.privacy import mask_secrets

__all__ = ["Tracker"]

SCALARS = ("epoch", "parameters", "accuracy", "loss", "train_loss")  # of a worker's results


class Tracker(Callback):
    """Passes trials on to `callback`, one of Ray's loggers: only their scalars, with the epoch as the step.

    If the callback breaks, `say` gets one message, the callback is left out from then on, and the search goes on.
    """

    def __init__(self, callback: Any, say: Callable[[str], None]) -> None:
        self._callback = callback
        self._say = say
        self._broken = False

    def setup(self, *arguments: Any, **info: Any) -> None:
        self._call("setup", *arguments, **info)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial.init_local_path()  # W&B works in that folder
        self._call("on_trial_start", iteration, trials, trial, **info)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        scalars = {name: result[name] for name in SCALARS if result.get(name) is not None}
        scalars["training_iteration"] = result["epoch"]  # Ray's name for the step
        self._call("on_trial_result", iteration, trials, trial, scalars, **info)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._call("on_trial_complete", iteration, trials, trial, **info)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._call("on_trial_error", iteration, trials, trial, **info)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._call("on_experiment_end", trials, **info)

    def _call(self, event: str, *arguments: Any, **info: Any) -> None:
        if self._broken:
            return
        try:
            getattr(self._callback, event)(*arguments, **info)
        except Exception as error:
            self._broken = True
            name = type(self._callback).__name__
            self._say(f"{name} broke and is left out from here on: {mask_secrets(str(error))}")

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tracker":
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its own state, which nobody reads."""
        return {}
