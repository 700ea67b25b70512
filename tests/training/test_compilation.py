from pathlib import Path

import pytest

from dacnn_search.network.architecture import Architecture, Section
from dacnn_search.network.model import Network
from dacnn_search.training.compilation import should_compile
from dacnn_search.training.recipe import Recipe


def test_only_a_long_training_on_a_gpu_is_compiled_unless_the_recipe_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", "gcc")
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    large = Network(Architecture((Section(8, 256), Section(8, 512))), 3, 10)
    tiny = Network(Architecture((Section(1, 4),)), 3, 10)

    def compiles(recipe: Recipe, model: Network, gpu: bool) -> bool:
        return should_compile(recipe, model, 2000, (3, 32, 32), gpu)

    long, short = Recipe(epochs=10_000), Recipe(epochs=2)
    assert compiles(long, large, True)
    assert not compiles(short, large, True)
    assert not compiles(long, large, False)
    for compiled in (True, False):
        recipe = long.model_copy(update={"compiled": compiled})
        assert compiles(recipe, large, False) is compiles(recipe, tiny, True) is compiled
    monkeypatch.delenv("CC")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert not compiles(long, large, True)  # torch needs a C compiler
    monkeypatch.setenv("CC", "gcc")
    (tmp_path / "Python.h").unlink()
    assert not compiles(long, large, True)  # and Python's headers
