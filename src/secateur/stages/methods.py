"""The methods that a training uses besides the plain loop, and the hooks and loss terms that they become."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from secateur.detector.checkpoint import Checkpoint
from secateur.detector.model import Detector
from secateur.distillation.losses import DISTILLATIONS
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.sparsity.criteria import WEIGHT_CRITERIA
from secateur.sparsity.hold import HoldMasks
from secateur.sparsity.patterns import parse_pattern
from secateur.sparsity.rates import RATES
from secateur.sparsity.schedules import SPARSITY_SCHEDULES
from secateur.sparsity.selection import check_bounds
from secateur.sparsity.settings import SparsifySettings, WeightSettings
from secateur.sparsity.weights import WeightPruning
from secateur.sparsity.window import cooldown_of
from secateur.stages.distilling import distillation, find_teacher
from secateur.stages.penalties import check_rate, penalty_hooks
from secateur.stages.recipe import configured
from secateur.training.hooks import Hook
from secateur.training.objective import Term
from secateur.training.settings import TrainSettings

S = TypeVar("S")


@dataclass(frozen=True)
class Methods:
    """Weight pruning, distillation and channel penalties; by default none of them."""

    weights: WeightSettings = field(default_factory=WeightSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    sparsify: SparsifySettings | None = None

    @property
    def prunes_weights(self) -> bool:
        """Whether weights are zeroed, or their zeros held."""
        return self.weights.target_sparsity > 0 or self.weights.lock_zeros

    def check(self, settings: TrainSettings) -> None:
        """Looks up every name and range before anything is written.

        Raises:
            UserError: an unknown name, a target that its pattern cannot give, a cool-down as long as the training.
        """
        if self.sparsify is not None:
            RATES[self.sparsify.schedule]
            check_rate(self.sparsify, settings)
        for name in self.distill.methods:
            DISTILLATIONS[name]
        if self.weights.target_sparsity > 0:
            check_weight_pruning(self.weights, settings.epochs)

    def record(self) -> dict[str, Any]:
        """The settings of the methods in use, for the history of a checkpoint."""
        result: dict[str, Any] = {}
        if self.sparsify is not None:
            result |= dataclasses.asdict(self.sparsify)
        if self.prunes_weights:
            result |= dataclasses.asdict(self.weights)
        if self.distill.distill:
            result |= dataclasses.asdict(self.distill)
        return result

    def hooks(self, start: Checkpoint, settings: TrainSettings, images: int) -> list[Hook]:
        """Hooks in the order in which they act; zeroing weights comes last, so that nothing refills them.

        Raises:
            UserError: an unknown name, or settings that do not fit the checkpoint.
        """
        hooks: list[Hook] = []
        if self.sparsify is not None:
            hooks += penalty_hooks(start, self.sparsify, settings, images)
        if self.prunes_weights:
            hooks.append(WeightPruning(self.weights, start))
        elif start.masks:
            # Zeros of an earlier weight pruning stay, whatever the training does.
            hooks.append(HoldMasks(start.masks))
        return hooks

    def distillation(
        self, start: Checkpoint, student: Detector, settings: TrainSettings, dense: Checkpoint | None
    ) -> tuple[list[Term], list[Hook]]:
        """Loss terms of the distillation, if any; the teacher is `--teacher`, or `dense`, or what `start` came from."""
        if not self.distill.distill:
            return [], []
        teacher = dense
        if teacher is None or self.distill.teacher:
            teacher = find_teacher(self.distill, start, zeroing=self.prunes_weights)
        return distillation(self.distill, student, teacher, start, settings)


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


def methods_of(settings: Mapping[str, Any], where: str) -> tuple[Methods, dict[str, Any]]:
    """Methods from a recipe's settings of a training stage, and the settings that are none of theirs."""
    rest = dict(settings)

    def configured_from(base: S) -> S:
        fields = [entry.name for entry in dataclasses.fields(base)]  # type: ignore[arg-type]
        return configured(base, {name: rest.pop(name) for name in fields if name in rest}, where)

    return Methods(configured_from(WeightSettings()), configured_from(DistillSettings())), rest
