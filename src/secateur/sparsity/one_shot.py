"""Sets the smallest weights of every convolution to zero without training, like `prune` of Ultralytics, but with
masks."""

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
    """Sets the share `settings.unstructured` of the weights of the convolutions to zero, smallest |w| first.

    All `Conv2d` are included, also the first one and those of the head, except `settings.exclude`. Biases, norms and
    linear layers are not changed. With scope "layer", each convolution loses round(share * weights); with "global", one
    threshold is used for all. With a pattern other than 1x1, blocks with the smallest mean |w| are zeroed, and layers
    that cannot be divided into blocks stay dense.

    Returns:
        The checkpoint with zeros, with bool masks (True: the weight is kept) that preserve them in later training, and
        with a history entry; earlier masks stay in effect. And the count of zeros.

    Raises:
        UserError: the share is outside 0..1, beyond the limit of the pattern or below the current share of zeros; the
            pattern or scope is unknown; or an exclusion matches nothing.
    """
    pattern, share = check_one_shot(settings), settings.unstructured
    detector = checkpoint.build()
    names, _ = prunable_layers(detector, pattern, settings.exclude, (nn.Conv2d,))
    weights = {name: detector.get_parameter(name).detach() for name in names}
    check_target(present_sparsity(weights.values()), share, OPTION, "set a higher share")
    scores = {name: weight.abs() for name, weight in weights.items()}
    held = {name: mask.bool() for name, mask in checkpoint.masks.items()}
    masks = beside(held, share, lambda blocks: select(scores, weights, pattern, blocks, scope=settings.scope))
    # masked_fill instead of a product: it creates no negative zeros, and preserves the dtype of the stored tensor.
    zeroed = {name: checkpoint.tensors[name].masked_fill(~mask, 0) for name, mask in masks.items()}
    pruned = dataclasses.replace(
        checkpoint, tensors={**checkpoint.tensors, **zeroed}, masks={**checkpoint.masks, **masks}
    )
    report = sparsity_report(pruned.build(), names, pattern)
    history = (*checkpoint.history, _history_entry(settings, pattern.name, report))
    return dataclasses.replace(pruned, history=history), report


def check_one_shot(settings: OneShotSettings) -> Pattern:
    """The pattern, after all checks that do not need a detector.

    Raises:
        UserError: the pattern is unknown, or the share cannot be reached.
    """
    share, pattern = settings.unstructured, parse_pattern(settings.pattern)
    if share == 0:
        raise UserError(f"{OPTION} is 0, so nothing would be zeroed. Set the share of weights to zero.")
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
