"""The state of a training that is under way, as hooks see it."""

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
    """The moving average of the network: what is evaluated and saved."""

    @property
    def network(self) -> nn.Module:
        """In eval mode, without gradients."""


@dataclass
class TrainingRun:
    """What a hook sees of the training; the loop moves the counters.

    In `before_step` the gradients on `network` are final: averaged over processes, unscaled, clipped. In `after_step`
    its weights are new and `step` already counts this step.
    """

    network: nn.Module
    ema: Average
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    folder: Path
    log: RunLog
    is_main: bool = True
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0  # optimizer steps that are done
    images_in_step: int = 0  # images, over all processes, whose gradients the step in progress sums
    masks: dict[str, Tensor] = field(default_factory=dict)  # of weights that are held at zero; saved with checkpoints
    handles: list[RemovableHandle] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """Epochs of the whole training."""
        return self.schedule.epochs

    @property
    def iteration(self) -> int:
        """Batches since the start of the training."""
        return self.epoch * self.schedule.batches + self.batch

    @property
    def learning_rate(self) -> float:
        """Current rate of weights and norm weights (not of the biases, whose warm-up differs)."""
        return float(self.optimizer.param_groups[1]["lr"])

    @property
    def step_weight(self) -> float:
        """Images of the step in progress over the nominal 64: the loss sums over images, so penalties scale with it."""
        return self.images_in_step / NOMINAL_BATCH
