"""The step that trains what the run's detector has to beat: a dense one, as small, trained as long."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from secateur.steps.step import Made, Outcome, Step, step
from secateur.training.settings import TrainSettings

if TYPE_CHECKING:
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint


LOG = logging.getLogger("secateur")
CHEAP, CHEAP_SHARE = 120.0, 0.15
"""Seconds, and the share of the whole run, up to which a control is trained without being asked for."""


@step("control", purpose="trains a control")
@dataclass(frozen=True)
class Control(Step):
    """Narrow the dense detector to the FLOPs of the present one and train it, as a row to compare with."""

    hyp: str = "scratch-low"
    """Hyper-parameters: scratch-low, scratch-med, scratch-high, finetune, or a YAML file."""
    train: TrainSettings = field(default_factory=TrainSettings)
    cheap: bool = False
    """Train it only where that takes at most 2 minutes or 15 % of the whole run."""

    @property
    def title(self) -> str:
        """Its row."""
        return "narrow dense (control)"

    def describe(self) -> str:
        """The verb and its epochs."""
        epochs = f"{self.train.epochs} {'epoch' if self.train.epochs == 1 else 'epochs'}"
        return f"control ({epochs}{', where it is cheap' if self.cheap else ''})"

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

    def worth_its_time(self, context: Context) -> bool:
        """Whether it is trained, said with what it costs: by what an epoch of the run's last training took."""
        from secateur.terminal.progress import duration

        if context.epoch_seconds is None:
            if self.cheap:
                LOG.info("No control: nothing was trained that tells how long it would take; --control trains one.")
            return not self.cheap
        cost = self.train.epochs * context.epoch_seconds
        words = f"{duration(cost)} for {self.train.epochs} of {duration(context.epoch_seconds)}"
        if self.cheap and cost > max(CHEAP, CHEAP_SHARE * (context.spent + cost)):
            LOG.info("No control: it would take about %s; --control trains it.", words)
            return False
        LOG.info("The control takes about %s%s.", words, "; --no-control leaves it out" if self.cheap else "")
        return True

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """One row, to compare with those of the run's detector, which stays as it was; none where it is not cheap."""
        from secateur.checkpoints.training import train_checkpoint
        from secateur.families.family import family_of
        from secateur.families.loading import load_checkpoint

        if not self.worth_its_time(context):
            return Outcome()
        folder, dense = context.place(self.verb), context.dense or checkpoint
        family = family_of(dense)
        found = family.narrowing(dense, checkpoint, context.image_size)
        start = family.narrow(dense, context.start or dense, found, self.train.seed)
        result = train_checkpoint(start, context, self.settings(), folder, verb=self.verb)
        title = f"{context.title or self.title}{found.get('note', '')}"
        made = Made(load_checkpoint(result.best), "control", title, compared=True)
        return Outcome((made,), {"control": found})
