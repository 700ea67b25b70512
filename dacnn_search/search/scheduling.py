"""What Ray Tune asks of a scheduler, answered by a `Search`: which trials stop early, and what became of those that
broke."""

from pathlib import Path
from typing import Any

from dacnn_search.search.driver import Search

from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # isort: skip

__all__ = ["OUT_OF_MEMORY", "SearchScheduler"]

OUT_OF_MEMORY = "out of memory: Ray killed its worker"


class SearchScheduler(FIFOScheduler):
    """Trials start in order. The search's stopping rule, which weighs both objectives, decides which of them end
    early, so `TuneConfig` needs neither metric nor mode. Results are those of `TrialWorker`."""

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._search: Search | None = search

    @property
    def metric(self) -> None:
        """None: there are two objectives."""

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        goes_on = self._search is None or self._search.goes_on(trial.trial_id, result["epochs"])
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Tell the search, before Tune does, of workers that Ray killed for memory."""
        if self._search is None or trial.error_file is None:
            return
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")  # all that Tune keeps of it
        if "running low on memory" in text:
            self._search.lose(trial.trial_id, OUT_OF_MEMORY, again=False)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its scheduler, and the search's files and study do not belong there."""
        return {"_search": None}
