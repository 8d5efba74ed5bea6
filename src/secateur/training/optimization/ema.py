"""The exponential moving average of a detector, ramped as YOLOv5 does: what is evaluated and saved."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from secateur.families.yolov5.model import Detector
from secateur.training.hooks import Hook
from secateur.training.run import TrainingRun


class Ema(Hook):
    """Averages every floating entry of the state dict, BatchNorm statistics included, after each optimizer step.

    The decay after u updates is decay * (1 - exp(-u / ramp)). Tensors are followed by identity: between two calls of
    `follow` the detector may change values only, not storage or shapes.
    """

    def __init__(self, detector: Detector, decay: float = 0.9999, ramp: float = 2000.0) -> None:
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self.decay, self.ramp, self.updates = decay, ramp, 0
        self._mine: list[Tensor] = []
        self._theirs: list[Tensor] = []
        self.follow(detector)

    def follow(self, detector: Detector) -> None:
        """Averages the tensors that `detector` has now: call it after anything that gave it new storage."""
        mine, theirs = self.detector.state_dict(), detector.state_dict()
        names = [name for name, value in mine.items() if value.is_floating_point()]
        self._mine, self._theirs = [mine[name] for name in names], [theirs[name] for name in names]

    def start(self, run: TrainingRun) -> None:
        """Wrapping for several processes may have moved the parameters to other storage."""
        self.follow(run.detector)

    def after_step(self, run: TrainingRun) -> None:
        """Moves the average towards the new weights."""
        self.update()

    @torch.no_grad()
    def update(self) -> None:
        """One update, a single fused operation over all tensors."""
        self.updates += 1
        share = 1 - self.decay * (1 - math.exp(-self.updates / self.ramp))
        torch._foreach_lerp_(self._mine, self._theirs, share)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and the number of updates."""
        return {"updates": self.updates, "tensors": self.detector.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores in place."""
        self.updates = int(state["updates"])
        self.detector.load_state_dict(state["tensors"])
