"""Exponential moving average of a network, with the ramp of YOLOv5; it is evaluated and saved."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from secateur.training.hooks import Hook
from secateur.training.run import TrainingRun


class Ema(Hook):
    """Averages all floating-point entries of the state dict, including batch-norm statistics, after each optimizer
    step.

    The decay after u updates is decay * (1 - exp(-u / ramp)). Tensors are tracked by identity: between two calls of
    `follow`, the network may change values only, not storage or shapes.
    """

    def __init__(self, network: nn.Module, decay: float = 0.9999, ramp: float = 2000.0) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.ramp, self.updates = decay, ramp, 0
        self._mine: list[Tensor] = []
        self._theirs: list[Tensor] = []
        self.follow(network)

    def follow(self, network: nn.Module) -> None:
        """Tracks the current tensors of `network`; call it after anything that replaces their storage."""
        mine, theirs = self.network.state_dict(), network.state_dict()
        names = [name for name, value in mine.items() if value.is_floating_point()]
        self._mine, self._theirs = [mine[name] for name in names], [theirs[name] for name in names]

    def start(self, run: TrainingRun) -> None:
        """Tracks the tensors again, because wrapping for several processes may have moved the parameters."""
        self.follow(run.network)

    def after_step(self, run: TrainingRun) -> None:
        """Updates the average with the new weights."""
        self.update()

    @torch.no_grad()
    def update(self) -> None:
        """Runs one update as a single fused operation over all tensors."""
        self.updates += 1
        share = 1 - self.decay * (1 - math.exp(-self.updates / self.ramp))
        torch._foreach_lerp_(self._mine, self._theirs, share)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and number of updates."""
        return {"updates": self.updates, "tensors": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state in place."""
        self.updates = int(state["updates"])
        self.network.load_state_dict(state["tensors"])
