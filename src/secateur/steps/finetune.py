"""The step that trains a pruned detector: its shapes and its zeros are kept."""

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
    """Train a pruned detector; the widths and the zeros of its weights are kept, the best epoch counts."""

    sparsity: WeightSettings = field(default_factory=WeightSettings)

    row_name: ClassVar[str] = "finetuned"
    overrides: ClassVar[tuple[Override, ...]] = (
        *TRAINING_OVERRIDES,
        Override("finetune_epochs", "epochs", "Epochs of the fine-tuning; 0 leaves it out.", int, zero_skips=True),
        Override(
            "distill",
            "distill",
            "What fine-tuning imitates of the dense network: {secateur.families.yolov5.distillation}, or several "
            "joined by +.",
        ),
        Override("teacher", "teacher", "Teacher of the distillation, instead of the dense detector of the run."),
        *WEIGHT_OVERRIDES,
    )

    @property
    def title(self) -> str:
        """Its row."""
        return "fine-tuned"

    def takes(self, override: Override) -> bool:
        """Options of the weight pruning only where weights are pruned."""
        return override.purpose != ZEROES or self.sparsity.target_sparsity > 0

    def methods(self) -> Methods:
        """Weight pruning and distillation, as far as they are switched on."""
        from secateur.checkpoints.training import Methods

        return Methods(weights=self.sparsity, distill=self.distillation)
