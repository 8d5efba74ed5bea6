"""Keeps masked weights at exactly zero during training, in the model and in its average."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.training.hooks import Hook
from secateur.training.run import TrainingRun


class HoldMasks(Hook):
    """Keeps the zeros of an earlier weight pruning during a training.

    Args:
        masks: tensor name -> bool mask with the shape of the weight, False for zeros; `Checkpoint.masks`. They are not
            part of the state: a resumed training receives the same masks.
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self.masks = {name: mask.bool() for name, mask in masks.items()}

    def start(self, run: TrainingRun) -> None:
        """Sets masked weights to zero, and adds the masks to the checkpoints of the run.

        Raises:
            UserError: a mask does not match a weight of the network.
        """
        self.masks = fitting(self.masks, run.network)
        run.masks = self.masks
        apply_masks_(run, self.masks)

    def after_step(self, run: TrainingRun) -> None:
        """Sets weights that the step has changed back to zero."""
        apply_masks_(run, self.masks)


def fitting(masks: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The masks, bool with the shapes of their weights, on the device of the weights.

    Raises:
        UserError: the network does not have a weight with that name and shape.
    """
    weights = dict(network.named_parameters())
    for name, mask in masks.items():
        if name not in weights:
            raise UserError(f"There is a mask for {name}, which this network does not have.")
        if mask.shape != weights[name].shape:
            raise UserError(
                f"The mask of {name} has the shape {tuple(mask.shape)}, but the weight has "
                f"{tuple(weights[name].shape)}. Use the masks of this network."
            )
    return {name: mask.to(weights[name].device) for name, mask in masks.items()}


@torch.no_grad()
def apply_masks_(run: TrainingRun, masks: Mapping[str, Tensor]) -> None:
    """Sets masked weights of the model and its average to zero; masks are bool with the shapes of the weights."""
    for name, mask in masks.items():
        gone = ~mask
        for network in (run.network, run.ema.network):
            network.get_parameter(name).masked_fill_(gone, 0)  # a product would create negative zeros


@torch.no_grad()
def forget_momentum_(run: TrainingRun, masks: Mapping[str, Tensor]) -> None:
    """Clears the optimizer state of masked weights (momentum of SGD, moments of Adam); masks have the shapes of the
    weights."""
    for name, mask in masks.items():
        for value in run.optimizer.state.get(run.network.get_parameter(name), {}).values():
            if isinstance(value, Tensor) and value.shape == mask.shape:
                value.mul_(mask)
