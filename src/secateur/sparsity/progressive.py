"""Progressive pruning: what one pruning would take at once goes in a few smaller bites, the least important first."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.sparsity.patterns import Pattern

SUBSTEPS = 4


def substep_gaps(frequency: int) -> tuple[int, int]:
    """Number of sub-steps of a pruning, and the optimizer steps between two of them: four, every quarter of the gap.

    They lead up to the pruning's own moment, so each pruning is complete before the next begins and the last one at
    the end of the window. A frequency of 1 leaves no room: one sub-step, which is plain pruning.
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
    """The masks of `count` sub-steps from `old` to `complete`; the last one is `complete` itself.

    After sub-step q the q/count lowest-scored of the newly masked blocks, over all layers, are gone.

    Args:
        old: tensor name -> bool mask in force.
        complete: the mask to arrive at; it keeps no weight that `old` does not.
        scores: element scores by which `complete` was chosen.
        pattern: how weights split into blocks.
        count: number of sub-steps.
    """
    newly = {name: gone_blocks(complete[name], pattern) & ~gone_blocks(old[name], pattern) for name in complete}
    blocks = torch.cat([pattern.reduce(scores[name], "mean")[chosen] for name, chosen in newly.items()])
    order = torch.argsort(blocks, stable=True)
    turn = torch.empty_like(order)  # sub-step, from 1, at which each of these blocks goes
    turn[order] = torch.arange(len(order), device=order.device) * count // max(len(order), 1) + 1
    turns = dict(zip(newly, turn.split([int(chosen.sum()) for chosen in newly.values()]), strict=True))
    result = []
    for number in range(1, count):
        masks = {}
        for name, chosen in newly.items():
            waiting = chosen.clone()
            waiting[chosen] = turns[name] > number
            # In N:M a block that is gone keeps its best weights; those are in the complete mask already.
            kept = pattern.expand(waiting, scores[name], scores[name])
            masks[name] = complete[name] | (old[name] & kept)
        result.append(masks)
    return [*result, dict(complete)]


def gone_blocks(mask: Tensor, pattern: Pattern) -> Tensor:
    """Which blocks a bool mask zeroes as far as the pattern goes: bool [blocks]. N:M sums the weights that would go."""
    return pattern.reduce(mask.float(), "sum") == 0
