"""The step that trains a control: a dense detector of the same FLOPs, trained for as many epochs, for comparison."""

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
"""A control that was not requested is trained only up to this number of seconds, or this share of the run's time."""


@step("control", purpose="trains a control")
@dataclass(frozen=True)
class Control(Step):
    """Narrow the dense detector to the FLOPs of the current one and train it, as a row for comparison."""

    hyp: str = "scratch-low"
    """Hyper-parameters: scratch-low, scratch-med, scratch-high, finetune, or a YAML file."""
    train: TrainSettings = field(default_factory=TrainSettings)
    cheap: bool = False
    """Train it only if that takes at most 2 minutes or 15 % of the run's time."""

    @property
    def title(self) -> str:
        """Title of its table row."""
        return "narrow dense (control)"

    def describe(self) -> str:
        """The verb and the epochs."""
        epochs = f"{self.train.epochs} {'epoch' if self.train.epochs == 1 else 'epochs'}"
        return f"control ({epochs}{', if it is cheap' if self.cheap else ''})"

    def files(self) -> tuple[str, ...]:
        """The user's hyper-parameter file, if any."""
        return (self.hyp,)

    def settings(self) -> TrainSettings:
        """Training settings with the hyper-parameters loaded."""
        from secateur.families.hyp import load_hyp

        return dataclasses.replace(self.train, hyp=load_hyp(self.hyp))

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Checks the data, the hyper-parameters, and that the network's widths can be scaled."""
        from secateur.families.family import family_of

        family = family_of(checkpoint)
        family.require("narrow", "narrowed to a control")
        family.check_narrow(checkpoint)
        context.require_data("A control")
        self.settings()

    def worth_its_time(self, context: Context) -> bool:
        """Whether the control is trained. Logs its estimated time, from the epoch time of the run's last training."""
        from secateur.terminal.progress import duration

        if context.epoch_seconds is None:
            if self.cheap:
                LOG.info(
                    "No control: its training time cannot be estimated without an earlier training in this run. "
                    "Use --control to train one."
                )
            return not self.cheap
        cost = self.train.epochs * context.epoch_seconds
        words = f"{duration(cost)} for {self.train.epochs} of {duration(context.epoch_seconds)}"
        if self.cheap and cost > max(CHEAP, CHEAP_SHARE * (context.spent + cost)):
            LOG.info("No control: it would take about %s. Use --control to train one.", words)
            return False
        LOG.info("The control takes about %s%s.", words, ". Use --no-control to skip it" if self.cheap else "")
        return True

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """Returns one row for comparison, or none if the control is too expensive. The run's detector is unchanged."""
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
