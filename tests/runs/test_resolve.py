"""Recipes and options put together: what wins, what is left out, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from secateur.errors import UserError
from secateur.pruning.budget import Budget
from secateur.runs.recipes.configure import configured
from secateur.runs.recipes.recipe import Recipe, RecipeEntry, load_recipe
from secateur.runs.recipes.resolve import PlannedStep, override_options, resolve
from secateur.steps.prune import Prune
from secateur.steps.step import STEPS
from secateur.steps.train import Train

COMMON = {"image_size": 64, "batch_size": 8, "seed": 0, "workers": 0, "device": "cpu"}


def resolved(recipe: str | Recipe, trained: bool = True, **overrides: Any) -> tuple[PlannedStep, ...]:
    chosen = load_recipe(recipe) if isinstance(recipe, str) else recipe
    return resolve(chosen, overrides, COMMON, trained=trained)


def verbs(steps: tuple[PlannedStep, ...]) -> list[str]:
    return [planned.step.verb for planned in steps]


def only(verb: str, settings: dict[str, Any], **overrides: Any) -> Any:
    """The one step that an entry becomes."""
    entries = tuple(RecipeEntry(name, own) for name, own in STEPS[verb].expand(settings))
    (planned,) = resolved(Recipe("mine", "", "", entries), **overrides)
    return planned.step


def test_weights_that_know_the_classes_are_not_trained_again() -> None:
    assert verbs(resolved("slimming", epochs=2)) == ["sparsify", "prune", "finetune", "export"]
    steps = resolved("slimming", trained=False, epochs=2)
    assert verbs(steps)[0] == "train"
    assert [planned.step.train.epochs for planned in steps if isinstance(planned.step, Train)] == [2]
    # BenchSettings for by name it is done all the same; zero epochs leave a training out.
    assert verbs(resolved("slimming", dense_epochs=3))[0] == "train"
    assert "sparsify" not in verbs(resolved("slimming", sparse_epochs=0))


def test_a_budget_of_the_user_replaces_that_of_the_recipe() -> None:
    recipe = {"criterion": "taylor", "flops": "0.48", "round_to": 4}
    step = only("prune", recipe, params="0.3", round_to=2)
    assert isinstance(step, Prune)
    assert step.channels.budgets == [Budget.parse("params", "0.3")]
    assert (step.channels.score.criterion, step.channels.guards.round_to) == ("taylor", 2)
    assert only("prune", recipe).channels.budgets == [Budget.parse("flops", 0.48)]
    both = only("prune", recipe, params="0.3", flops="0.4").channels.budgets
    assert {budget.cost for budget in both} == {"params", "flops"}


def test_a_cut_of_layers_or_weights_is_a_step_of_its_own() -> None:
    entries = STEPS["prune"].expand({"layers": 1, "params": 0.5, "criterion": "l1", "absorb": False, "title": "x"})
    assert [verb for verb, _ in entries] == ["remove_layers", "prune"]
    assert entries[0][1] == {"layers": 1, "absorb": False, "title": "x"}
    assert entries[1][1] == {"params": 0.5, "criterion": "l1", "absorb": False, "title": "x"}
    assert [verb for verb, _ in STEPS["prune"].expand({"layers": 1, "absorb": False})] == ["remove_layers"]
    zero = only("prune", {"unstructured": 0.3}, target_sparsity=0.2, exclude=("model.24",))
    assert (zero.verb, zero.one_shot.unstructured, zero.one_shot.exclude) == ("zero_weights", 0.2, ("model.24",))


@pytest.mark.parametrize(
    ("recipe", "option"),
    [
        ("unstructured", {"pruning_frequency": 7}),
        ("unstructured", {"cooldown_epochs": 3}),
        ("intel", {"criterion": "l1"}),
        ("intel", {"rate": 0.1}),
        ("intel", {"percent": "0.2"}),
        ("eagleeye", {"rate": 0.1}),
        ("slimming", {"pruning_pattern": "1x1"}),
    ],
)
def test_an_option_that_nothing_takes_is_refused(recipe: str, option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"needs a step that .* but the recipe {recipe} has none"):
        resolved(recipe, **option)


def test_excluded_layers_of_weight_pruning() -> None:
    steps = resolved("intel", exclude=("model.24",), epochs=9)
    tuned = next(planned.step for planned in steps if planned.step.verb == "finetune")
    assert tuned.sparsity.exclude_weights == ("model.24",)  # type: ignore[attr-defined]


def test_a_repeated_step_is_marked() -> None:
    steps = resolved("pruned-yolo", epochs=2)
    cuts = [planned for planned in steps if planned.step.verb == "prune"]
    assert [(cut.name_suffix, cut.title, cut.round, cut.rounds) for cut in cuts] == [
        ("", "cut", 1, 3), ("-2", "cut (2)", 2, 3), ("-3", "cut (3)", 3, 3),
    ]  # fmt: skip


def test_every_option_of_every_step_is_an_option_of_the_run() -> None:
    known = override_options()
    assert {"percent", "params", "flops", "criterion", "rate", "epochs", "target_sparsity", "distill"} <= set(known)
    assert all(override.help for override in known.values())


@pytest.mark.parametrize(
    ("verb", "settings", "sentence"),
    [
        ("prune", {"colour": 1}, "here: unknown setting 'colour'"),
        ("remove_layers", {"layers": "two"}, "here, layers is 'two'; it must be an integer"),
        ("remove_layers", {"layers": 2.5}, "it must be an integer"),
        ("prune", {"min_share": "1e-1"}, "write 1.0e-4"),
        ("prune", {"absorb": 1}, "it must be true or false"),
        ("prune", {"criterion": ["l1"]}, "it must be a word"),
        ("finetune", {"target_sparsity": "high"}, "target_sparsity is 'high'; it must be a number"),
        ("finetune", {"target_sparsity": None}, "target_sparsity is None; it must be a number"),
        ("train", {"when": "never"}, "never"),
    ],
)
def test_values_of_another_type_are_named(verb: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        configured(STEPS[verb], settings, "here")


def test_what_yaml_writes_otherwise_is_understood() -> None:
    step = configured(Prune, {"params": 0.5, "exclude": "model.0.*", "min_share": 1}, "here")
    assert step.channels.budgets == [Budget.parse("params", "0.5")]
    assert (step.channels.guards.exclude, step.channels.guards.min_share) == (("model.0.*",), 1)
    assert configured(Prune, {"exclude": ["a", "b"]}, "here").channels.guards.exclude == ("a", "b")


def test_a_step_of_the_users_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown stage 'fly'"):
        file = tmp_path / "mine.yaml"
        file.write_text("stages: [{fly: {}}]")
        load_recipe(file)
