"""Weight pruning while training: the window, the schedule, the criterion and the masks put together as one hook.

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
FEW = 5  # prunings: a schedule is no schedule with fewer
TOLERANCE = 5e-4  # by which the zeros that are there may exceed the target: targets are hit up to a block


class WeightPruning(Hook):
    """Zeroes the least important weights step by step, holds the zeros, and reaches the target before the cool-down.

    A zero stays: masks only shrink. Masks that the checkpoint came with hold on, whatever their pattern, and their
    zeros count; so do zero weights that make whole blocks. Layers that are not pruned here keep the checkpoint's masks.

    Args:
        settings: target, pattern, criterion, schedule and window.
        start: what the training starts from, for its masks.

    Raises:
        UserError: no target, a target beyond the pattern, or an unknown name.
    """

    def __init__(self, settings: WeightSettings, start: Checkpoint) -> None:
        if settings.target_sparsity == 0 and not settings.lock_zeros:
            raise UserError("Weight pruning has nothing to do: set target_sparsity, or lock_zeros.")
        self.settings = settings
        self.reached = settings.lock_zeros  # whether the zeros are those that the training is to end with
        self.pattern = parse_pattern("1x1" if settings.lock_zeros else settings.pruning_pattern)
        self.criterion = WEIGHT_CRITERIA[settings.pruning_criterion]
        self.schedule = SPARSITY_SCHEDULES[settings.pruning_schedule]
        if not settings.lock_zeros:
            check_bounds(self.pattern, settings.target_sparsity, settings.min_sparsity, settings.max_sparsity)
        self.window: Window | None = None
        self.scores: dict[str, Tensor] = {}  # float32, per weight; empty once the target is reached
        self._came_with = {name: mask.bool() for name, mask in start.masks.items()}
        self._weights: dict[str, nn.Parameter] = {}  # that are pruned
        self._masks: Masks = {}  # of these, and of other weights that came with masks
        self._decisions: dict[int, float] = {}  # optimizer step -> progress for which masks are chosen there
        self._queue: dict[int, Masks] = {}  # optimizer step -> masks already chosen for it
        self._substeps = (1, 0)  # of a pruning: how many, and optimizer steps between them
        self._scattered = False  # whether some zeros that hold make no whole blocks
        self._lasso: GroupLasso | None = None
        self._share = self._initial = 0.0  # sparsity last asked for, and that of the beginning
        self._rows: list[dict[str, float]] = []

    def start(self, run: TrainingRun) -> None:
        """Finds the layers, takes over the zeros that are there, and lays out the window.

        Raises:
            UserError: nothing to prune, a target that cannot be reached, or a window without steps.
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
                raise UserError("No weight can be pruned, for all layers are frozen (freeze) or excluded; name fewer.")
            self.window = pruning_window(run.schedule, self.settings)
            self._take_over(run)
            self._lay_out(run, self.window)
            for names, reason in ((indivisible, f"do not divide into {self.pattern.name}"), (frozen, "are frozen")):
                if names:
                    layers = ", ".join(name.removesuffix(".weight") for name in names)
                    run.log.message(f"Left dense, for they {reason}: {layers}.")
        run.masks = self._masks
        apply_masks_(run, self._masks)

    @torch.no_grad()
    def before_step(self, run: TrainingRun) -> None:
        """Updates the scores from final gradients; a step with an infinite or NaN gradient adds nothing to them."""
        gradients = [weight.grad for weight in self._weights.values() if weight.grad is not None]
        if self.reached or not gradients:
            return
        # A tensor, not a bool: reading it would wait for the device at every step.
        finite = torch.stack(torch._foreach_norm(gradients)).isfinite().all()
        for name, weight in self._weights.items():
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            scores = self.criterion(self.scores[name], weight, gradient)
            self.scores[name] = torch.where(finite, scores, self.scores[name])

    def after_step(self, run: TrainingRun) -> None:
        """Chooses new masks at the steps of the plan, and zeroes masked weights at every step."""
        if not self.reached:
            assert self.window is not None
            if self._lasso is not None and run.step >= self.window.start:
                self._lasso.shrink_(self._weights, run.learning_rate)
            if run.step in self._decisions:
                apply_masks_(run, self._masks)  # the step has moved masked weights; by their zeros they are known
                self._enqueue(run.step, self._choose(self._decisions[run.step]))
            if run.step in self._queue:
                self._put_on(run, self._queue.pop(run.step))
            if run.step >= self.window.end or (self._share >= self.settings.target_sparsity and not self._queue):
                self._finish()
        apply_masks_(run, self._masks)

    @torch.no_grad()
    def epoch_end(self, run: TrainingRun) -> None:
        """Completes the target where skipped fp16 steps have delayed it, and logs the zeros that are there."""
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
        """Only a detector that has reached the target may become the best."""
        return self.reached

    def state_dict(self) -> dict[str, Any]:
        """Masks, scores, what is queued, and the settings that they belong to."""
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
        """Restores what `state_dict` gave.

        Raises:
            UserError: the training was begun with other options.
        """
        for name, value in _plain(self.settings).items():
            if state["settings"].get(name) != value:
                before = state["settings"].get(name)
                raise UserError(f"Cannot resume: option {name} was {before!r} and is {value!r} now; repeat the first.")
        self.reached, self._initial, self._share = state["reached"], state["initial"], state["share"]
        device = next(iter(self._weights.values())).device
        # The run and its checkpoints hold on to this very dictionary.
        self._masks.clear()
        self._masks.update(_moved(state["masks"], device))
        self.scores = _moved(state["scores"], device)
        self._queue = {step: _moved(masks, device) for step, masks in state["queue"].items()}
        self._rows = [dict(row) for row in state["rows"]]

    def _lock(self, run: TrainingRun) -> None:
        """Takes the zeros of single weights as they are; excluded layers keep the masks that they came with."""
        masks = {name: weight.detach() != 0 for name, weight in self._weights.items()}
        self._masks = {name: mask for name, mask in masks.items() if not mask.all()}
        if not self._masks:
            raise UserError("Option lock_zeros finds no zeros among the weights; start from a model that has some.")
        self._share = self._initial = share_of_zeros(self._weights)
        came_with = fitting(self._came_with, run.network)
        self._masks |= {name: mask for name, mask in came_with.items() if name not in self._weights}

    def _take_over(self, run: TrainingRun) -> None:
        """Begins with the masks of the checkpoint, and with whole blocks that are zero."""
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
        """Plans the steps at which masks are chosen, and says so."""
        settings = self.settings
        if settings.progressive:
            gradual = self.schedule(self._initial, settings.target_sparsity, 0.0) < settings.target_sparsity
            self._substeps = substep_gaps(window.frequency) if gradual and window.prunings else (1, 0)
            if self._substeps[0] == 1:
                run.log.message("Pruning is not progressive here: that takes at least 2 steps from one to the next.")
        count, gap = self._substeps
        # Sub-steps lead up to the moment that they belong to; what goes at the very start has nothing before it.
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
            run.log.message("That is hardly gradual: train longer, or set a shorter warm-up or cool-down.")

    def _choose(self, progress: float) -> Masks | None:
        """New masks of all pruned weights; None when the schedule asks for no more zeros than it did."""
        target = self.settings.target_sparsity
        wanted = target if progress >= 1 else min(self.schedule(self._initial, target, progress), target)
        if wanted <= self._share:
            return None
        self._share = wanted
        # Whole blocks that are zero go first anyway; single zeros of before count wherever they lie.
        held = self._masks if self._scattered else {}
        masks = beside(held, wanted, lambda blocks: self._select(blocks, wanted))
        return {name: self._masks[name] & mask for name, mask in masks.items()}

    def _select(self, blocks: float, wanted: float) -> Masks:
        """Masks whose blocks make the share `blocks` of zeros; `wanted` is the share in all."""
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
        """Sets masks down for this step, or in sub-steps for it and the next ones."""
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
        """Masks that hold from now on; what the optimizer remembers of masked weights is forgotten."""
        if masks is not None:
            self._masks.update(masks)
            forget_momentum_(run, masks)

    def _finish(self) -> None:
        self.reached = True
        self.scores, self._queue = {}, {}


def check_weight_pruning(settings: WeightSettings, epochs: int) -> None:
    """Names, the pattern's limit, and the cool-down, before there is a detector to look at.

    Raises:
        UserError: one of them is impossible.
    """
    pattern = parse_pattern(settings.pruning_pattern)
    WEIGHT_CRITERIA[settings.pruning_criterion]
    SPARSITY_SCHEDULES[settings.pruning_schedule]
    check_bounds(pattern, settings.target_sparsity, settings.min_sparsity, settings.max_sparsity)
    if settings.group_lasso > 0 and pattern.limit < 1:
        raise UserError(f"--group-lasso works on blocks that go whole, which those of {pattern.name} do not.")
    cooldown_of(settings, epochs)


def share_of_zeros(tensors: Mapping[str, Tensor]) -> float:
    """Zeros of all tensors together over their entries."""
    entries = sum(tensor.numel() for tensor in tensors.values())
    return 1 - sum(int(torch.count_nonzero(tensor)) for tensor in tensors.values()) / entries


def _moved(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _plain(settings: WeightSettings) -> dict[str, Any]:
    """Settings as a saved state holds them."""
    return asdict(settings) | {"exclude_weights": list(settings.exclude_weights)}


def _as_csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: int(value) if key in ("epoch", "step") else f"{value:.6f}" for key, value in row.items()})
    return text.getvalue()
