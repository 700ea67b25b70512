"""Check what README.md and the other pages show. (.ci/readme.py runs the commands of README.md.)"""

import re
from pathlib import Path

import pytest

import dacnn_search
from dacnn_search.common.yaml import read_yaml
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SpaceSettings
from dacnn_search.space.validation import validate

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"), ROOT / "results/README.md"])


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
    assert validate(document.data, SpaceSettings, document).data.name == "folder"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_file_names_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link
    for name in re.findall(r"`((?:benchmarks|dacnn_search|docs|search_spaces|tests)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name


def test_every_file_of_a_run_directory_is_in_its_page():
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    missing = [path.name for path in (ROOT / "tests/fixtures/run-0.1").iterdir() if f"`{path.name}" not in text]
    assert not missing


def test_its_python_uses_public_names_only():
    for block in blocks("python"):
        for names in re.findall(r"^from dacnn_search import (.+)$", block, re.M):
            assert set(names.split(", ")) <= set(dacnn_search.__all__)
        assert "dacnn_search." not in block


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
