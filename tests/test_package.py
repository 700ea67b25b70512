"""The package as it is declared and built: dependencies, tested versions, and what a wheel holds."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
USE_PRIVATE_PARTS = ("torch", "optuna", "ray")


def plain(name: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {plain(re.split(r"[\[<>=!; ]", requirement)[0]) for requirement in requirements}


def imports(folder: Path) -> Iterator[str]:
    """Yield the top-level package of every absolute import in a folder's files, inside functions too."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (name.name.split(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield str(node.module).split(".")[0]


def imported_distributions(folder: Path, own: set[str]) -> set[str]:
    """Return the distributions whose packages are imported in a folder, without Python's own and those in `own`."""
    known = importlib.metadata.packages_distributions()
    packages = set(imports(folder)) - sys.stdlib_module_names - own - {"dacnn_search"}
    return {plain(name) for package in packages for name in known.get(package, [package])}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    imported = imported_distributions(ROOT / "dacnn_search", own={"pydantic_core"})  # a part of pydantic
    needed, extras = names(PROJECT["dependencies"]), names([*EXTRAS["export"], *EXTRAS["wandb"], *EXTRAS["mlflow"]])
    assert imported - extras == needed
    assert extras - {"onnxscript"} <= imported  # torch.onnx imports onnxscript


def test_what_the_tests_import_is_declared():
    own = {path.stem for folder in (ROOT / "tests", ROOT / "benchmarks") for path in folder.iterdir()}
    imported = imported_distributions(ROOT / "tests", own)
    declared = names([*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)])
    assert imported <= declared


def test_constraints_cover_the_dependencies():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {plain(line.split("==")[0]) for line in lines if "==" in line}
    tested = names([*PROJECT["dependencies"], *EXTRAS["export"], *EXTRAS["test"], *EXTRAS["dev"]])
    assert tested - {"dacnn-search"} == pinned


def test_libraries_of_which_private_parts_are_used_have_an_upper_bound():
    for requirement in PROJECT["dependencies"]:
        assert names([requirement]).isdisjoint(USE_PRIVATE_PARTS) or "<" in requirement, requirement


@pytest.mark.slow
def test_wheel_has_the_console_script_types_and_all_files(tmp_path):
    pytest.importorskip("build")
    copied = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, copied.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            target = tmp_path / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist")]
    subprocess.run([*command, str(tmp_path / "source")], capture_output=True, check=True)
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
        scripts = next(name for name in held if name.endswith("entry_points.txt"))
        assert "dacnn-search = dacnn_search.cli:main" in wheel.read(scripts).decode()
    source = tmp_path / "source"
    files = {path.relative_to(source).as_posix() for path in (source / "dacnn_search").rglob("*") if path.is_file()}
    assert files <= held
