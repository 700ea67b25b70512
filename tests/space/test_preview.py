"""The preview of a space, as text and as a command."""

import json
import subprocess
import sys
from pathlib import Path

from small_space import make_space

from dacnn_search.common.units import format_bytes
from dacnn_search.space.__main__ import SHOWN, preview
from dacnn_search.space.count import count_networks
from dacnn_search.space.search_space import SearchSpace
from dacnn_search.space.settings import SpaceSettings


def run_command(*arguments):
    command = [sys.executable, "-m", "dacnn_search.space", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_preview_promises_no_more_trials_than_there_are_networks(space_file):
    path = space_file("data: {name: digits}\narchitecture: {sections: 1, depth: {choice: [1, 2]}, width: 4}\n")
    assert "\n2 trials of 12 epochs" in preview(SearchSpace.from_yaml(path))


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


def test_the_example_of_a_large_space_is_told_as_what_it_is():
    """Anchors that are as many as the layers are free weights, and no layer has more inputs than there are layers."""
    parts = {"sections": 1, "depth": 4, "width": {"range": {"low": 1, "high": 900}}, "sharing": "second", "anchors": 2}
    three = {"regulators": {"choice": ["none", "block", "layer"]}}
    text = preview(make_space({**parts, **three, "shortcuts": "history"}))
    assert " wide, 4 deep, free weights" in text
    assert ", history of 4\n" in text


def test_preview_shows_the_range_of_each_cost_within_the_limits(space_file):
    parts = {"sections": {"choice": [1, 2]}, "depth": {"choice": [1, 4]}, "width": {"choice": [4, 8, 16]}}
    space = make_space(parts, {"ram": {"max": "1kB"}})
    costs = [space.cost(network) for network, _ in space.networks()]
    parameters, flash, ram = ([getattr(cost, name) for cost in costs] for name in ("parameters", "flash", "ram"))
    assert max(ram) <= 1000
    lines = preview(space).splitlines()
    assert f"parameters          {min(parameters):,} to {max(parameters):,}" in lines
    assert f"flash (int8 C)      {format_bytes(min(flash))} to {format_bytes(max(flash))}" in lines
    assert f"RAM (int8 C)        {min(ram)} B to {max(ram)} B" in lines


def test_preview_shows_how_the_size_that_is_searched_is_spread(space_file):
    text = "data: {name: digits}\narchitecture: {sections: 1, depth: 1, width: {choice: [4, 8, 16]}}\n"
    assert "     parameters\n" in preview(SearchSpace.from_yaml(space_file(text)))
    assert " bytes of flash\n" in preview(SearchSpace.from_yaml(space_file(f"{text}search: {{objective: flash}}\n")))


def test_preview_of_a_space_that_is_listed_in_full_shows_the_largest_networks_there_are():
    parts = {"sections": {"choice": [1, 2]}, "depth": {"choice": [1, 4]}, "width": {"choice": [4, 8, 16]}}
    limits = {"parameters": 900, "macs": 60_000, "flash": 2_500}
    space = make_space(parts, {name: {"max": most} for name, most in limits.items()})
    costs = [space.cost(network) for network, _ in space.networks()]
    lines = preview(space).splitlines()
    for name, title, shown in SHOWN:
        values = [getattr(cost, name) for cost in costs]
        assert f"{title:<20}{shown(min(values))} to {shown(max(values))}" in lines


def test_command_previews_or_tells_the_mistakes(space_file):
    good = run_command(Path(__file__).parents[2] / "search_spaces" / "default.yaml")
    assert good.returncode == 0
    assert "distinct networks" in good.stdout
    bad = run_command(space_file("data: {name: digits, colour: red}\nspeed: fast\n"))
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr
    assert len(bad.stderr.splitlines()) == 3
    missing = run_command("search_spaces/no such.yaml")
    assert (missing.returncode, missing.stderr) == (2, "search_spaces/no such.yaml: no such file\n")


def test_schema_is_json_and_knows_the_keys():
    schema = json.loads(run_command("--schema").stdout)
    assert set(schema["properties"]) == set(SpaceSettings.model_fields)
    assert schema["additionalProperties"] is False
