"""`secateur run`: a recipe in one resumable run. Which options it takes follows from the steps that there are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any

from tyro.conf import arg

from secateur.commands import Summary, command
from secateur.pruning.costs import COSTS
from secateur.ranges import ADVANCED, COUNT, Advanced
from secateur.runs.fields import BatchSize, Cfg, Data, Device, ImageSide, Seed, Weights, Workers
from secateur.runs.folders import Place
from secateur.runs.options import RunOptions
from secateur.runs.recipes.resolve import override_options

FROM_RECIPE = "(default: the recipe's)"
ALL_EPOCHS = "(default: those of all trainings of the run and those that the weights say they had)"

ADVANCED_OPTIONS = {
    "hyp", "optimizer", "amp", "teacher", "target_sparsity", "pruning_pattern", "pruning_frequency", "cooldown_epochs",
    "sparse_epochs", "rate", "dense_epochs", "latency_table", "runtime", "threads",
}  # fmt: skip
"""Of those that replace settings of the recipe: what --help leaves to --help-all."""


@dataclass(frozen=True)
class Common:
    """A recipe in one resumable run: by default prune in rounds, repair, heal, fine-tune, export."""

    data: Data = ""
    weights: Weights = ""
    cfg: Cfg = ""
    recipe: Annotated[str, arg(help="A name from `secateur recipes`, or a YAML file.")] = "best"
    image_size: ImageSide = 0
    batch_size: BatchSize = 16
    """Images in a training batch."""
    workers: Workers = 2
    seed: Seed = 0
    device: Device = "auto"
    control: bool = False
    """One more row to compare with: the dense detector made narrow to the FLOPs of the last row, trained as long."""
    control_epochs: Advanced[
        Annotated[int, arg(help="Epochs of the control.", help_behavior_hint=ALL_EPOCHS), COUNT]
    ] = 0


def options() -> type[Any]:
    """The dataclass of the command: common options, one group of those that replace settings of the recipe, place."""
    fields = []
    for override in sorted(override_options().values(), key=lambda override: override.option not in COSTS):
        kind: Any = tuple[str, ...] if override.kind is tuple else override.kind
        word = override.word or ("WORD ..." if override.kind is tuple else override.kind.__name__.upper())
        described = Annotated[kind | None, arg(help=override.help, metavar=word, help_behavior_hint=FROM_RECIPE)]
        described = Annotated[described, ADVANCED] if override.option in ADVANCED_OPTIONS else described
        fields.append((override.option, described, field(default=None)))
    replacing = dataclasses.make_dataclass("Replacing", fields, frozen=True)
    replacing.__doc__ = "Instead of what the recipe says:"
    return dataclasses.make_dataclass(
        "RunCommandOptions",
        [
            ("recipe_settings", replacing, field(default_factory=replacing)),
            ("place", Place, field(default_factory=Place)),
        ],
        bases=(Common,),
        frozen=True,
        namespace={"__doc__": Common.__doc__},
    )


@command("run", "a recipe in one resumable run: train, sparsify, prune, repair, fine-tune, export", options, order=20,
         continues=True)  # fmt: skip
def run(options: Any) -> Summary:
    """Runs the recipe, or goes on with it."""
    from secateur.runs.run import run_recipe

    given = dataclasses.asdict(options.recipe_settings)
    chosen = RunOptions(
        data=options.data,
        weights=options.weights,
        cfg=options.cfg,
        recipe=options.recipe,
        overrides={name: value for name, value in given.items() if value is not None},
        image_size=options.image_size,
        batch_size=options.batch_size,
        workers=options.workers,
        seed=options.seed,
        control=options.control,
        control_epochs=options.control_epochs,
        device=options.device,
        place=options.place,
    )
    return run_recipe(chosen, options.place.root("run"))
