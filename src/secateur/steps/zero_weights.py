"""The step that sets the smallest weights of all convolutions to zero in one shot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from secateur.sparsity.settings import OneShotSettings
from secateur.steps.step import Made, Outcome, Override, Step, step

if TYPE_CHECKING:
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint


@step("zero_weights", purpose="zeroes weights in one shot")
@dataclass(frozen=True)
class ZeroWeights(Step):
    """Set the smallest weights of every convolution to zero, without training. Later trainings keep the zeros."""

    one_shot: OneShotSettings = field(default_factory=OneShotSettings)

    overrides: ClassVar[tuple[Override, ...]] = (
        Override("target_sparsity", "unstructured", "Share of weights to set to zero.", float),
        Override("pruning_pattern", "pattern", "Block pattern of the zeroed weights: 1x1, 4x1, NxM, 2:4."),
        Override("exclude", "exclude", "Name patterns of layers that keep all channels and weights.", tuple),
    )

    @property
    def title(self) -> str:
        """Title of its table row."""
        return "weights zeroed"

    def describe(self) -> str:
        """How many weights it zeroes."""
        return f"zero {self.one_shot.unstructured:.0%} of the weights"

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Checks the pattern, the scope and the share."""
        from secateur.sparsity.one_shot import check_one_shot

        check_one_shot(self.one_shot)

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """Returns one row and the report of the zeros."""
        from secateur.sparsity.one_shot import zero_weights

        return Outcome((Made(zero_weights(checkpoint, self.one_shot)[0], "zeroed"),))
