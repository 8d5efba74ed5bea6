"""`--what-if` of `secateur prune` and `secateur run`: predicts what budgets would cost and lose. Nothing is cut or
written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secateur.checkpoints.forecast import forecast, line_to_paste
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.options import ChannelSettings
from secateur.runs.folders import Summary
from secateur.runs.options import RunOptions
from secateur.runs.prune_run import opened
from secateur.runs.recipes.resolve import PlannedStep
from secateur.steps.prune import Prune


def show_forecast(options: Any, settings: ChannelSettings) -> Summary:
    """Prints the table, the smallest reachable target, the cliff, and a suggested command.

    Args:
        options: options of the command.
        settings: settings of the cut.

    Raises:
        UserError: options or input are invalid.
    """
    _, start, context = opened(options)
    found = forecast(start, context, settings)
    given = {"--data": options.data, "--images": options.images, "--classes": " ".join(options.classes)}
    words = [f"{flag} {value}" for flag, value in given.items() if value] + [f"--img {context.image_size}"]
    print(found.table())
    print(f"Cut to this point:  {line_to_paste(found, options.weights, words)}")
    return {"command": "prune", "what_if": found.to_dict()}


def show_forecast_of_run(
    options: RunOptions, steps: Sequence[PlannedStep], start: Checkpoint, context: Context
) -> Summary:
    """The same for the first cut of a run.

    Args:
        steps: the planned steps of the run.
        start: a trained checkpoint.

    Raises:
        UserError: the run cuts no channels, or a budget cannot be predicted.
    """
    cuts = [planned.step.channels for planned in steps if isinstance(planned.step, Prune)]
    if not cuts:
        raise UserError(
            f"--what-if predicts the result of a budget, but the recipe {options.recipe} cuts no channels. Remove "
            "--what-if, or select a recipe with a budget."
        )
    found = forecast(start, context, cuts[0])
    classes = f"--classes {' '.join(options.classes)}" if options.classes else ""
    words = [f"--data {options.data}", classes, f"--img {context.image_size}", f"--recipe {options.recipe}"]
    print(found.table())
    print(f"Run to this point:  {line_to_paste(found, options.weights, [*filter(None, words)], verb='run')}")
    return {"command": "run", "what_if": found.to_dict()}
