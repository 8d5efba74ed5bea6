"""The step that removes the least important bottlenecks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from secateur.errors import UserError
from secateur.pruning.settings import LayerSettings, RepairSettings
from secateur.steps.step import Made, Outcome, Step, step

if TYPE_CHECKING:
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint


@step("remove_layers", purpose="removes layers")
@dataclass(frozen=True)
class RemoveLayers(Step):
    """Remove complete bottlenecks, least important first. The layers after them absorb their mean output."""

    layers: LayerSettings = field(default_factory=LayerSettings)
    repair: RepairSettings = field(default_factory=RepairSettings)

    @property
    def title(self) -> str:
        """Title of its table row."""
        return "layers removed"

    def describe(self) -> str:
        """How many blocks it removes."""
        what = "chain" if self.layers.chains else "layer"
        return f"remove {self.layers.layers} {what}{'' if self.layers.layers == 1 else 's'}"

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Checks the name of the score and the images that it needs."""
        from secateur.checkpoints.layers import check_layers

        if self.layers.layers < 1:
            raise UserError("Nothing to remove: set --layers to at least 1.")
        check_layers(checkpoint, context, self.layers)

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """Returns one row."""
        from secateur.checkpoints.layers import remove_layers

        return Outcome((Made(remove_layers(checkpoint, context, self.layers, self.repair)[0], "layers"),))
