"""Hooks: methods that act while training, called exactly when weights change, for they hang on the optimizer itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from secateur.detector.model import Detector
from secateur.training.schedules import Schedule
from secateur.training.settings import NOMINAL_BATCH

if TYPE_CHECKING:
    from secateur.training.ema import Ema
    from secateur.training.results import RunLog


@dataclass
class TrainingRun:
    """What a hook sees of the training; the loop moves the counters.

    In `before_step` the gradients on `detector` are final: averaged over processes, unscaled, clipped. In `after_step`
    its weights are new and `step` already counts this step.
    """

    detector: Detector
    ema: Ema
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
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch after the warm-up."""
        return -(-self.schedule.batches // self.schedule.full_accumulate)

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


class Hook:
    """Base of the methods that act while training. Override what is needed; state is plain data and tensors."""

    def start(self, run: TrainingRun) -> None:
        """Called once, before the first step and before the state of a resumed run is loaded."""

    def before_step(self, run: TrainingRun) -> None:
        """Called when gradients are final and weights still old."""

    def after_step(self, run: TrainingRun) -> None:
        """Called when weights are new; the average (`run.ema`) is updated after all hooks."""

    def epoch_end(self, run: TrainingRun) -> None:
        """Called after the last step of an epoch, before its evaluation."""

    def ready(self, run: TrainingRun) -> bool:
        """Whether the detector at the end of this epoch is what the method aims at, so that it may become the best."""
        return True

    def may_stop(self, run: TrainingRun) -> bool:
        """Whether the training may end early; not while a course over all epochs is under way."""
        return True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""


def attach(run: TrainingRun, hooks: Sequence[Hook]) -> None:
    """Hangs the hooks on the inner torch optimizer.

    Neither accumulation batches nor steps that an fp16 scaler skips call `Optimizer.step`, so neither calls a hook.
    """

    def before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for hook in hooks:
            hook.before_step(run)

    def after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        run.step += 1
        with torch.no_grad():
            for hook in hooks:
                hook.after_step(run)

    run.handles.append(run.optimizer.register_step_pre_hook(before))
    run.handles.append(run.optimizer.register_step_post_hook(after))


def detach(run: TrainingRun) -> None:
    """Takes the hooks off the optimizer."""
    while run.handles:
        run.handles.pop().remove()
