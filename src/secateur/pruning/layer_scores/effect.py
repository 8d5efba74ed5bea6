"""Scores of a block from its effect on its feature maps or on the loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.pruning.layer_scores import LayerEvidence, layer_score, observed


@layer_score("contribution", reads="images")
def contribution(network: nn.Module, blocks: Mapping[str, nn.Module], evidence: LayerEvidence) -> dict[str, float]:
    """Mean over the images of ||y - x|| / ||y||; for a residual block, ||F(x)|| / ||x + F(x)||."""
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
        raise UserError("There are no images to score the layers on. Provide images, or use the layer score gamma.")
    return {name: total / images for name, total in sums.items()}


@layer_score("taylor", reads="labels")
def taylor(network: nn.Module, blocks: Mapping[str, nn.Module], evidence: LayerEvidence) -> dict[str, float]:
    """Mean over the images of |<dloss/dy, y - x>|: the first-order change of the loss if y becomes x.

    The inner product covers the whole feature map of one image, so contributions of opposite sign cancel before the
    absolute value is taken, as in https://arxiv.org/abs/1906.10771.
    """
    sums = dict.fromkeys(blocks, 0.0)
    gates: dict[str, Tensor] = {}
    images = 0

    def watch(name: str, x: Tensor, y: Tensor) -> Tensor:
        # A gate of zero per image does not change y; the gradient of the gate is the inner product.
        gates[name] = y.new_zeros(len(y), *[1] * (y.ndim - 1), requires_grad=True)
        return y + gates[name] * (y - x).detach()

    assert evidence.loss is not None
    for batch in evidence.batches or ():
        gates.clear()
        with torch.enable_grad(), observed(blocks, watch):
            loss = evidence.loss(network, batch)
        gradients = torch.autograd.grad(loss, list(gates.values()))
        for name, gradient in zip(gates, gradients, strict=True):
            sums[name] += float(gradient.cpu().double().abs().sum())
        images += len(gradients[0])
    if images == 0:
        raise UserError("There are no images for gradients. Provide labelled images, or use another layer score.")
    return {name: total / images for name, total in sums.items()}
