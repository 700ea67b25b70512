import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import jsonschema
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import space_parts

from dacnn_search.common.errors import InputError, SpaceError
from dacnn_search.common.yaml import read_yaml
from dacnn_search.data.dataset import DataSummary
from dacnn_search.space.choices import enumerate_answers
from dacnn_search.space.count import count_networks
from dacnn_search.space.preview import preview
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SpaceSettings
from dacnn_search.space.validation import validate

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
GREY = DataSummary((1, 8, 8), 10, 1000, 400, 300)


def make_space(parts, constraints=None, summary=GREY):
    data = {"data": {"name": "digits"}, "architecture": parts, "constraints": constraints or {}}
    settings, problems = validate(data, SpaceSettings)
    assert not problems
    return SearchSpace(settings, summary)


def all_fingerprints(space):
    """By brute force: every answer to every question."""
    return {architecture.fingerprint for architecture, _ in enumerate_answers(space.tree.build)}


@given(space_parts())
@settings(max_examples=120)
def test_count_equals_enumeration(parts):
    space = make_space(parts)
    fingerprints = all_fingerprints(space)
    assert count_networks(space.tree) == len(fingerprints)
    assert {architecture.fingerprint for architecture, _ in space.networks()} == fingerprints


@given(space_parts(), st.integers(0, 3), st.sampled_from(["parameters", "macs"]))
@settings(max_examples=60)
def test_only_networks_within_constraints_are_drawn_and_listed(parts, seed, name):
    free = make_space(parts)
    costs = sorted(getattr(free.cost(a), name) for a, _ in free.networks())
    limit = costs[len(costs) // 10]
    space = make_space(parts, {name: {"max": limit}})
    listed = [a for a, _ in space.networks()]
    assert len(listed) == sum(cost <= limit for cost in costs)
    assert all(getattr(space.cost(a), name) <= limit for a in listed)
    generator = random.Random(seed)
    for _ in range(10):
        architecture, choices = space.draw(generator)
        assert getattr(space.cost(architecture), name) <= limit
        assert space.replay(choices)[0] == architecture


@given(space_parts())
@settings(max_examples=60)
def test_extremes_bound_all_networks(parts):
    space = make_space(parts)
    sizes = [space.cost(a).parameters for a, _ in space.networks()]
    least, most = space.extremes()
    assert (least.parameters, most.parameters) == (min(sizes), max(sizes))


@given(space_parts(), st.integers(0, 5))
@settings(max_examples=40)
def test_optuna_suggests_what_replay_reads(parts, seed):
    space = make_space(parts)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    architecture = space.suggest(trial)
    replayed, asked = space.replay(trial.params)
    assert replayed == architecture == architecture.canonical()
    assert set(asked) == set(trial.params)


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
    ],
)
def test_what_first_guesses_get_wrong_is_told(space_file, line, message):
    path = space_file(f"data: {{name: digits}}\narchitecture: {{sections: 1, depth: 1, width: 4}}\n{line}\n")
    with pytest.raises(SpaceError) as raised:
        SearchSpace.from_yaml(path)
    assert f"{path}:3: {message}" in str(raised.value)


def test_a_preview_promises_no_more_trials_than_there_are_networks(space_file):
    path = space_file("data: {name: digits}\narchitecture: {sections: 1, depth: {choice: [1, 2]}, width: 4}\n")
    assert "\n2 trials of 12 epochs" in preview(SearchSpace.from_yaml(path))


def test_a_fixed_space_has_one_network_and_asks_nothing():
    space = make_space({"sections": 4, "depth": 8, "width": 12, "growth": 1.5, "sharing": "section"})
    assert count_networks(space.tree) == 1
    ((architecture, choices),) = space.networks()
    assert choices == {}
    assert [s.width for s in architecture.sections] == [12, 18, 27, 41]
    assert architecture.is_residual


def test_growth_is_not_asked_where_it_does_not_apply():
    parts = {"sections": 2, "depth": 1, "width": 4, "growth": {"choice": [1, 2]}, "sharing": "network"}
    assert all(choices == {} for _, choices in make_space(parts).networks())


@pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler(0), optuna.samplers.TPESampler(seed=0)])
def test_a_range_of_fractions_gives_the_values_it_lists(sampler):
    growth = {"range": {"low": 1.0, "high": 2.0, "step": 0.1}}
    space = make_space({"sections": 2, "depth": 1, "width": 10, "growth": growth})
    study = optuna.create_study(sampler=sampler)
    found = set()
    for _ in range(60):
        trial = study.ask()
        architecture = space.suggest(trial)
        assert space.replay(trial.params)[0] == architecture
        found.add(trial.params["growth"])
        study.tell(trial, architecture.sections[1].width)
    assert found <= {1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0}
    assert len(found) > 5


def test_lists_say_each_section_alone():
    parts = {
        "sections": {"choice": [1, 2]},
        "depth": [3, {"range": {"low": 1, "high": 5, "step": 2}}],
        "regulators": ["none", {"choice": ["block", "layer"]}],
        "width": 4,
    }
    found = {tuple((s.depth, s.regulators) for s in a.sections) for a, _ in make_space(parts).networks()}
    second = set(itertools.product([1, 3, 5], ["block", "layer"])) - {(1, "layer")}
    assert found == {((3, "none"),)} | {((3, "none"), s) for s in second}


def test_a_constraint_that_no_network_meets():
    parts = {"sections": {"choice": [1, 2]}, "depth": 1, "width": {"choice": [8, 16]}}
    with pytest.raises(SpaceError, match="the smallest has 770 parameters and max is 500"):
        make_space(parts, {"parameters": {"max": 500}})


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
    assert "keys must differ" in told[12]
    assert "architecture.sharing: must be 'network', 'section' or 'none', but is \"layers\"" in told[9]
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


def test_two_constraints_that_exclude_each_other():
    """The plain network has fewer parameters, the mixed one, narrow behind its transition, fewer MACs."""
    parts = {
        "sections": 2,
        "depth": 1,
        "width": 8,
        "growth": 0.25,
        "sharing": {"choice": ["network", "section"]},
    }
    plain, mixed = (make_space({**parts, "sharing": s}).extremes()[0] for s in ("network", "section"))
    with pytest.raises(SpaceError, match="each network breaks one of them"):
        make_space(parts, {"parameters": {"max": plain.parameters}, "macs": {"max": mixed.macs}})


def test_preview_states_the_exact_number_and_share(space_file):
    parts = {
        "sections": {"choice": [1, 2]},
        "depth": {"range": {"low": 1, "high": 3}},
        "width": {"choice": [4, 8]},
    }
    space = make_space(parts, {"parameters": {"max": 900}})
    fits = sum(1 for _ in space.networks())
    text = preview(space)
    assert f"distinct networks   {count_networks(space.tree)}\n" in text
    assert f"meet constraints    {fits} of {count_networks(space.tree)}\n" in text
    assert "section 1" in text


def run_command(*arguments):
    command = [sys.executable, "-m", "dacnn_search.space", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_command_previews_or_tells_the_mistakes(space_file):
    good = run_command("search_spaces/default.yaml")
    assert good.returncode == 0
    assert "distinct networks" in good.stdout
    bad = run_command(space_file(BROKEN))
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr
    assert len(bad.stderr.splitlines()) == 14
    missing = run_command("search_spaces/no such.yaml")
    assert (missing.returncode, missing.stderr) == (2, "search_spaces/no such.yaml: no such file\n")


def test_schema_is_json_and_knows_the_keys():
    schema = json.loads(run_command("--schema").stdout)
    assert set(schema["properties"]) == set(SpaceSettings.model_fields)
    assert schema["additionalProperties"] is False


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
