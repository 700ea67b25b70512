"""The settings of a space file as objects."""

from pathlib import Path

from dacnn_search.space.search_space import SearchSpace


def test_settings_of_a_file_can_be_written_and_read_again():
    """Without a warning, which the tests would raise."""
    settings = SearchSpace.from_yaml(Path(__file__).parents[2] / "search_spaces" / "default.yaml").settings.architecture
    assert type(settings).model_validate(settings.model_dump(mode="json")) == settings
