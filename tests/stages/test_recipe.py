from __future__ import annotations

from pathlib import Path

import pytest

from secateur.errors import UserError
from secateur.pruning.settings import PruneSettings
from secateur.stages.recipe import available, configured, load_recipe


def test_every_shipped_recipe_is_complete() -> None:
    recipes = {recipe.name: recipe for recipe in available()}
    assert {"slimming", "demo"} <= set(recipes)
    for recipe in recipes.values():
        assert recipe.summary
        assert recipe.source
        assert [stage.verb for stage in recipe.stages]
        assert "\n" not in recipe.summary + recipe.source


def test_a_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nstages:\n  - prune: {criterion: l1}\n")
    recipe = load_recipe(file)
    assert [(stage.verb, stage.settings) for stage in recipe.stages] == [("prune", {"criterion": "l1"})]


def test_a_repetition_is_unrolled(tmp_path: Path) -> None:
    file = tmp_path / "rounds.yaml"
    file.write_text("stages: [{train: {}}, {repeat: {rounds: 2, stages: [{prune: {layers: 1}}, {finetune: {}}]}}]")
    stages = load_recipe(file).stages
    assert [stage.verb for stage in stages] == ["train", "prune", "finetune", "prune", "finetune"]
    assert [(stage.round, stage.rounds) for stage in stages] == [(1, 1), (1, 2), (1, 2), (2, 2), (2, 2)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("just words", "is not a recipe"),
        ("stages: [fly]", "each stage is one verb"),
        ("stages: [{fly: {}}]", "unknown stage 'fly'"),
        ("stages: [{train: {when: never}}]", "unknown condition 'when: never'"),
        ("stages: [", "Cannot read the recipe"),
        ("stages: [{repeat: {rounds: 2}}]", "a repetition is written"),
        ("stages: [{repeat: {rounds: 0, stages: []}}]", "rounds from 1 to 100"),
        ("stages: [{repeat: {rounds: 2, stages: [{repeat: {rounds: 2, stages: [{prune: {}}]}}]}}]", "inside another"),
    ],
)
def test_broken_recipes_are_named(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence):
        load_recipe(file)


def test_unknown_recipe_and_setting() -> None:
    with pytest.raises(UserError, match=r"Unknown recipe 'nothing'; choose one of .*slimming"):
        load_recipe("nothing")
    with pytest.raises(UserError, match="here: unknown setting 'colour'"):
        configured(PruneSettings(), {"colour": 1}, "here")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"layers": "two"}, "here, layers is 'two'; it must be a whole number"),
        ({"layers": 2.5}, "it must be a whole number"),
        ({"min_share": "1e-1"}, "write 1.0e-4"),
        ({"absorb": 1}, "it must be true or false"),
        ({"criterion": ["l1"]}, "it must be a word"),
    ],
)
def test_values_of_another_type_are_named(setting: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        configured(PruneSettings(), setting, "here")


def test_what_yaml_writes_otherwise_is_understood() -> None:
    chosen = configured(PruneSettings(), {"params": 0.5, "percent": 0, "exclude": "model.0.*", "min_share": 1}, "here")
    assert (chosen.params, chosen.percent, chosen.exclude, chosen.min_share) == ("0.5", 0, ("model.0.*",), 1)
    assert configured(PruneSettings(), {"exclude": ["a", "b"]}, "here").exclude == ("a", "b")
