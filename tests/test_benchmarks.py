"""The benchmarks can be started: each is imported and asked for help, nothing is measured."""

import importlib
import runpy
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))
PEERS = {"syne_tune_peer": "syne_tune", "botorch_peer": "botorch"}  # which are not among our dependencies
MODULES = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path not in SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_is_given(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out


@pytest.mark.parametrize("module", MODULES)
def test_what_they_share_can_be_imported(module):
    if module in PEERS:
        pytest.importorskip(PEERS[module])
    assert importlib.import_module(module).__doc__
