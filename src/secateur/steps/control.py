"""The step that trains what the run's detector has to beat: a dense one, as small, trained as long."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from secateur.steps.step import Made, Outcome, Step, step
from secateur.training.settings import TrainSettings

if TYPE_CHECKING:
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint


@step("control", purpose="trains a control")
@dataclass(frozen=True)
class Control(Step):
    """Narrow the dense detector to the FLOPs of the present one and train it, as a row to compare with."""

    hyp: str = "scratch-low"
    """Hyper-parameters: scratch-low, scratch-med, scratch-high, finetune, or a YAML file."""
    train: TrainSettings = field(default_factory=TrainSettings)

    @property
    def title(self) -> str:
        """Its row."""
        return "narrow dense (control)"

    def describe(self) -> str:
        """The verb and its epochs."""
        return f"control ({self.train.epochs} {'epoch' if self.train.epochs == 1 else 'epochs'})"

    def files(self) -> tuple[str, ...]:
        """Hyper-parameters of the user's own."""
        return (self.hyp,)

    def settings(self) -> TrainSettings:
        """How to train, with the hyper-parameters read."""
        from secateur.families.hyp import load_hyp

        return dataclasses.replace(self.train, hyp=load_hyp(self.hyp))

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Data, hyper-parameters, and a network whose widths can be scaled."""
        from secateur.families.family import family_of

        family = family_of(checkpoint)
        family.require("narrow", "made narrow as a control")
        family.check_narrow(checkpoint)
        context.require_data("A control")
        self.settings()

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """One row, to compare with those of the run's detector, which stays as it was."""
        from secateur.checkpoints.training import train_checkpoint
        from secateur.families.family import family_of
        from secateur.families.loading import load_checkpoint

        folder, dense = context.place(self.verb), context.dense or checkpoint
        family = family_of(dense)
        found = family.narrowing(dense, checkpoint, context.image_size)
        start = family.narrow(dense, context.start or dense, found, self.train.seed)
        result = train_checkpoint(start, context, self.settings(), folder, verb=self.verb)
        title = f"{context.title or self.title}{found.get('note', '')}"
        made = Made(load_checkpoint(result.best), "control", title, compared=True)
        return Outcome((made,), {"control": found})
