"""The order of the modules: a file imports only files above it, and what must answer at once needs no torch or ray."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dacnn_search

PACKAGE = Path(dacnn_search.__file__).parent

ORDER = [
    # ground
    *("errors", "units", "files", "commands", "signals", "guard", "yaml_io"),
    # networks and data, described
    *("architecture", "drawing", "cost", "zoo", "datasets.published", "datasets.user", "data", "recipe"),
    # search spaces
    *("settings", "spaces.choices", "spaces.size", "space", "packing", "spaces.preview"),
    # what a search leaves
    *("pareto", "ledger", "runs.checkpoints", "runs.networks", "run_directory", "runs.progress", "console"),
    *("runs.extension", "task"),
    # the dashboard
    *("dashboards.importance", "dashboards.data", "dashboards.compare", "dashboards.figure", "dashboards.server"),
    *("dashboards.tensorboard", "dashboard"),
    # networks, built and trained
    *("model", "trainings.augmentation", "trainings.optimizers", "trainings.resident", "trainings.evaluation"),
    *("training", "trainings.weights", "trainings.fine_tuning"),
    # the search
    *("sampling.domains", "sampling.gaussian_process", "surrogate", "samplers", "sampling.proposals"),
    *("sampling.proposer", "stopping", "searches.derived", "replay", "cluster", "streams", "place", "searches.worker"),
    *("searches.trial", "searches.state", "searches.scheduling", "searches.tracking", "searches.tuning"),
    *("search", "retrain"),
    # what leaves it
    *("exports.standalone", "exports.model_card", "exports.model_folder", "exports.classifier", "exports.parity"),
    *("exports.formats", "exports.files", "exports.exporting", "export", "predict", "train_one", "train"),
    # the main job
    *("job", "run"),
    # the paper
    *("reproduction.experiments", "reproduction.compression", "reproduction.progress", "reproduction.worker"),
    *("reproduction.rows", "reproduction.plot_page", "reproduction.report", "reproduction.filters"),
    *("reproduction.page", "reproduction.trainings", "paper"),
    "cli",
]

LIGHT = [
    *ORDER[: ORDER.index("model")],
    *(
        "exports.exporting",
        "export",
        "train_one",
        "train",
        "predict",
        "run",
        "reproduction.experiments",
        "paper",
        "cli",
    ),
]


def path_of(name):
    return PACKAGE.joinpath(*name.split(".")).with_suffix(".py")


def imported(path):
    """The modules of this package that a file imports, inside functions too; not when it is run as a program."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "__name__" in ast.unparse(node.test))]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        ours = (name.removeprefix("dacnn_search.") for name in names if name.startswith("dacnn_search."))
        yield from (name for name in ours if name in ORDER)


def test_every_module_has_its_place():
    files = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py") if path.stem != "__init__")
    assert sorted(ORDER) == sorted(".".join(file.parts) for file in files)


@pytest.mark.parametrize("name", ORDER)
def test_a_file_imports_only_files_above_it(name):
    below = [other for other in imported(path_of(name)) if ORDER.index(other) >= ORDER.index(name)]
    assert not below


@pytest.mark.parametrize("name", LIGHT)
def test_what_must_answer_at_once_imports_neither_torch_nor_ray(name):
    code = f"import sys, dacnn_search.{name}; print(sorted({{'torch', 'ray', 'optuna'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
