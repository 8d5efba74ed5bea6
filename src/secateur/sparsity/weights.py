"""Weight pruning during training: combines window, schedule, criterion and masks in one hook.

Zhu & Gupta 2017, "To prune, or not to prune", with the criteria and patterns of Intel Neural Compressor.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.files import write_text
from secateur.networks.checkpoint import Checkpoint
from secateur.sparsity.criteria import WEIGHT_CRITERIA
from secateur.sparsity.hold import apply_masks_, fitting, forget_momentum_
from secateur.sparsity.lasso import GroupLasso
from secateur.sparsity.patterns import parse_pattern
from secateur.sparsity.progressive import intermediate_masks, substep_gaps
from secateur.sparsity.schedules import SPARSITY_SCHEDULES
from secateur.sparsity.selection import beside, check_bounds, check_target, prunable_layers, select
from secateur.sparsity.settings import WeightSettings
from secateur.sparsity.window import Window, cooldown_of, pruning_window
from secateur.training.hooks import Hook
from secateur.training.run import TrainingRun

Masks = dict[str, Tensor]
FEW = 5  # number of prunings below which the schedule is not gradual
TOLERANCE = 5e-4  # by which existing zeros may exceed the target, because targets are exact only to one block


class WeightPruning(Hook):
    """Gradually zeroes the least important weights, keeps the zeros, and reaches the target before the cool-down.

    Zeros are permanent: masks only lose weights. Masks of the checkpoint stay in effect, with any pattern, and their
    zeros count; so do zero weights that form whole blocks. Layers that are not pruned here keep the masks of the
    checkpoint.

    Args:
        settings: target, pattern, criterion, schedule and window.
        start: checkpoint that the training starts from, for its masks.

    Raises:
        UserError: there is no target, it exceeds the limit of the pattern, or a name is unknown.
    """

    def __init__(self, settings: WeightSettings, start: Checkpoint) -> None:
        if settings.target_sparsity == 0 and not settings.lock_zeros:
            raise UserError("Weight pruning has nothing to do: set target_sparsity, or lock_zeros.")
        self.settings = settings
        self.reached = settings.lock_zeros  # whether the zeros are the final ones
        self.pattern = parse_pattern("1x1" if settings.lock_zeros else settings.pruning_pattern)
        self.criterion = WEIGHT_CRITERIA[settings.pruning_criterion]
        self.schedule = SPARSITY_SCHEDULES[settings.pruning_schedule]
        if not settings.lock_zeros:
            check_bounds(self.pattern, settings.target_sparsity, settings.min_sparsity, settings.max_sparsity)
        self.window: Window | None = None
        self.scores: dict[str, Tensor] = {}  # float32, per weight; empty once the target is reached
        self._came_with = {name: mask.bool() for name, mask in start.masks.items()}
        self._weights: dict[str, nn.Parameter] = {}  # the pruned weights
        self._masks: Masks = {}  # of these, and of other weights with masks
        self._decisions: dict[int, float] = {}  # optimizer step -> progress for which masks are chosen there
        self._queue: dict[int, Masks] = {}  # optimizer step -> masks already chosen for it
        self._substeps = (1, 0)  # of a pruning: number, and optimizer steps between them
        self._scattered = False  # whether some existing zeros do not form whole blocks
        self._lasso: GroupLasso | None = None
        self._share = self._initial = 0.0  # last requested sparsity, and initial sparsity
        self._rows: list[dict[str, float]] = []

    def start(self, run: TrainingRun) -> None:
        """Finds the layers, takes over existing zeros, and plans the window.

        Raises:
            UserError: there is nothing to prune, the target cannot be reached, or the window has no steps.
        """
        names, indivisible = prunable_layers(run.network, self.pattern, self.settings.exclude_weights)
        self._weights = {name: run.network.get_parameter(name) for name in names}
        if self.settings.lock_zeros:
            self._lock(run)
        else:
            frozen = [name for name, weight in self._weights.items() if not weight.requires_grad]
            for name in frozen:
                del self._weights[name]
            if not self._weights:
                raise UserError(
                    "No weight can be pruned: all layers are frozen or excluded. Freeze or exclude fewer layers."
                )
            self.window = pruning_window(run.schedule, self.settings)
            self._take_over(run)
            self._lay_out(run, self.window)
            for names, reason in ((indivisible, f"cannot be divided into {self.pattern.name}"), (frozen, "are frozen")):
                if names:
                    layers = ", ".join(name.removesuffix(".weight") for name in names)
                    run.log.message(f"These layers stay dense because they {reason}: {layers}.")
        run.masks = self._masks
        apply_masks_(run, self._masks)

    @torch.no_grad()
    def before_step(self, run: TrainingRun) -> None:
        """Updates the scores from final gradients; a step with an infinite or NaN gradient is ignored."""
        gradients = [weight.grad for weight in self._weights.values() if weight.grad is not None]
        if self.reached or not gradients:
            return
        # A tensor instead of a bool, because reading it would synchronise with the device at every step.
        finite = torch.stack(torch._foreach_norm(gradients)).isfinite().all()
        for name, weight in self._weights.items():
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            scores = self.criterion(self.scores[name], weight, gradient)
            self.scores[name] = torch.where(finite, scores, self.scores[name])

    def after_step(self, run: TrainingRun) -> None:
        """Chooses new masks at the planned steps, and zeroes masked weights at every step."""
        if not self.reached:
            assert self.window is not None
            if self._lasso is not None and run.step >= self.window.start:
                self._lasso.shrink_(self._weights, run.learning_rate)
            if run.step in self._decisions:
                apply_masks_(run, self._masks)  # the step has changed masked weights, which must be zero here
                self._enqueue(run.step, self._choose(self._decisions[run.step]))
            if run.step in self._queue:
                self._put_on(run, self._queue.pop(run.step))
            if run.step >= self.window.end or (self._share >= self.settings.target_sparsity and not self._queue):
                self._finish()
        apply_masks_(run, self._masks)

    @torch.no_grad()
    def epoch_end(self, run: TrainingRun) -> None:
        """Completes the target if skipped fp16 steps have delayed it, and logs the current zeros."""
        if not self.reached and self.window is not None and run.epoch >= self.window.last_epoch:
            if self._queue:
                self._put_on(run, self._queue[max(self._queue)])
            self._put_on(run, self._choose(1.0))
            self._finish()
            apply_masks_(run, self._masks)
        row: dict[str, float] = {"epoch": run.epoch, "step": run.step, "asked": self._share}
        averages = {name: run.ema.network.get_parameter(name) for name in self._weights}
        row |= {"model": share_of_zeros(self._weights), "ema": share_of_zeros(averages)}
        for name in ("asked", "model", "ema"):
            run.log.log(f"sparsity/{name}", row[name])
        self._rows.append(row)
        if run.is_main:
            write_text(run.folder / "sparsity.csv", _as_csv(self._rows))

    def ready(self, run: TrainingRun) -> bool:
        """Whether the target is reached; only then the detector may become the best."""
        return self.reached

    def state_dict(self) -> dict[str, Any]:
        """Masks, scores, queue, and the corresponding settings."""
        return {
            "settings": _plain(self.settings),
            "reached": self.reached,
            "initial": self._initial,
            "share": self._share,
            "masks": dict(self._masks),
            "scores": dict(self.scores),
            "queue": {step: dict(masks) for step, masks in self._queue.items()},
            "rows": [dict(row) for row in self._rows],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the output of `state_dict`.

        Raises:
            UserError: the training was started with other options.
        """
        for name, value in _plain(self.settings).items():
            if state["settings"].get(name) != value:
                before = state["settings"].get(name)
                raise UserError(
                    f"Cannot resume: option {name} was {before!r} and is {value!r} now. Use the previous value."
                )
        self.reached, self._initial, self._share = state["reached"], state["initial"], state["share"]
        device = next(iter(self._weights.values())).device
        # The run and its checkpoints reference this dictionary.
        self._masks.clear()
        self._masks.update(_moved(state["masks"], device))
        self.scores = _moved(state["scores"], device)
        self._queue = {step: _moved(masks, device) for step, masks in state["queue"].items()}
        self._rows = [dict(row) for row in state["rows"]]

    def _lock(self, run: TrainingRun) -> None:
        """Masks all existing zeros; excluded layers keep their masks."""
        masks = {name: weight.detach() != 0 for name, weight in self._weights.items()}
        self._masks = {name: mask for name, mask in masks.items() if not mask.all()}
        if not self._masks:
            raise UserError("Option lock_zeros found no zero weights. Start from a model with zeros.")
        self._share = self._initial = share_of_zeros(self._weights)
        came_with = fitting(self._came_with, run.network)
        self._masks |= {name: mask for name, mask in came_with.items() if name not in self._weights}

    def _take_over(self, run: TrainingRun) -> None:
        """Starts with the masks of the checkpoint, and with whole blocks that are zero."""
        came_with = fitting(self._came_with, run.network)
        for name, weight in self._weights.items():
            size = weight.detach().abs()
            gone = self.pattern.reduce(size, "max") == 0
            blocks = self.pattern.expand(~gone, weight.detach(), size)
            self._masks[name] = blocks & came_with[name] if name in came_with else blocks
            self._scattered = self._scattered or not torch.equal(blocks, self._masks[name])
        self._share = self._initial = share_of_zeros(self._masks)
        target = self.settings.target_sparsity
        if self._initial > target + TOLERANCE:
            check_target(self._initial, target)
        self._masks |= {name: mask for name, mask in came_with.items() if name not in self._weights}

    def _lay_out(self, run: TrainingRun, window: Window) -> None:
        """Plans the steps at which masks are chosen, and logs them."""
        settings = self.settings
        if settings.progressive:
            gradual = self.schedule(self._initial, settings.target_sparsity, 0.0) < settings.target_sparsity
            self._substeps = substep_gaps(window.frequency) if gradual and window.prunings else (1, 0)
            if self._substeps[0] == 1:
                run.log.message("Progressive pruning is disabled: it needs at least 2 steps between prunings.")
        count, gap = self._substeps
        # Sub-steps lead up to their pruning; the pruning at the start of the window has no steps before it.
        lead = {moment: (count - 1) * gap if moment > window.start else 0 for moment in window.moments}
        self._decisions = {moment - lead[moment]: progress for moment, progress in window.moments.items()}
        self.scores = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in self._weights.items()}
        if settings.group_lasso > 0:
            self._lasso = GroupLasso(settings.group_lasso, self.pattern, self._weights)
        run.log.message(
            f"Weight pruning ({self.pattern.name}, {settings.pruning_criterion}, {settings.pruning_schedule}): from "
            f"{self._initial:.1%} to {settings.target_sparsity:.1%} zeros in {len(self._weights)} layers, "
            f"{max(window.prunings, 1)} prunings from optimizer step {window.start} to {window.end}, then "
            f"{run.epochs - 1 - window.last_epoch} epochs of cool-down."
        )
        if window.prunings < FEW and settings.pruning_schedule != "oneshot":
            run.log.message("This is not gradual. Train longer, or set a shorter warm-up or cool-down.")

    def _choose(self, progress: float) -> Masks | None:
        """New masks of all pruned weights; None if the schedule requests no additional zeros."""
        target = self.settings.target_sparsity
        wanted = target if progress >= 1 else min(self.schedule(self._initial, target, progress), target)
        if wanted <= self._share:
            return None
        self._share = wanted
        # Whole blocks that are zero are chosen first anyway; other existing zeros count wherever they are.
        held = self._masks if self._scattered else {}
        masks = beside(held, wanted, lambda blocks: self._select(blocks, wanted))
        return {name: self._masks[name] & mask for name, mask in masks.items()}

    def _select(self, blocks: float, wanted: float) -> Masks:
        """Masks whose blocks have the share `blocks` of zeros; `wanted` is the total share."""
        settings = self.settings
        return select(
            self.scores,
            self._weights,
            self.pattern,
            blocks,
            scope=settings.pruning_scope,
            minimum=settings.min_sparsity * wanted / settings.target_sparsity,
            maximum=settings.max_sparsity,
        )

    def _enqueue(self, step: int, masks: Masks | None) -> None:
        """Schedules masks for this step, or in sub-steps for this step and the next ones."""
        if masks is None:
            return
        count, gap = self._substeps
        assert self.window is not None
        if count == 1 or step == self.window.start:
            self._queue[step] = masks
            return
        old = {name: self._masks[name] for name in masks}
        bites = intermediate_masks(old, masks, self.scores, self.pattern, count)
        self._queue |= {step + number * gap: bite for number, bite in enumerate(bites)}

    def _put_on(self, run: TrainingRun, masks: Masks | None) -> None:
        """Applies masks from now on, and clears the optimizer state of masked weights."""
        if masks is not None:
            self._masks.update(masks)
            forget_momentum_(run, masks)

    def _finish(self) -> None:
        self.reached = True
        self.scores, self._queue = {}, {}


def check_weight_pruning(settings: WeightSettings, epochs: int) -> None:
    """Checks names, the limit of the pattern, and the cool-down, before a detector is available.

    Raises:
        UserError: one of them is invalid.
    """
    pattern = parse_pattern(settings.pruning_pattern)
    WEIGHT_CRITERIA[settings.pruning_criterion]
    SPARSITY_SCHEDULES[settings.pruning_schedule]
    check_bounds(pattern, settings.target_sparsity, settings.min_sparsity, settings.max_sparsity)
    if settings.group_lasso > 0 and pattern.limit < 1:
        raise UserError(
            f"--group-lasso needs a pattern that prunes whole blocks, unlike {pattern.name}. Use NxM, such as 4x1."
        )
    cooldown_of(settings, epochs)


def share_of_zeros(tensors: Mapping[str, Tensor]) -> float:
    """Share of zeros among all entries of tensors of any shape."""
    entries = sum(tensor.numel() for tensor in tensors.values())
    return 1 - sum(int(torch.count_nonzero(tensor)) for tensor in tensors.values()) / entries


def _moved(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _plain(settings: WeightSettings) -> dict[str, Any]:
    """Settings as in a saved state."""
    return asdict(settings) | {"exclude_weights": list(settings.exclude_weights)}


def _as_csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: int(value) if key in ("epoch", "step") else f"{value:.6f}" for key, value in row.items()})
    return text.getvalue()
