"""Searches without Ray: the driver's side, with trials that end as the test likes."""

import math
from pathlib import Path

from dacnn_search.network.architecture import Architecture
from dacnn_search.search.driver import Search
from dacnn_search.search.listener import Listener
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.run_directory import RunDirectory

TINY = """\
name: tiny
data: {name: digits, validation: 0.3, subset: 300}
architecture:
  sections: {choice: [1, 2]}
  depth: {range: {low: 1, high: 3}}
  width: {choice: [3, 4, 6]}
  sharing: {choice: [network, section]}
  regulators: {choice: [none, block]}
constraints: {parameters: {max: 1200}}
recipe: {epochs: 2}
search: {trials: 4, concurrency: 1, seed: 3, sampler: tpe}
retrain: {top: 2, epochs: 1, seeds: 2}
"""


def new_run(space: SearchSpace, folder: Path, **settings) -> RunDirectory:
    chosen = space.settings.search.model_copy(update=settings)
    return RunDirectory.create(folder, None, space, [str(n) for n in range(10)], chosen.model_dump(mode="json"))


class Pretended:
    """A search without Ray, of networks whose accuracy grows with their parameters."""

    def __init__(self, space: SearchSpace, run: RunDirectory, **settings) -> None:
        self.ledger = Ledger.open(run.trials_file)
        self.proposed = Ledger.open(run.proposals_file)
        chosen = space.settings.search.model_copy(update=settings)
        self.search = Search(run, space, chosen, self.ledger, self.proposed, Listener())
        self.space = space

    def train(self, key: str, config: dict, epochs: int = 2) -> None:
        cost = self.space.cost(Architecture.from_dict(config["architecture"]))
        curve = [epoch_result(n, 1 - 1 / math.log(cost.parameters)) for n in range(1, epochs + 1)]
        self.search.finish(key, {"epochs": curve, "worker": "here:1"})

    def run(self) -> list[dict]:
        number = 0
        while (config := self.search.propose(str(number))) is not None:
            self.train(str(number), config)
            number += 1
        self.close()
        return list(self.ledger.records)

    def close(self) -> None:
        self.search.close()
        self.ledger.close()
        self.proposed.close()


def epoch_result(epoch: int, accuracy: float, loss: float = 1.0) -> dict:
    return {
        "epoch": epoch,
        "train_loss": loss,
        "validation_loss": loss,
        "validation_accuracy": accuracy,
        "learning_rate": 0.1,
        "images_per_second": 1.0,
        "seconds": 0.01,
    }
