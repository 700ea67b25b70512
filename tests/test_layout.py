"""The order of the modules: a file imports only files above it, and what must answer at once imports no torch or ray."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dacnn_search

PACKAGE = Path(dacnn_search.__file__).parent

ORDER = """
errors files units commands signals yaml_io architecture drawing cost zoo
datasets user_datasets data recipe settings space space_size preview pareto ledger run_directory
""".split()

LIGHT = """
errors files units commands signals yaml_io architecture drawing cost zoo datasets user_datasets data recipe settings
space space_size preview pareto ledger run_directory progress console dashboard run
""".split()


def imported(path):
    """The modules of this package that a file imports at its top level or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dacnn_search":
            parts = node.module.split(".")[1:]
            yield from parts[:1] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("dacnn_search."))
