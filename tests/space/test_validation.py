"""Mistakes in space files are told all at once, with line, key, rule and value."""

import json
from pathlib import Path

import jsonschema
import pytest
from small_space import make_space

from dacnn_search.common.errors import InputError, SpaceError
from dacnn_search.common.yaml import read_yaml
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SpaceSettings

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"


BROKEN = """\
name: ../up
data: {name: digits, colour: red}
architecture:
  sections: {choice: []}
  depht: 3
  depth: {range: {low: 5, high: 2}}
  width: 8
  growth: {choise: [1, 2]}
  sharing: layers
  anchors: {choice: [1, 1]}
  residual: maybe
  width: 9
constraints: {parameters: {max: -3}}
recipe: {epochs: 0}
search: {trials: 1.5}
speed: fast
"""


def test_all_mistakes_of_a_file_are_told_at_once_with_their_lines(space_file):
    path = space_file(BROKEN)
    with pytest.raises(SpaceError) as error:
        SearchSpace.from_yaml(path)
    lines = str(error.value).splitlines()
    told = {int(line.removeprefix(f"{path}:").split(":")[0]): line for line in lines}
    assert set(told) == {1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16}
    assert "unknown key 'depht'; did you mean 'depth'?" in told[5]
    assert "low <= high must hold, but got (low=5, high=2)" in told[6]
    assert "architecture.residual: must be 'auto', 'none', 'block' or 'history', but is \"maybe\"" in told[11]
    assert "keys must differ" in told[12]
    assert "architecture.sharing: must be 'network', 'section', 'second' or 'none', but is \"layers\"" in told[9]
    assert "{choice: [...]}" in told[8]
    assert "unknown key 'speed'" in told[16]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "must be a mapping"),
        ("data: {name: digits}", 1, "architecture is missing"),
        (
            "data: {name: digits}\narchitecture: {sections: 5, depth: 1, width: 4}",
            2,
            "5 sections need 4 poolings and 8x8 pixels allow 3",
        ),
        (
            "data:\n  name: digits\n  validation: 0\narchitecture: {sections: 1, depth: 1, width: 4}",
            3,
            "a search needs validation images, but a share of 0.0 gives none",
        ),
        (
            "data: {name: digits}\narchitecture:\n  sections: 3\n  depth: [1, 2]\n  width: 4",
            4,
            "a list needs an entry for each of 3 sections, but has 2",
        ),
        (
            "data: {name: digits}\narchitecture: {sections: 1, depth: 1, width: 4}\n"
            "constraints:\n  parameters: {max: 10}",
            4,
            "some network must meet the constraint, but the smallest has 246 parameters and max is 10",
        ),
        (
            "data: {name: digits}\narchitecture:\n  {sections: 1, depth: 1, width: 4,\n  shortcuts: auto,\n"
            "  residual: true}",
            5,
            "architecture.residual: it is the old name of shortcuts, which is given too: keep only shortcuts",
        ),
        (
            "data: {name: digits}\narchitecture: {sections: 1, depth: 1, width: 4}\nconstraints: {ram: {max: 0.3kB}}",
            3,
            "constraints.ram.max: some network must meet the constraint, but the smallest has 324 bytes of RAM and max "
            "is 300",
        ),
        (
            "data: {name: digits}\nsearch: {objective: flash}\n"
            "architecture: {sections: 1, depth: 1, width: 4, batch_norm: {choice: [true, false]}}",
            3,
            'architecture.batch_norm: must be true, but is {"choice":[true,false]}: flash and RAM are those of C code',
        ),
        (
            "data: {name: digits}\narchitecture: {sections: 3, depth: 1, width: 900, growth: 9}",
            2,
            "all widths must lie in",
        ),
    ],
)
def test_one_mistake(space_file, text, line, message):
    path = space_file(text)
    with pytest.raises(InputError) as error:
        SearchSpace.from_yaml(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("recipe: {crop: 8}", "recipe.crop: must be less than the 8 pixels of an image's side, but is 8"),
        ("recipe: {cutout: 200}", "recipe.cutout: must be less than the 8 pixels of an image's side, but is 200"),
        ("retrain: {recipe: {crop: 60}}", "retrain.recipe.crop: must be less than the 8 pixels"),
        (
            "constraints: {parameters: 50k}",
            'constraints.parameters: must be {max: ...}, such as {max: 50k}, but is "50k"',
        ),
        ("retrain: {budgets: 20k}", 'retrain.budgets: must be a list, but is "20k"'),
        ("retrain: {budgets: [16kB]}", "retrain.budgets: must be a count such as 50000, 50k or 1.5M, but is '16kB'"),
        (
            "retrain: {budgets: [20k, 100]}",
            "retrain.budgets: some network must fit each budget, but the smallest has 246 parameters and the least "
            "budget is 100",
        ),
        ("search: {fidelity: 12}", "search.fidelity: must be below the 12 epochs of a trial, but is 12"),
        ("constraints: {flash: 32kB}", 'constraints.flash: must be {max: ...}, such as {max: 32kB}, but is "32kB"'),
        (
            "constraints: {flash: {max: 32k}}",
            "constraints.flash.max: must be a size such as 100kB, 1.5MB or 64KiB, but is '32k'",
        ),
        ("constraints: {ram: {maximum: 8kB}}", "constraints.ram: unknown key 'maximum'; did you mean 'max'?"),
    ],
)
def test_what_first_guesses_get_wrong_is_told(space_file, line, message):
    path = space_file(f"data: {{name: digits}}\narchitecture: {{sections: 1, depth: 1, width: 4}}\n{line}\n")
    with pytest.raises(SpaceError) as raised:
        SearchSpace.from_yaml(path)
    assert f"{path}:3: {message}" in str(raised.value)


WRONG_VALUES = """\
data: {name: digits}
architecture:
  sections: {choice: [a, 2]}
  depth: {range: {low: x, high: 2.5}}
  width: {choice: [0, 5.5]}
  sharing: {choice: [layers]}
  growth: {choice: [-1, big]}
  regulators: [none, {choice: [sometimes]}]
  batch_norm: {choice: [1]}
"""


def test_values_inside_choices_and_ranges_are_checked(space_file):
    path = space_file(WRONG_VALUES)
    with pytest.raises(SpaceError) as error:
        SearchSpace.from_yaml(path)
    lines = [line.removeprefix(f"{path}:").split(":")[0] for line in str(error.value).splitlines()]
    assert lines == ["3", "4", "4", "5", "5", "6", "7", "7", "8", "9"]
    assert "architecture.regulators.1.choice.0: must be 'none', 'block' or 'layer', but is \"sometimes\"" in str(
        error.value
    )


def test_two_constraints_that_exclude_each_other():
    """The plain network has fewer parameters, the mixed one, narrow behind its transition, fewer MACs."""
    parts = {
        "sections": 2,
        "depth": 1,
        "width": 8,
        "growth": 0.25,
        "sharing": {"choice": ["network", "section"]},
    }
    spaces = [make_space({**parts, "sharing": s}) for s in ("network", "section")]
    (parameters, _), (macs, _) = spaces[0].extremes("parameters"), spaces[1].extremes("macs")
    with pytest.raises(SpaceError, match="each network breaks one of them"):
        make_space(parts, {"parameters": {"max": parameters}, "macs": {"max": macs}})


def test_a_constraint_that_no_network_meets():
    parts = {"sections": {"choice": [1, 2]}, "depth": 1, "width": {"choice": [8, 16]}}
    with pytest.raises(SpaceError, match="the smallest has 770 parameters and max is 500"):
        make_space(parts, {"parameters": {"max": 500}})


def test_schema_for_editors_is_up_to_date_and_agrees_with_the_checks(space_file):
    path = SPACES / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    assert schema == SpaceSettings.model_json_schema(), (
        "python -m dacnn_search.space --schema > search_spaces/schema.json"
    )
    validator = jsonschema.Draft202012Validator(schema)
    for file in SPACES.glob("*.yaml"):
        assert validator.is_valid(read_yaml(file).data), file
    data = read_yaml(SPACES / "default.yaml").data
    for key, value in {"sections": {"choice": ["a"]}, "sharing": {"choice": ["layers"]}, "depth": [2, 0.5]}.items():
        assert not validator.is_valid({**data, "architecture": {**data["architecture"], key: value}})
