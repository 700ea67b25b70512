"""A `StoppingRule` as a scheduler of Ray Tune."""

from collections.abc import Mapping
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from dacnn_search.stopping import Progress, StoppingRule

__all__ = ["StoppingScheduler"]


class StoppingScheduler(FIFOScheduler):
    """Trials start in order; a rule of two objectives decides which of them stop early.

    A trial's config has its `parameters`; results have the `epochs` since the last one, each with `epoch` (from 1),
    `validation_accuracy` and `validation_loss`, as `TrialWorker` reports them. Give `TuneConfig` neither metric nor
    mode. `estimates` has, by Tune's trial id, the final accuracy expected of the trials that were stopped.
    """

    def __init__(self, rule: StoppingRule) -> None:
        super().__init__()
        self.estimates: dict[str, float] = {}
        self._rule = rule
        self._curves: dict[str, list[tuple[float, float]]] = {}

    @property
    def metric(self) -> None:
        """None: there are two objectives."""

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        return TrialScheduler.CONTINUE if self._judge(trial, result) else TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._judge(trial, result)
        self._curves.pop(trial.trial_id, None)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._curves.pop(trial.trial_id, None)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._curves.pop(trial.trial_id, None)

    def _judge(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        """Show the rule each new epoch; whether the trial goes on."""
        curve = self._curves.setdefault(trial.trial_id, [])
        for epoch in result.get("epochs", []):
            accuracy, loss = epoch["validation_accuracy"], epoch["validation_loss"]
            if epoch["epoch"] != len(curve) + 1 or accuracy is None or loss is None:
                continue  # told before, or there is nothing to judge by
            curve.append((accuracy, loss))
            accuracies, losses = zip(*curve, strict=True)
            verdict = self._rule.judge(Progress(trial.trial_id, trial.config["parameters"], accuracies, losses))
            if not verdict.go_on:
                if verdict.estimate is not None:
                    self.estimates[trial.trial_id] = verdict.estimate
                return False
        return True
