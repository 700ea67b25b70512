"""A real run directory without a search: a few tiny networks, trained on the digits for two epochs."""

from pathlib import Path

import safetensors.torch

from dacnn_search.common.files import sha256_of, write_atomic
from dacnn_search.data.dataset import load
from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.storage.ledger import Ledger
from dacnn_search.storage.run_directory import RunDirectory
from dacnn_search.training.trainer import ResidentData, Training, build_seeded, evaluate
from dacnn_search.training.weights import trained_weights

SPACE = """\
name: tiny
data: {name: digits, validation: 0.3}
architecture:
  sections: {choice: [1, 2]}
  depth: {range: {low: 1, high: 3}}
  width: {choice: [4, 8, 12]}
recipe: {epochs: 2}
"""
NETWORKS = {  # trial -> architecture, seeds
    3: (Architecture((Section(2, 12, "layer"), Section(3, 12)), "network", shortcuts="block"), (0,)),
    5: (Architecture((Section(2, 4),)), (0, 1)),
}

TRAINED = {
    "state": "COMPLETE",
    "epochs": 2,
    "seconds": 1.0,
    "finished": 1.0,
    "choices": {},
    "curve": {"accuracy": [0.3, 0.5], "loss": [2.0, 1.0], "train_loss": [2.0, 1.0]},
}


def write_small_run(results: Path) -> RunDirectory:
    """Make `results/tiny` with two networks of the front trained again."""
    results.mkdir(exist_ok=True)
    (results / "space.yaml").write_text(SPACE)
    space = SearchSpace.from_yaml(results / "space.yaml")
    run = RunDirectory.create(
        results, None, space, [str(n) for n in range(10)], {"seed": 0, "sampler": "tpe", "trials": 2}
    )
    with Ledger.open(run.trials_file) as trials, Ledger.open(run.retrained_file) as retrained:
        for trial, (architecture, seeds) in NETWORKS.items():
            architecture = architecture.canonical()
            cost = space.cost(architecture)
            record = {"trial": trial, "fingerprint": architecture.fingerprint}
            record |= {"architecture": architecture.to_dict(), "parameters": cost.parameters, "macs": cost.macs}
            record |= {"accuracy": 0.5 + trial / 100}
            trials.append({**record, **TRAINED})
            for seed in seeds:
                retrained.append({**record, **_train(run, space, architecture, seed)})
    return run


def _train(run, space, architecture, seed):
    data = load(space.settings.data).with_validation_in_train()
    recipe = space.settings.recipe
    model = build_seeded(architecture, data.num_classes, data.input_shape[0], seed)
    resident = ResidentData(data, "cpu")
    training = Training(model, resident, recipe, seed=seed)
    epochs = [training.run_epoch() for _ in range(recipe.epochs)]
    test = evaluate(model, resident, "test", precision="float32")
    path = run.weights_file(architecture.fingerprint, seed)
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, safetensors.torch.save(trained_weights(model)))
    return {
        "seed": seed,
        "epochs": recipe.epochs,
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "train_images": len(data.train),
        "seconds": sum(epoch.seconds for epoch in epochs),
        "curve": {"train_loss": [epoch.train_loss for epoch in epochs]},
        "recipe": recipe.model_dump(mode="json"),
        "weights_sha256": sha256_of(path),
        "time": "2026-03-14T10:00:00+00:00",
    }
