"""Hooks: methods that act during training. They are attached to the optimizer, so they run exactly when weights
change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from secateur.scores import Scores
from secateur.training.run import TrainingRun


class Hook:
    """Base class of methods that act during training. Override what is needed. The state holds plain data and
    tensors."""

    def start(self, run: TrainingRun) -> None:
        """Called once, before the first step and before the state of a resumed run is loaded."""

    def before_step(self, run: TrainingRun) -> None:
        """Called when gradients are final and weights have not changed yet."""

    def after_step(self, run: TrainingRun) -> None:
        """Called when weights have changed; the average (`run.ema`) is updated after all hooks."""

    def epoch_end(self, run: TrainingRun) -> None:
        """Called after the last step of an epoch, before its evaluation."""

    def evaluated(self, run: TrainingRun, scores: Scores | None) -> None:
        """Called after the evaluation of an epoch in all processes; scores are None on other processes, and without
        an evaluation."""

    def ready(self, run: TrainingRun) -> bool:
        """Whether the network at the end of this epoch meets the target of the method, so that it may become the
        best one."""
        return True

    def may_stop(self, run: TrainingRun) -> bool:
        """Whether the training may stop early; False while a schedule over all epochs is active."""
        return True

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed run."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the output of `state_dict`."""


def attach(run: TrainingRun, hooks: Sequence[Hook]) -> None:
    """Attaches the hooks to the inner torch optimizer.

    Neither accumulation batches nor steps skipped by an fp16 scaler call `Optimizer.step`, so hooks do not run for
    them.
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
    """Removes the hooks from the optimizer."""
    while run.handles:
        run.handles.pop().remove()
