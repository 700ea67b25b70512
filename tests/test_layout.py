"""What must answer at once imports neither torch nor Ray nor Optuna. (`lint-imports` checks the order of the rooms.)"""

import subprocess
import sys
from pathlib import Path

import dacnn_search

PACKAGE = Path(dacnn_search.__file__).parent
HEAVY = {
    *(
        "network.model",
        "training.augmentation",
        "training.light_optimizers",
        "training.device_data",
    ),
    *("training.trainer", "training.weights", "export.classifier", "export.formats"),
    *("export.exporter", "export.parity", "export.c.code", "export.c.quantization", "export.c.source"),
    *("search.report", "search.tune", "search.search"),
    *("search.retrain", "search.driver", "search.trial", "search.tracking"),
    *("search.sampler.surrogate", "search.sampler.domain", "search.sampler.proposals"),
    *("search.cluster.ray_cluster", "search.cluster.worker", "search.cluster.tasks"),
    *("paper.reproduce", "paper.worker", "paper.filters"),
}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
}


def test_every_heavy_module_is_there():
    assert HEAVY <= MODULES


def test_light_modules_import_nothing_heavy():
    code = "import importlib, sys\n"
    code += f"for name in {sorted(MODULES - HEAVY)}:\n"
    code += "    importlib.import_module(f'dacnn_search.{name}')\n"
    code += "    heavy = {'torch', 'ray', 'optuna'} & sys.modules.keys()\n"
    code += "    assert not heavy, (name, heavy)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
