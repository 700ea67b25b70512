import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from dacnn_search.training.recipe import PRESETS, Recipe, learning_rate_at


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_complete_and_survives_a_round_trip(name: str) -> None:
    recipe = Recipe.model_validate_json(f'{{"name": "{name}"}}')
    assert recipe.name == name
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe(**recipe.model_dump()) == recipe


def test_the_paper_trains_on_cifar_as_published() -> None:
    recipe = Recipe(name="paper")
    assert (recipe.optimizer, recipe.epochs, recipe.crop, recipe.label_smoothing) == ("adagrad", 90, 0, 0)
    steps_per_epoch = 391
    rates = [learning_rate_at(recipe, epoch * steps_per_epoch, 90 * steps_per_epoch) for epoch in (0, 44, 45, 89)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_what_is_given_goes_before_the_preset() -> None:
    recipe = Recipe.model_validate_json('{"name": "paper", "epochs": 60, "milestones": [0.25, 0.5]}')
    assert (recipe.epochs, recipe.milestones, recipe.learning_rate) == (60, (0.25, 0.5), 0.1)


@pytest.mark.parametrize("name", ["fast", "paper"])
def test_a_recipe_without_distillation_is_written_as_before_there_was_any(name: str) -> None:
    """Records and identities of older trainings lack it."""
    assert "distillation" not in Recipe.model_validate({"name": name, "distillation": 0.0}).model_dump(mode="json")
    assert Recipe.model_validate({"name": name, "distillation": 0.5}).model_dump(mode="json")["distillation"] == 0.5


def test_the_best_recipe_can_be_taken_without_distillation() -> None:
    assert Recipe(name="best").distillation > 0
    plain = Recipe(name="best", distillation=0.0)
    assert Recipe.model_validate(plain.model_dump(mode="json")) == plain


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"epochs": 2.0}, "valid integer"),
        ({"batch_size": 1}, "greater than or equal to 2"),
        ({"learning_rate": 0.0}, "greater than 0"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"momentum": 1.0}, "less than 1"),
        ({"label_smoothing": 1.0}, "less than 1"),
        ({"distillation": 1.0}, "less than 1"),
        ({"flip": "yes"}, "'auto', True or False"),
        ({"name": "slow"}, "'fast', 'paper' or 'best'"),
        ({"name": ["fast"]}, "'fast', 'paper' or 'best'"),
        ({"milestones": [0.5, 1.0]}, "less than 1"),
        ({"milestones": [0.5, 0.25]}, r"milestones must rise, but are \[0.5, 0.25\]"),
        ({"rate": 0.1}, "not permitted"),
        ({"name": "paper", "optimizer": "adamw"}, "preset's adagrad needs a learning_rate .* adamw has none"),
    ],
)
def test_a_broken_rule_is_told(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate(given)


def test_only_a_mapping_is_a_recipe() -> None:
    with pytest.raises(ValidationError, match="dictionary"):
        Recipe.model_validate("fast")


def test_every_field_is_described_for_editors() -> None:
    schema = Recipe.model_json_schema()
    assert all(field.get("description") for field in schema["properties"].values())
    assert "required" not in schema


def test_one_cycle_rises_to_the_given_rate_and_falls_towards_0() -> None:
    recipe, steps = Recipe(schedule="one_cycle", learning_rate=0.5), 1000
    rates = [learning_rate_at(recipe, step, steps) for step in range(steps)]
    assert 0 < rates[0] < 0.05
    assert max(rates) == rates[300] == pytest.approx(0.5)
    assert rates[:301] == sorted(rates[:301])
    assert rates[300:] == sorted(rates[300:], reverse=True)
    assert 0 < rates[-1] < 1e-4


def test_step_divides_by_10_at_each_milestone() -> None:
    recipe = Recipe(schedule="step", learning_rate=1.0, milestones=(0.25, 0.5))
    assert [learning_rate_at(recipe, step, 4) for step in range(4)] == pytest.approx([1, 0.1, 0.01, 0.01])


def test_constant_stays() -> None:
    recipe = Recipe(schedule="constant", learning_rate=0.3)
    assert {learning_rate_at(recipe, step, 7) for step in range(7)} == {0.3}


def test_torch_is_not_imported() -> None:
    code = "import sys, dacnn_search.training.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
