"""The step that trains a pruned detector. Its shapes and zeros are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from secateur.sparsity.settings import WeightSettings
from secateur.steps.step import Override, step
from secateur.steps.train import TRAINING_OVERRIDES, WEIGHT_OVERRIDES, ZEROES, TrainingStep

if TYPE_CHECKING:
    from secateur.checkpoints.training import Methods


@step("finetune", purpose="fine-tunes")
@dataclass(frozen=True)
class Finetune(TrainingStep):
    """Train a pruned detector, keeping its widths and zero weights; the best epoch is returned."""

    sparsity: WeightSettings = field(default_factory=WeightSettings)

    row_name: ClassVar[str] = "finetuned"
    overrides: ClassVar[tuple[Override, ...]] = (
        *TRAINING_OVERRIDES,
        Override("finetune_epochs", "epochs", "Epochs of the fine-tuning (0 skips it).", int, zero_skips=True),
        Override(
            "distill",
            "distill",
            "Distillation from the dense network during fine-tuning: "
            "{secateur.families.yolov5.distillation}, or several joined by +.",
        ),
        Override("teacher", "teacher", "Teacher for distillation (default: the run's dense detector)."),
        *WEIGHT_OVERRIDES,
    )

    @property
    def title(self) -> str:
        """Title of its table row."""
        return "fine-tuned"

    def takes(self, override: Override) -> bool:
        """Accepts weight-pruning options only if weights are pruned."""
        return override.purpose != ZEROES or self.sparsity.target_sparsity > 0

    def methods(self) -> Methods:
        """Weight pruning and distillation, if enabled."""
        from secateur.checkpoints.training import Methods

        return Methods(weights=self.sparsity, distill=self.distillation)
