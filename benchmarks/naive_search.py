"""A search as one would write it without this package: the loop of `naive_training.py`, Ray Tune with OptunaSearch, two
objectives, two trials at once. `overhead.py` and `time_to_front.py` compare with it.

    python benchmarks/naive_search.py SPACE.yaml --trials 10 --output trials.jsonl

It follows the tutorials of the three libraries and leaves their defaults as they are: a function trainable that
reports every epoch, float32, one CPU per trial. The networks are this package's, so that both stacks train the same
ones. Each line of the output is a finished trial: when it began and ended, what it reached.

`--stack tuned` is the same by someone who knows Ray Tune well: worker processes are kept from trial to trial
(`reuse_actors`), and the data are given to them once (`with_parameters`). `--stack optuna` runs the same
trainings by `study.optimize` in one process instead.
"""

import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray
import torch
from naive_training import NaiveTraining
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from results_file import make_parser

from dacnn_search import SearchSpace, build
from dacnn_search.data.dataset import ImageData, load
from dacnn_search.search.sampler.domain import distribution_of

CONCURRENCY = 2


def train(config: dict[str, Any], output: Path, report: Any, space: SearchSpace, data: ImageData) -> None:
    """Train the network of a config; `report` is told both objectives after every epoch."""
    begun = time.time()
    recipe = space.settings.recipe
    architecture, _ = space.replay(config)
    model = build(architecture, space.num_classes, space.input_shape[0])
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not space.meets_constraints(architecture):
        report({"accuracy": 0.0, "parameters": parameters})
        return
    training = NaiveTraining(model, data, recipe)
    first_step = time.time()
    for _ in range(recipe.epochs):
        _, accuracy = training.run_epoch()
        report({"accuracy": accuracy, "parameters": parameters})
    line = {
        "fingerprint": architecture.fingerprint,
        "parameters": parameters,
        "accuracy": accuracy,
        "begun": begun,
        "first_step": first_step,
        "ended": time.time(),
    }
    with output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def flat_space(space: SearchSpace) -> dict[str, optuna.distributions.BaseDistribution]:
    """All choices of a space side by side, as OptunaSearch wants them; those that are not asked do nothing."""
    asked: dict[str, Any] = {}
    generator = random.Random(0)
    for _ in range(1000):
        asked |= space.replay(space.draw(generator)[1])[1]
    return {name: distribution_of(options) for name, options in asked.items()}


def search_with_tune(
    path: Path, trials: int, output: Path, seed: int, networks: list[dict[str, Any]], tuned: bool
) -> None:
    """Ray Tune with OptunaSearch."""
    space = SearchSpace.from_yaml(path)
    flat = flat_space(space)
    search = OptunaSearch(
        space=flat,
        metric=["accuracy", "parameters"],
        mode=["max", "min"],
        points_to_evaluate=[_completed(network, flat) for network in networks] or None,
        seed=seed,
    )
    ray.init(num_cpus=CONCURRENCY)

    def trainable(config: dict[str, Any]) -> None:  # loads the data itself, as Ray's tutorial for PyTorch does
        own = SearchSpace.from_yaml(path)
        train(config, output, tune.report, own, load(own.settings.data))

    def tuned_trainable(config: dict[str, Any], data: ImageData) -> None:
        train(config, output, tune.report, SearchSpace.from_yaml(path), data)

    given = tune.with_parameters(tuned_trainable, data=load(space.settings.data))
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(given if tuned else trainable, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=search,
                num_samples=trials,
                max_concurrent_trials=CONCURRENCY,
                reuse_actors=tuned,
            ),
            run_config=tune.RunConfig(storage_path=folder),
        )
        tuner.fit()
    ray.shutdown()


def _completed(network: dict[str, Any], space: dict[str, Any]) -> dict[str, Any]:
    """Choices with some value for those that this network is not asked."""
    return {
        name: network.get(name, distribution.choices[0] if hasattr(distribution, "choices") else distribution.low)
        for name, distribution in space.items()
    }


def search_with_optuna(path: Path, trials: int, output: Path, seed: int, networks: list[dict[str, Any]]) -> None:
    """Plain Optuna, one trial after the other in this process, with one thread: for networks as small as these it is
    about as fast as two, and other users of the machine slow it down far less."""
    torch.set_num_threads(1)
    space = SearchSpace.from_yaml(path)
    flat, data = flat_space(space), load(space.settings.data)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed))
    for network in networks:
        study.enqueue_trial(network)

    def objective(trial: optuna.Trial) -> tuple[float, int]:
        config = {name: _suggest(trial, name, distribution) for name, distribution in flat.items()}
        reports: list[dict[str, Any]] = []
        train(config, output, reports.append, space, data)
        return reports[-1]["accuracy"], reports[-1]["parameters"]

    study.optimize(objective, n_trials=trials)


def _suggest(trial: optuna.Trial, name: str, distribution: Any) -> Any:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    kind = trial.suggest_int if isinstance(distribution, optuna.distributions.IntDistribution) else trial.suggest_float
    return kind(name, distribution.low, distribution.high, step=distribution.step)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("space", type=Path)
    parser.add_argument("--stack", choices=["tune", "tuned", "optuna"], default="tune")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--networks", type=Path, help="JSON list of choices to train first")
    options = parser.parse_args()
    path, output = options.space.absolute(), options.output.absolute()
    networks = json.loads(options.networks.read_text(encoding="utf-8")) if options.networks else []
    np.random.seed(options.seed)
    if options.stack == "optuna":
        search_with_optuna(path, options.trials, output, options.seed, networks)
    else:
        tuned = options.stack == "tuned"
        search_with_tune(path, options.trials, output, options.seed, networks, tuned)


if __name__ == "__main__":
    main()
