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
    *("architecture", "drawing", "cost", "zoo", "datasets", "user_datasets", "data", "recipe"),
    # search spaces
    *("settings", "choices", "space_size", "space", "preview", "packing"),
    # what a search leaves
    *("pareto", "ledger", "checkpoints", "networks", "run_directory", "progress", "console", "extension", "task"),
    # the dashboard
    *("importance", "dashboard_data", "dashboard_compare", "dashboard_figure", "dashboard_server", "tensorboard"),
    "dashboard",
    # networks, built and trained
    *("model", "augmentation", "optimizers", "resident", "evaluation", "training", "weights", "fine_tuning"),
    # the search
    *("domains", "gaussian_process", "surrogate", "samplers", "proposals", "proposer", "stopping", "derived"),
    *("replay", "cluster", "place", "worker", "trial", "search_state", "scheduling"),
    *("tracking", "tuning", "search", "retrain"),
    # what leaves it
    *("standalone", "model_card", "model_folder", "classifier", "parity", "formats", "export_files", "exporting"),
    *("export", "predict", "train_one", "train"),
    # the main job
    *("job", "run"),
    # the paper
    *("experiments", "compression", "paper_progress", "paper_worker", "paper_rows", "plot_page"),
    *("paper_report", "filters", "paper_page", "reproduction", "paper"),
    "cli",
]

LIGHT = [
    *ORDER[: ORDER.index("model")],
    *("exporting", "export", "train_one", "train", "predict", "run", "experiments", "paper", "cli"),
]


def imported(path):
    """The modules of this package that a file imports, inside functions too; not when it is run as a program."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "__name__" in ast.unparse(node.test))]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dacnn_search":
            parts = node.module.split(".")[1:]
            yield from parts[:1] or [alias.name for alias in node.names if alias.name in ORDER]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("dacnn_search."))


def test_every_module_has_its_place():
    assert sorted(ORDER) == sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", ORDER)
def test_a_file_imports_only_files_above_it(name):
    below = [other for other in imported(PACKAGE / f"{name}.py") if ORDER.index(other) >= ORDER.index(name)]
    assert not below


@pytest.mark.parametrize("name", LIGHT)
def test_what_must_answer_at_once_imports_neither_torch_nor_ray(name):
    code = f"import sys, dacnn_search.{name}; print(sorted({{'torch', 'ray', 'optuna'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
