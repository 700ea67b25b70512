import os
import re
import shutil
import tempfile
from pathlib import Path

# A training's speed is measured once for all tests, and kept apart from what the user's own cache has.
os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir(), "dacnn_search_tests"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two cores are shared by all workers of the tests

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")


def pytest_configure(config):
    """Let tests run on the CPU where there is a GPU too, unless `-m` chooses those that need one."""
    if not re.search(r"(?<!not )\bgpu\b", config.getoption("markexpr")):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture
def space_file(tmp_path):
    """Writes a search space and returns its path."""

    def write(text, name="space.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A run directory with two networks that were trained in full, for a second in all. Only `best/` may be written."""
    from small_run import write_small_run

    return write_small_run(tmp_path_factory.mktemp("small") / "results")


@pytest.fixture
def run_copy(small_run, tmp_path):
    """The same without `best/`, which another test may have written; to be changed."""
    from dacnn_search.storage.run_directory import RunDirectory

    copy = shutil.copytree(small_run.folder, tmp_path / "results" / "tiny", ignore=shutil.ignore_patterns("best"))
    return RunDirectory(copy)
