"""The pruning window: the optimizer steps of a training at which masks change, known in advance."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.errors import UserError
from secateur.sparsity.settings import WeightSettings
from secateur.training.optimization.schedules import Schedule

PRUNINGS = 40  # approximate number of prunings, if no frequency is set


@dataclass(frozen=True)
class Window:
    """The pruning window in optimizer steps, counted as `TrainingRun.step`: n is the point after the n-th step.

    Attributes:
        start: point of progress 0.
        end: point of progress 1, where the target is reached; masks do not change after it.
        frequency: steps between two prunings; the last gap may be longer.
        last_epoch: the epoch (from 0) at whose end the target must be reached.
    """

    start: int
    end: int
    frequency: int
    last_epoch: int

    @property
    def prunings(self) -> int:
        """Number of prunings after the one at `start`, which zeroes nothing unless the schedule is oneshot."""
        return max((self.end - self.start) // self.frequency, 1) if self.end > self.start else 0

    @property
    def moments(self) -> dict[int, float]:
        """Step -> progress of every pruning. If the frequency does not divide the window, the last gap is longer."""
        regular = {self.start + number * self.frequency: number / self.prunings for number in range(self.prunings)}
        return regular | {self.end: 1.0}


def pruning_window(schedule: Schedule, settings: WeightSettings) -> Window:
    """The window of a training; it depends only on the arguments, so there is no state to save.

    Raises:
        UserError: the cool-down or the start leaves no step for pruning.
    """
    first = schedule.warmup if settings.pruning_start < 0 else round(settings.pruning_start * schedule.batches)
    cooldown = cooldown_of(settings, schedule.epochs, first / schedule.batches)
    start = max(steps_in_batches(schedule, first), 1)  # scores exist only after the first step
    end = schedule.steps_until(schedule.epochs - cooldown)
    if start > end:
        origin = "warm-up" if settings.pruning_start < 0 else f"pruning_start of {settings.pruning_start:g} epochs"
        raise UserError(
            f"There is no step for pruning: the {origin} ends at optimizer step {start} and the cooldown_epochs "
            f"({cooldown} of {schedule.epochs} epochs) begin at step {end}. Shorten one of them, or train longer."
        )
    wanted = settings.pruning_frequency if settings.pruning_frequency > 0 else (end - start + 1) // PRUNINGS
    return Window(start, end, max(min(wanted, end - start), 1), schedule.epochs - cooldown - 1)


def cooldown_of(settings: WeightSettings, epochs: int, begin: float = 0.0) -> int:
    """Number of cool-down epochs of a training whose pruning begins after `begin` epochs.

    The default is half of the epochs after the beginning: half of a whole short training would leave no time for
    pruning.

    Raises:
        UserError: the cool-down is not shorter than the training.
    """
    cooldown = int(max(epochs - begin, 0) / 2) if settings.cooldown_epochs < 0 else settings.cooldown_epochs
    if cooldown >= epochs:
        raise UserError(
            f"--cooldown-epochs is {cooldown}, but the training has {epochs} epochs. The cool-down must be shorter, "
            "because weights are pruned before it."
        )
    return cooldown


def steps_in_batches(schedule: Schedule, batches: int) -> int:
    """Optimizer steps in the first `batches` batches of the training (without steps skipped by an fp16 scaler)."""
    epoch, rest = divmod(batches, schedule.batches)
    steps, pending = schedule.steps_until(epoch), 0
    for batch in range(rest):
        pending += 1
        if pending >= schedule.accumulate(epoch * schedule.batches + batch):
            steps, pending = steps + 1, 0
    return steps
