"""The settings of a space file as objects."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import ArchitectureSettings, RetrainSettings
from dacnn_search.training.recipe import Recipe


def test_settings_of_a_file_can_be_written_and_read_again():
    """Without a warning, which the tests would raise."""
    settings = SearchSpace.from_yaml(Path(__file__).parents[2] / "search_spaces" / "default.yaml").settings.architecture
    assert type(settings).model_validate(settings.model_dump(mode="json")) == settings


def test_defaults_are_those_of_a_file_that_names_them():
    least = {"sections": 2, "depth": 2, "width": 8}
    settings = ArchitectureSettings.model_validate(least)
    assert ArchitectureSettings.model_validate(settings.model_dump(mode="json")) == settings
    assert ArchitectureSettings.model_validate({**least, "growth": 1.0, "anchors": 1}) == settings
    assert settings.model_dump(exclude_defaults=True) == least


@pytest.mark.parametrize("width", [[8, 16], {"value": 8}])
def test_a_list_without_choice_is_told_how_it_is_written(width):
    with pytest.raises(ValidationError, match=r"must be a value, \{choice: \[...\]\} or"):
        ArchitectureSettings.model_validate({"sections": 2, "depth": 2, "width": width})


@pytest.mark.parametrize(
    ("residual", "shortcuts"),
    [(True, "block"), ("auto", "auto"), ({"choice": ["auto", False]}, {"choice": ["auto", "none"]})],
)
def test_residual_is_the_old_name_of_shortcuts(residual, shortcuts):
    least = {"sections": 2, "depth": 2, "width": 8}
    old = ArchitectureSettings.model_validate({**least, "residual": residual})
    assert old == ArchitectureSettings.model_validate({**least, "shortcuts": shortcuts})


@pytest.mark.parametrize(("given", "flip"), [({"name": "best"}, False), ({"name": "best", "flip": True}, True)])
def test_another_recipe_for_retraining_mirrors_as_the_search_did_unless_it_says_so(given, flip):
    settings = RetrainSettings.model_validate({"recipe": given})
    full = settings.full_recipe(Recipe(flip=False, epochs=3))
    assert (full.name, full.epochs, full.flip) == ("best", Recipe(name="best").epochs, flip)
