"""What README.md shows besides its commands, which .ci/readme.py runs."""

import re
from pathlib import Path

import pytest

from dacnn_search.common.yaml import read_yaml
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SpaceSettings
from dacnn_search.space.validation import validate

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.S | re.M)


def test_the_first_screen_has_the_two_commands():
    main, tests = blocks("bash")[:2]
    assert main.strip() == (
        "python -m pip install -e . && python -m dacnn_search.run --space search_spaces/default.yaml"
    )
    assert tests.strip() == 'python -m pip install -e ".[test]" && python -m pytest'


def test_its_yaml_is_valid(space_file):
    data, architecture = blocks("yaml")
    document = read_yaml(space_file(data + architecture))
    values, problems = validate(document.data, SpaceSettings)
    assert not problems
    assert values["data"].name == "folder"


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_spaces_are_valid(path):
    space = SearchSpace.from_yaml(path)
    assert space.name == path.stem or path.stem == "default"
    assert space.meets_constraints(next(space.networks())[0])


def test_the_template_explains_every_key():
    text = (ROOT / "search_spaces" / "template.yaml").read_text(encoding="utf-8")

    def keys(model):
        for name, field in model.model_fields.items():
            yield name
            if hasattr(field.annotation, "model_fields"):
                yield from keys(field.annotation)

    missing = [key for key in keys(SpaceSettings) if not re.search(rf"^[ #]*{key}:", text, re.M)]
    assert not missing
