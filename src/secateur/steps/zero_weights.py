"""The step that zeroes the smallest weights of every convolution at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from secateur.sparsity.settings import OneShotSettings
from secateur.steps.step import Made, Outcome, Override, Step, step

if TYPE_CHECKING:
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint


@step("zero_weights", purpose="zeroes weights at once")
@dataclass(frozen=True)
class ZeroWeights(Step):
    """Zero the smallest weights of every convolution, without training; later trainings keep the zeros."""

    one_shot: OneShotSettings = field(default_factory=OneShotSettings)

    overrides: ClassVar[tuple[Override, ...]] = (
        Override("target_sparsity", "unstructured", "Share of the weights to zero.", float),
        Override("pruning_pattern", "pattern", "Blocks in which weights are zeroed: 1x1, 4x1, NxM, 2:4."),
        Override("exclude", "exclude", "Layers that keep all channels and weights, as patterns of their names.", tuple),
    )

    @property
    def title(self) -> str:
        """Its row."""
        return "weights zeroed"

    def describe(self) -> str:
        """How many."""
        return f"zero {self.one_shot.unstructured:.0%} of the weights"

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Pattern, scope and share."""
        from secateur.sparsity.one_shot import check_one_shot

        check_one_shot(self.one_shot)

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """One row, and the report of the zeros beside it."""
        from secateur.sparsity.one_shot import zero_weights

        return Outcome((Made(zero_weights(checkpoint, self.one_shot)[0], "zeroed"),))
