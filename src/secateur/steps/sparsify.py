"""The step that trains with a penalty, so that dispensable channels go to zero before they are cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from secateur.sparsity.settings import SparsifySettings
from secateur.steps.step import Override, step
from secateur.steps.train import TRAINING_OVERRIDES, TrainingStep

if TYPE_CHECKING:
    from secateur.checkpoints.training import Methods
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint


@step("sparsify", purpose="trains sparsely")
@dataclass(frozen=True)
class Sparsify(TrainingStep):
    """Train with a penalty on channels; the last averaged weights are kept, as the best epoch may be the least
    sparse."""

    sparsify: SparsifySettings = field(default_factory=SparsifySettings)

    weights_file: ClassVar[str] = "last"
    row_name: ClassVar[str] = "sparse"
    overrides: ClassVar[tuple[Override, ...]] = (
        *TRAINING_OVERRIDES,
        Override("sparse_epochs", "epochs", "Epochs of the sparse training; 0 leaves it out.", int, zero_skips=True),
        Override("rate", "rate", "Sparsity factor of the sparse training (0: from its length).", float),
        Override("exclude", "exclude", "Layers that keep all channels and weights, as patterns of their names.", tuple),
    )

    @property
    def title(self) -> str:
        """Its row."""
        return "sparse"

    def methods(self) -> Methods:
        """The penalty, and distillation where it is switched on."""
        from secateur.checkpoints.training import Methods

        return Methods(distill=self.distillation, sparsify=self.sparsify)

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """As any training, whether there are scales to penalise, and the layers without penalty."""
        from secateur.pruning.allocation import excluded_spaces
        from secateur.pruning.graph import trace
        from secateur.sparsity.penalties import refuse_without_norms

        super().check(checkpoint, context)
        refuse_without_norms(checkpoint.build(), self.sparsify)
        if self.sparsify.exclude:
            excluded_spaces(trace(checkpoint.build()), self.sparsify.exclude)
