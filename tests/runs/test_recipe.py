"""Recipes as files: the shipped ones are complete, the broken ones are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile_yaml import HOSTILE, check_sentence
from secateur.errors import UserError
from secateur.runs.recipes.configure import configured
from secateur.runs.recipes.recipe import available, load_recipe
from secateur.runs.recipes.resolve import resolve
from secateur.sparsity.settings import SparsifySettings
from secateur.steps.prune import Prune
from secateur.steps.sparsify import Sparsify


def test_every_shipped_recipe_is_complete() -> None:
    recipes = {recipe.name: recipe for recipe in available()}
    assert {"slimming", "demo"} <= set(recipes)
    for recipe in recipes.values():
        assert recipe.summary
        assert recipe.source
        assert [entry.verb for entry in recipe.entries]
        assert "\n" not in recipe.summary + recipe.source


def test_a_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nstages:\n  - prune: {criterion: l1}\n")
    recipe = load_recipe(file)
    assert [(entry.verb, entry.settings) for entry in recipe.entries] == [("prune", {"criterion": "l1"})]


def test_a_repetition_is_unrolled(tmp_path: Path) -> None:
    file = tmp_path / "rounds.yaml"
    file.write_text("stages: [{train: {}}, {repeat: {rounds: 2, stages: [{prune: {layers: 1}}, {finetune: {}}]}}]")
    entries = load_recipe(file).entries
    assert [entry.verb for entry in entries] == ["train", "remove_layers", "finetune", "remove_layers", "finetune"]
    assert [(entry.round, entry.rounds) for entry in entries] == [(1, 1), (1, 2), (1, 2), (2, 2), (2, 2)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("just words", "is not a recipe"),
        ("stages: [fly]", "each stage is one verb"),
        ("stages: [{fly: {}}]", "unknown stage 'fly'"),
        ("stages: [{1: {}}]", "unknown stage 1"),
        ("stages: [{train: [1]}]", "must be 'name: value' pairs"),
        ("stages: [{train: {1: 2}}]", "must be words"),
        ("stages: [", "not valid YAML"),
        ("stages: [{repeat: {rounds: 2}}]", "write a repetition as"),
        ("stages: [{repeat: {rounds: 0, stages: []}}]", "rounds from 1 to 100"),
        (
            "stages: [{repeat: {rounds: 2, stages: [{repeat: {rounds: 2, stages: [{prune: {}}]}}]}}]",
            "cannot contain another",
        ),
    ],
)
def test_broken_recipes_are_named(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence):
        load_recipe(file)


def test_unknown_recipe() -> None:
    with pytest.raises(UserError, match=r"Unknown recipe 'nothing'; choose one of .*slimming"):
        load_recipe("nothing")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(HOSTILE[name])
    with pytest.raises(UserError) as caught:
        load_recipe(file)
    check_sentence(caught.value, "bad.yaml")


@pytest.mark.parametrize(
    "stage",
    [
        "{finetune: {hyp: true}}",
        "{finetune: {hyp: [1]}}",
        "{finetune: {target_sparsity: [1]}}",
        "{finetune: {target_sparsity: .inf}}",
        "{finetune: {target_sparsity: .nan}}",
        "{finetune: {target_sparsity: {a: b}}}",
        f"{{finetune: {{epochs: 1{'0' * 390}}}}}",
        "{finetune: {epochs: .inf}}",
        "{finetune: {epochs: 2.5}}",
        "{finetune: {freeze: [a]}}",
        "{finetune: {freeze: {a: b}}}",
        "{finetune: {exclude_weights: [[1]]}}",
        "{finetune: {title: [1]}}",
        "{prune: {unstructured: [1]}}",
        "{prune: {unstructured: true}}",
        "{prune: {flops: [0.5]}}",
        "{prune: {flops: .nan}}",
        f"{{prune: {{flops: 1{'0' * 390}}}}}",
        "{prune: {criterion: [l1]}}",
        "{prune: {layers: [1]}}",
        "{prune: {layers: .inf}}",
        "{prune: {round_to: [1]}}",
        f"{{prune: {{{'x' * 5000}: 1}}}}",
        f"{{{'x' * 5000}: 1}}",
        f"{{prune: {'x' * 5000}}}",
        f"{{repeat: {{rounds: 1{'0' * 390}, stages: []}}}}",
        "{repeat: {rounds: [1], stages: []}}",
        "{repeat: {1: 2}}",
    ],
)
def test_settings_of_another_kind_are_refused(stage: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(f"stages: [{stage}]\n")
    with pytest.raises(UserError) as caught:
        resolve(load_recipe(file), {}, {}, trained=True)
    check_sentence(caught.value)


def test_removed_settings_pass_at_their_old_default_and_else_say_what_to_do() -> None:
    kept = configured(Sparsify, {"rate": 0.5, "mask_hard": 0, "tied": "each"}, "exp/options.json")
    assert kept == Sparsify(sparsify=SparsifySettings(rate=0.5))
    with pytest.raises(UserError, match=r"^mine\.yaml: tied was removed: scales are penalised individually\. Omit"):
        configured(Sparsify, {"tied": "group"}, "mine.yaml")


def test_settings_under_former_names_are_understood() -> None:
    written = configured(Prune, {"percent": "0.3", "recalibrate": 8}, "mine.yaml")
    assert written == configured(Prune, {"percent": "0.3", "correction_images": 8}, "mine.yaml")
    assert written.channels.repair.correction_images == 8
    with pytest.raises(UserError, match=r"^mine\.yaml: recalibrate is the former name of correction_images"):
        configured(Prune, {"recalibrate": 8, "correction_images": 8}, "mine.yaml")
