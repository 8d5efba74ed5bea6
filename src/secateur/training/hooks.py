"""Hooks: methods that act while training, called exactly when weights change, for they hang on the optimizer itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from secateur.scores import Scores
from secateur.training.run import TrainingRun


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

    def evaluated(self, run: TrainingRun, scores: Scores | None) -> None:
        """Called after an epoch's evaluation, in all processes; off the main one, and without one, scores are None."""

    def ready(self, run: TrainingRun) -> bool:
        """Whether the network at the end of this epoch is what the method aims at, so that it may become the best."""
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
