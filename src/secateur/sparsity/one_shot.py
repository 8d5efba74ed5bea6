"""Sets the smallest weights of every convolution to zero at once, without training: Ultralytics' `prune` with masks."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from secateur.errors import UserError
from secateur.networks.checkpoint import Checkpoint, HistoryEntry
from secateur.sparsity.patterns import Pattern, parse_pattern
from secateur.sparsity.report import SparsityReport, sparsity_report
from secateur.sparsity.selection import beside, check_bounds, check_target, present_sparsity, prunable_layers, select
from secateur.sparsity.settings import OneShotSettings

OPTION = "--unstructured"


def zero_weights(checkpoint: Checkpoint, settings: OneShotSettings) -> tuple[Checkpoint, SparsityReport]:
    """Zeroes the share `settings.unstructured` of the weights of the convolutions, smallest |w| first.

    All `Conv2d` take part, the first and those of the head too, except `settings.exclude`; biases, norms and linear
    layers stay as they are. With scope "layer" each convolution loses round(share * weights), with "global" one
    threshold serves all. With a pattern other than 1x1, blocks with the smallest mean |w| go, and layers that do not
    divide are left dense.

    Returns:
        The checkpoint with zeros, with masks (bool, True: the weight stays) that hold them in later training, and with
        the entry of its history; masks that it came with go on holding their zeros. And the count of zeros.

    Raises:
        UserError: a share outside 0..1, beyond the pattern or under the present share of zeros; an unknown pattern or
            scope; an exclusion that matches nothing.
    """
    pattern, share = check_one_shot(settings), settings.unstructured
    detector = checkpoint.build()
    names, _ = prunable_layers(detector, pattern, settings.exclude, (nn.Conv2d,))
    weights = {name: detector.get_parameter(name).detach() for name in names}
    check_target(present_sparsity(weights.values()), share, OPTION, "give a higher share")
    scores = {name: weight.abs() for name, weight in weights.items()}
    held = {name: mask.bool() for name, mask in checkpoint.masks.items()}
    masks = beside(held, share, lambda blocks: select(scores, weights, pattern, blocks, scope=settings.scope))
    # masked_fill, not a product: it leaves no negative zeros, and keeps the type that the tensor was stored in.
    zeroed = {name: checkpoint.tensors[name].masked_fill(~mask, 0) for name, mask in masks.items()}
    pruned = dataclasses.replace(
        checkpoint, tensors={**checkpoint.tensors, **zeroed}, masks={**checkpoint.masks, **masks}
    )
    report = sparsity_report(pruned.build(), names, pattern)
    history = (*checkpoint.history, _history_entry(settings, pattern.name, report))
    return dataclasses.replace(pruned, history=history), report


def check_one_shot(settings: OneShotSettings) -> Pattern:
    """The pattern, after a look at all that can be checked without a detector.

    Raises:
        UserError: an unknown pattern, or a share out of reach.
    """
    share, pattern = settings.unstructured, parse_pattern(settings.pattern)
    if share == 0:
        raise UserError(f"{OPTION} is 0, which leaves nothing to do; give the share of the weights that is to go.")
    check_bounds(pattern, share, option=OPTION)
    return pattern


def _history_entry(settings: OneShotSettings, pattern: str, report: SparsityReport) -> HistoryEntry:
    options: dict[str, Any] = {
        "unstructured": settings.unstructured,
        "pattern": pattern,
        "scope": settings.scope,
        "exclude": list(settings.exclude),
    }
    cost = {
        "parameters": report.parameters,
        "sparsity": report.elementwise_over_all,
        "over_covered": report.over_covered,
    }
    return HistoryEntry(verb="prune", settings=options, cost=cost)
