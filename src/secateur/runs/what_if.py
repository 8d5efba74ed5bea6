"""`secateur prune --what-if`: predicts within seconds what budgets would cost and lose. Nothing is cut or written."""

from __future__ import annotations

from typing import Any

from secateur.checkpoints.forecast import forecast, line_to_paste
from secateur.pruning.options import ChannelSettings
from secateur.runs.folders import Summary
from secateur.runs.prune_run import opened


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
