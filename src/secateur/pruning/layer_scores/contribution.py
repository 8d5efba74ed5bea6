"""Score of a block from what it adds to its input, measured on images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.pruning.layer_scores import Evidence, layer_score, observed


@layer_score("contribution", reads="images")
def contribution(network: nn.Module, blocks: Mapping[str, nn.Module], evidence: Evidence) -> dict[str, float]:
    """Mean over the images of ||y - x|| / ||y||: of ||F(x)|| / ||x + F(x)|| for a residual block."""
    sums = dict.fromkeys(blocks, 0.0)
    images = 0

    def watch(name: str, x: Tensor, y: Tensor) -> None:
        # fp32: the squares of a feature map overflow in half precision.
        change, size = ((y - x).float().flatten(1).norm(dim=1), y.float().flatten(1).norm(dim=1))
        sums[name] += float((change / size.clamp_min(1e-12)).cpu().double().sum())

    with torch.no_grad(), observed(blocks, watch):
        for batch in evidence.batches or ():
            network(batch)
            images += len(batch)
    if images == 0:
        raise UserError("There is no image to measure the layers on; give images or choose the layer score gamma.")
    return {name: total / images for name, total in sums.items()}
