"""Holding zeros: weights under a mask stay exactly zero while the rest is trained, in the model and in its average."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.training.hooks import Hook
from secateur.training.run import TrainingRun


class HoldMasks(Hook):
    """Keeps the zeros of an earlier weight pruning through a training.

    Args:
        masks: tensor name -> bool mask of the weight's shape, False where it is zero; `Checkpoint.masks`. They have no
            state of their own: a resumed training is given the same.
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self.masks = {name: mask.bool() for name, mask in masks.items()}

    def start(self, run: TrainingRun) -> None:
        """Zeroes what is masked, and lets the run's checkpoints carry the masks.

        Raises:
            UserError: a mask that belongs to no weight of the network.
        """
        self.masks = fitting(self.masks, run.network)
        run.masks = self.masks
        apply_masks_(run, self.masks)

    def after_step(self, run: TrainingRun) -> None:
        """Zeroes what the step has moved."""
        apply_masks_(run, self.masks)


def fitting(masks: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The masks, on the device of their weights.

    Raises:
        UserError: a name or a shape that the network does not have.
    """
    weights = dict(network.named_parameters())
    for name, mask in masks.items():
        if name not in weights:
            raise UserError(f"The masks of zero weights name {name}, which this network does not have.")
        if mask.shape != weights[name].shape:
            raise UserError(
                f"The mask of zero weights of {name} has shape {tuple(mask.shape)}, but the weight has "
                f"{tuple(weights[name].shape)}; give the masks of this very network."
            )
    return {name: mask.to(weights[name].device) for name, mask in masks.items()}


@torch.no_grad()
def apply_masks_(run: TrainingRun, masks: Mapping[str, Tensor]) -> None:
    """Zeroes masked weights of the model and of its average."""
    for name, mask in masks.items():
        gone = ~mask
        for network in (run.network, run.ema.network):
            network.get_parameter(name).masked_fill_(gone, 0)  # a product would leave negative zeros


@torch.no_grad()
def forget_momentum_(run: TrainingRun, masks: Mapping[str, Tensor]) -> None:
    """Zeroes what the optimizer remembers of masked weights: SGD's momentum, Adam's moments."""
    for name, mask in masks.items():
        for value in run.optimizer.state.get(run.network.get_parameter(name), {}).values():
            if isinstance(value, Tensor) and value.shape == mask.shape:
                value.mul_(mask)
