"""Scores of a block from the weights of its last convolution alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from secateur.detector.blocks import Conv
from secateur.detector.ghost import GhostBottleneck
from secateur.detector.model import Detector
from secateur.errors import UserError
from secateur.pruning.layer_scores import Evidence, layer_score


@layer_score("gamma", reads="weights")
def gamma(detector: Detector, blocks: Mapping[str, nn.Module], evidence: Evidence) -> dict[str, float]:
    """Mean |gamma| of the last batch norm of the block, as the shortcuts of YOLOv3 were ranked for removal."""
    return {name: _mean(name, block, lambda conv, scales: scales) for name, block in blocks.items()}


@layer_score("gamma_kernel", reads="weights")
def gamma_kernel(detector: Detector, blocks: Mapping[str, nn.Module], evidence: Evidence) -> dict[str, float]:
    """Mean over the channels of the last convolution of 10 x mean |weight| x |gamma|: Pruned-YOLO's layer score
    (https://doi.org/10.1007/978-3-030-86380-7_4)."""

    def of_filters(conv: Conv, scales: Tensor) -> Tensor:
        return 10 * conv.conv.weight.detach().abs().mean((1, 2, 3)) * scales

    return {name: _mean(name, block, of_filters) for name, block in blocks.items()}


def last_convolutions(block: nn.Module) -> list[Conv]:
    """The convolutions whose channels are the output of the block's branch (a ghost convolution is made of two)."""
    parts = block.conv[2].children() if isinstance(block, GhostBottleneck) else [block.get_submodule("cv2")]
    return [part for part in parts if isinstance(part, Conv)]


def _mean(name: str, block: nn.Module, values: Callable[[Conv, Tensor], Tensor]) -> float:
    """Mean over the output channels of the branch of `values(convolution, |gamma| [C])`."""
    parts = []
    for conv in last_convolutions(block):
        if not isinstance(conv.bn, nn.BatchNorm2d):
            raise UserError(f"The batch norms of {name} are folded into its convolutions; give the unfused detector.")
        parts.append(values(conv, conv.bn.weight.detach().abs()))
    return float(torch.cat(parts).double().mean())
