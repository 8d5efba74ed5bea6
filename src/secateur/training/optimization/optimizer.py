"""The optimizer with the three parameter groups of YOLOv5, its learning rates and momentum, and frozen blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from secateur.errors import UserError
from secateur.training.optimization.schedules import Schedule
from secateur.training.settings import TrainSettings

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm)


def parameter_groups(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Biases, other weights and norm weights; only the second group has weight decay, only the first its own
    warm-up."""
    biases: list[nn.Parameter] = []
    weights: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias" or name.endswith("_bias"):
                biases.append(parameter)
            elif isinstance(module, NORMS):
                norms.append(parameter)
            else:
                weights.append(parameter)
    return biases, weights, norms


def build_optimizer(
    network: nn.Module, settings: TrainSettings, schedule: Schedule, scaled: bool
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, Adam or AdamW.

    Args:
        scaled: whether an fp16 gradient scaler is used. Fused optimizers then skip steps inside the kernel, where hooks
            cannot notice it, so they are not used.
    """
    biases, weights, norms = parameter_groups(network)
    groups: list[dict[str, Any]] = [
        {"params": biases, "weight_decay": 0.0},
        {"params": weights, "weight_decay": schedule.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    rate, momentum = schedule.hyp.lr0, schedule.hyp.momentum
    implementation: dict[str, bool] = {"foreach": True} if scaled else {"fused": True}
    if settings.is_sgd:
        nesterov = momentum > 0
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=nesterov, **implementation)
    kind = torch.optim.AdamW if settings.optimizer == "AdamW" else torch.optim.Adam
    return kind(groups, lr=rate, betas=(momentum, 0.999), **implementation)


def set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, iteration: int, epoch: int) -> None:
    """Sets learning rates and momentum of the groups for a batch."""
    momentum = schedule.momentum(iteration)
    for group, rate in zip(optimizer.param_groups, schedule.learning_rates(iteration, epoch), strict=True):
        group["lr"] = rate
        if "momentum" in group:
            group["momentum"] = momentum
        else:
            group["betas"] = (momentum, group["betas"][1])


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Blocks counted by --freeze: the list `model` of the network if it has one, otherwise its direct submodules."""
    listed = getattr(network, "model", None)
    return list(listed if isinstance(listed, nn.Sequential | nn.ModuleList) else network.children())


def frozen_parameters(network: nn.Module, freeze: Sequence[int]) -> list[nn.Parameter]:
    """Parameters of the first n blocks (one number) or of the listed blocks (several numbers).

    Raises:
        UserError: the network does not have a block, or nothing would be left to train.
    """
    chosen, blocks = tuple(freeze) if len(freeze) > 1 else tuple(range(freeze[0])), blocks_of(network)
    wrong = [block for block in chosen if block >= len(blocks)]
    if wrong:
        raise UserError(f"Option freeze names block {wrong[0]}, but the network has blocks 0 to {len(blocks) - 1}.")
    frozen = [parameter for block in chosen for parameter in blocks[block].parameters()]
    if frozen and len(frozen) == len(list(network.parameters())):
        raise UserError("Option freeze leaves no parameter to train. Freeze fewer blocks.")
    return [parameter for parameter in frozen if parameter.requires_grad]
