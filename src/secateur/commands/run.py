"""`secateur run`: runs a recipe in one resumable folder; `secateur recipes`: lists recipes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any

from tyro.conf import arg

from secateur.commands import Summary, command
from secateur.pruning.costs import COSTS
from secateur.ranges import ADVANCED
from secateur.runs.options import RunOptions
from secateur.runs.recipes.resolve import override_options

FROM_RECIPE = "(default: the recipe's)"

ADVANCED_OPTIONS = {
    "hyp", "optimizer", "amp", "teacher", "target_sparsity", "pruning_pattern", "pruning_frequency", "cooldown_epochs",
    "sparse_epochs", "rate", "dense_epochs", "latency_table", "runtime", "threads",
}  # fmt: skip
"""Options overriding recipe settings that only --help-all shows."""


def options() -> type[Any]:
    """The dataclass of the command: `RunOptions`, with a group of options instead of a mapping for the overrides."""
    fields = []
    for override in sorted(override_options().values(), key=lambda override: override.option not in COSTS):
        kind: Any = tuple[str, ...] if override.kind is tuple else override.kind
        word = override.word or ("WORD ..." if override.kind is tuple else override.kind.__name__.upper())
        described: Any = Annotated[kind | None, arg(help=override.help, metavar=word, help_behavior_hint=FROM_RECIPE)]
        described = Annotated[described, ADVANCED] if override.option in ADVANCED_OPTIONS else described
        fields.append((override.option, described, field(default=None)))
    replacing = dataclasses.make_dataclass("Replacing", fields, frozen=True)
    replacing.__doc__ = "Settings that override the recipe:"
    return dataclasses.make_dataclass(
        "RunCommandOptions",
        [("overrides", replacing, field(default_factory=replacing))],
        bases=(RunOptions,),
        frozen=True,
        namespace={"__doc__": RunOptions.__doc__},
    )


@command("run", "run a recipe, resumable: prune in rounds, repair, heal, fine-tune, export", options, order=20,
         continues=True)  # fmt: skip
def run(options: Any) -> Summary:
    """Runs the recipe, or resumes it."""
    from secateur.runs.run import run_recipe

    values = {entry.name: getattr(options, entry.name) for entry in dataclasses.fields(RunOptions)}
    given = {name: value for name, value in dataclasses.asdict(options.overrides).items() if value is not None}
    return run_recipe(RunOptions(**{**values, "overrides": given}), options.place.root("run"))


@dataclass(frozen=True)
class RecipesOptions:
    """List the recipes of `secateur run` and their sources."""


@command(
    "recipes",
    "list the recipes of `secateur run`",
    lambda: RecipesOptions,
    order=120,
    computes=False,
    json=lambda options: False,
)
def recipes(options: RecipesOptions) -> None:
    """Prints one line per recipe."""
    from secateur.runs.recipes.recipe import available

    found = available()
    width = max(len(recipe.name) for recipe in found)
    for recipe in found:
        print(f"{recipe.name:<{width}}  {recipe.summary} [{recipe.source}]")
