"""`secateur recipes`."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.commands import command


@dataclass(frozen=True)
class RecipesOptions:
    """List the recipes of `secateur run`, each with its source."""


@command(
    "recipes",
    "list the recipes of `secateur run`",
    lambda: RecipesOptions,
    order=120,
    computes=False,
    json=lambda options: False,
)
def recipes(options: RecipesOptions) -> None:
    """Prints a line a recipe."""
    from secateur.runs.recipes.recipe import available

    found = available()
    width = max(len(recipe.name) for recipe in found)
    for recipe in found:
        print(f"{recipe.name:<{width}}  {recipe.summary} [{recipe.source}]")
