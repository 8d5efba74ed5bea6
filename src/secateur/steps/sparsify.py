"""The step that trains with a penalty, so that unimportant channels become zero before the cut."""

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
    """Train with a penalty on channels. The last averaged weights are kept, because the best epoch may be the least
    sparse one.
    """

    sparsify: SparsifySettings = field(default_factory=SparsifySettings)

    weights_file: ClassVar[str] = "last"
    row_name: ClassVar[str] = "sparse"
    overrides: ClassVar[tuple[Override, ...]] = (
        *TRAINING_OVERRIDES,
        Override("sparse_epochs", "epochs", "Epochs of the sparse training (0 skips it).", int, zero_skips=True),
        Override("rate", "rate", "Sparsity penalty factor (0: derived from the training length).", float),
        Override("exclude", "exclude", "Name patterns of layers that keep all channels and weights.", tuple),
    )

    @property
    def title(self) -> str:
        """Title of its table row."""
        return "sparse"

    def methods(self) -> Methods:
        """The penalty, and distillation if enabled."""
        from secateur.checkpoints.training import Methods

        return Methods(distill=self.distillation, sparsify=self.sparsify)

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Checks the training settings, that scales for the penalty exist, and the excluded layers."""
        from secateur.pruning.allocation import excluded_spaces
        from secateur.pruning.graph import trace
        from secateur.sparsity.penalties import refuse_without_norms

        super().check(checkpoint, context)
        refuse_without_norms(checkpoint.build(), self.sparsify)
        if self.sparsify.exclude:
            excluded_spaces(trace(checkpoint.build()), self.sparsify.exclude)
