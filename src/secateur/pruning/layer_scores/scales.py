"""Scores of a block from the weights of its last convolution and norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.errors import UserError
from secateur.pruning.depth.chains import chained
from secateur.pruning.layer_scores import LayerEvidence, layer_score


@layer_score("gamma", reads="weights")
def gamma(network: nn.Module, blocks: Mapping[str, nn.Module], evidence: LayerEvidence) -> dict[str, float]:
    """Mean |gamma| of the last batch norm of the block, as used to rank the shortcuts of YOLOv3 for removal."""
    return _means(network, blocks, lambda weight, scales: scales)


@layer_score("gamma_kernel", reads="weights")
def gamma_kernel(network: nn.Module, blocks: Mapping[str, nn.Module], evidence: LayerEvidence) -> dict[str, float]:
    """Mean over the channels of the last convolution of 10 x mean |weight| x |gamma|, the layer score of Pruned-YOLO
    (https://doi.org/10.1007/978-3-030-86380-7_4)."""
    return _means(network, blocks, lambda weight, scales: 10 * weight.abs().flatten(1).mean(1) * scales)


def _means(
    network: nn.Module, blocks: Mapping[str, nn.Module], values: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, float]:
    """For each block, the mean over the output channels of its branch of `values(weight [C, ...], |gamma| [C])`."""
    ends = {block.name: block.ends for block in chained(network).chain_blocks()}
    scores = {}
    for name in blocks:
        parts = []
        for convolution, norm in ends[name]:
            scales = network.get_submodule(norm)
            if not isinstance(scales, _BatchNorm):
                raise UserError(
                    f"The checkpoint is fused: {name} has no batch norms to score. Use the checkpoint from before "
                    "fusing, or --layer-score contribution."
                )
            weight = network.get_submodule(convolution).get_parameter("weight").detach()
            parts.append(values(weight, scales.weight.detach().abs()))
        scores[name] = float(torch.cat(parts).cpu().double().mean())
    return scores
