import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two cores are shared by all workers of the tests

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")


@pytest.fixture
def space_file(tmp_path):
    """Writes a search space and returns its path."""

    def write(text, name="space.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
