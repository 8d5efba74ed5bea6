"""Progressive pruning: splits each pruning into a few smaller ones, the least important blocks first."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.sparsity.patterns import Pattern

SUBSTEPS = 4


def substep_gaps(frequency: int) -> tuple[int, int]:
    """Number of sub-steps of a pruning, and optimizer steps between two of them: four, a quarter of the gap apart.

    The last sub-step is at the step of the pruning itself, so each pruning is complete before the next one begins, and
    the last one at the end of the window. A frequency of 1 leaves no room: there is one sub-step, as without
    progressive pruning.
    """
    count = min(SUBSTEPS, frequency)
    return count, frequency // count


def intermediate_masks(
    old: Mapping[str, Tensor],
    complete: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    pattern: Pattern,
    count: int,
) -> list[dict[str, Tensor]]:
    """Masks of `count` sub-steps from `old` to `complete`; the last one is `complete`. Masks are bool with the shape of
    the weight.

    After sub-step q, the q/count lowest-scored of the newly masked blocks over all layers are zeroed.

    Args:
        old: tensor name -> current bool mask.
        complete: final mask; it keeps no weight that `old` does not keep.
        scores: scores of the weights by which `complete` was chosen.
        pattern: how weights are divided into blocks.
        count: number of sub-steps.
    """
    newly = {name: gone_blocks(complete[name], pattern) & ~gone_blocks(old[name], pattern) for name in complete}
    blocks = torch.cat([pattern.reduce(scores[name], "mean")[chosen] for name, chosen in newly.items()])
    order = torch.argsort(blocks, stable=True)
    turn = torch.empty_like(order)  # sub-step, from 1, at which each of these blocks is zeroed
    turn[order] = torch.arange(len(order), device=order.device) * count // max(len(order), 1) + 1
    turns = dict(zip(newly, turn.split([int(chosen.sum()) for chosen in newly.values()]), strict=True))
    result = []
    for number in range(1, count):
        masks = {}
        for name, chosen in newly.items():
            waiting = chosen.clone()
            waiting[chosen] = turns[name] > number
            # In N:M, a pruned group keeps its best weights, which the complete mask already keeps.
            kept = pattern.expand(waiting, scores[name], scores[name])
            masks[name] = complete[name] | (old[name] & kept)
        result.append(masks)
    return [*result, dict(complete)]


def gone_blocks(mask: Tensor, pattern: Pattern) -> Tensor:
    """Which blocks are fully zeroed by a bool mask with the shape of the weight: bool [blocks]. For N:M, only the
    weights that would be zeroed count."""
    return pattern.reduce(mask.float(), "sum") == 0
