"""State of a running training, as available to hooks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from secateur.training.optimization.schedules import Schedule
from secateur.training.results import RunLog
from secateur.training.settings import NOMINAL_BATCH


class Average(Protocol):
    """Moving average of the network, which is evaluated and saved."""

    @property
    def network(self) -> nn.Module:
        """The averaged network in eval mode, without gradients."""


@dataclass
class TrainingRun:
    """State of the training for hooks; the loop updates the counters.

    In `before_step`, the gradients on `network` are final: averaged over processes, unscaled and clipped. In
    `after_step`, its weights have changed, and `step` includes this step.
    """

    network: nn.Module
    ema: Average
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    folder: Path
    log: RunLog
    is_main: bool = True
    epoch: int = 0
    batch: int = 0  # completed batches of this epoch
    step: int = 0  # completed optimizer steps
    images_in_step: int = 0  # images, over all processes, in the gradients of the current step
    masks: dict[str, Tensor] = field(default_factory=dict)  # of weights held at zero; saved with checkpoints
    handles: list[RemovableHandle] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """Number of epochs of the whole training."""
        return self.schedule.epochs

    @property
    def known_epochs(self) -> int | None:
        """The same; None in the first epoch of a training with an open end, which has decided nothing yet."""
        return None if self.epoch == 0 and self.schedule.falls is not None else self.epochs

    @property
    def iteration(self) -> int:
        """Number of batches since the start of the training."""
        return self.epoch * self.schedule.batches + self.batch

    @property
    def learning_rate(self) -> float:
        """Current learning rate of weights and norm weights (not of biases, which have another warm-up)."""
        return float(self.optimizer.param_groups[1]["lr"])

    @property
    def step_weight(self) -> float:
        """Images in the current step relative to the nominal 64. The loss sums over images, so penalties scale with
        it."""
        return self.images_in_step / NOMINAL_BATCH
