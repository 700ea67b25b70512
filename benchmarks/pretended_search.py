"""A search whose workers pretend to train, to measure its driver: `overhead.py` runs it."""

import json
import math
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results_file import make_parser

from dacnn_search.dashboard.page import write_dashboard, write_index
from dacnn_search.search.cluster.ray_cluster import RaySession
from dacnn_search.search.listener import Listener
from dacnn_search.search.report import write_study, write_tables
from dacnn_search.search.request import prepare
from dacnn_search.search.search import search_in_session
from dacnn_search.search.tune import TrialWorker
from dacnn_search.storage.run_directory import RunDirectory

SPACE = Path(__file__).parent.parent / "search_spaces" / "default.yaml"
WINDOW = 100  # trials over which CPU time is averaged


class Pretender(TrialWorker):
    """Reports curves of the kind that networks have, without training: better with more parameters, and noisy."""

    def _run_epochs(self) -> None:
        config = self._config
        generator = random.Random(config["seed"])
        error = 3 / math.sqrt(config["parameters"]) * math.exp(generator.gauss(0, 0.3))
        self._epochs = [
            {
                "epoch": epoch,
                "train_loss": 1.0,
                "validation_loss": error * 1.3 ** (self._recipe.epochs - epoch),
                "validation_accuracy": max(0.1, 1 - error * 1.3 ** (self._recipe.epochs - epoch)),
                "learning_rate": 0.01,
                "images_per_second": 1000.0,
                "seconds": 0.01,
            }
            for epoch in range(1, self._recipe.epochs + 1)
        ]


class Clock(Listener):
    """CPU time of this process at the end of each trial, without the thread that writes tables, study and dashboard.

    That thread writes in bursts of many trials, which would fall into one window or none.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def finished(self, record: Mapping[str, Any]) -> None:
        writers = [thread for thread in threading.enumerate() if thread.name.startswith("report")]
        written = sum(time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0)) for thread in writers)
        self.seconds.append(time.process_time() - written)


def seconds_of_files(run: RunDirectory) -> float:
    """Return the CPU time of writing tables, study and dashboard of a whole run anew."""
    (run.folder / "optuna.db").unlink()
    begun = time.process_time()
    write_tables(run.folder, run.records)
    write_study(run.folder, run.space, run.records)
    write_dashboard(run.folder)
    write_index(run.folder.parent)
    return time.process_time() - begun


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("sampler")
    parser.add_argument("trials", type=int)
    parser.add_argument("folder", type=Path, help="for the run directory")
    parser.add_argument("output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    clock = Clock()
    settings = {"trials": options.trials, "concurrency": 2, "sampler": options.sampler}
    request = prepare(SPACE, results=options.folder, settings=settings)
    with RaySession(request.resources(None, False)) as session:
        run = search_in_session(request, session, listener=clock, trainable=Pretender)
    at = clock.seconds
    early = at[100 + WINDOW // 2] - at[100 - WINDOW // 2]
    late = at[-1] - at[-1 - WINDOW]
    options.output.write_text(json.dumps([early / WINDOW, late / WINDOW, seconds_of_files(run) / len(at)]))


if __name__ == "__main__":
    main()
