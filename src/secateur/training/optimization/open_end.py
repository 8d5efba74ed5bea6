"""A training without a fixed number of epochs: it continues while a held-out loss falls and time is left."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

from secateur.scores import Scores
from secateur.terminal.progress import duration
from secateur.training.distributed import of_first
from secateur.training.hooks import Hook
from secateur.training.optimization.schedules import Fall
from secateur.training.run import TrainingRun

FALL_SHARE = 0.4
"""Share of the whole training in which the learning rate is lowered."""
LEAST_FALL = 4
"""Minimum number of epochs for lowering the learning rate, if the loss triggers it instead of the time limit."""
WINDOW_SHARE, LEAST_WINDOW = 0.3, 6
"""The loss counts as flat if it fell too little over this share of the epochs, and over at least this number of
epochs."""
LEAST_GAIN = 0.03
"""Minimum fall over the window, as a share of the loss."""
PACE = 5
"""Number of epochs used to estimate the duration of the next ones."""
FLATTENED, TIMED, COUNTED = "flattened", "minutes", "steps"


class OpenEnd(Hook):
    """Keeps the learning rate at its maximum while the loss improves, then lowers it, and ends the training.

    Lowering starts when the held-out loss is flat, or when the remaining minutes are just sufficient for it. If the
    time runs out earlier than expected, the rate is lowered faster. The first process decides after each evaluation,
    and all others follow. The decisions are part of the state, and rates depend only on the epoch and the decisions, so
    a resumed training takes the same steps. The time includes earlier parts of a resumed training, but not what was
    lost by a kill.

    Args:
        minutes: time limit, counted from `began`; 0: no limit.
        most: maximum number of epochs.
        began: start of the time limit, by `time.monotonic`.
        stretch: factor of the minimum numbers of epochs, for epochs with so few steps that losses say little.
    """

    def __init__(self, minutes: float, most: int, began: float, stretch: int = 1) -> None:
        self.minutes, self.most, self.began, self.stretch = minutes, most, began, stretch
        self.before = 0.0  # seconds of earlier parts of a resumed training
        self.losses: list[float] = []
        self.marks: list[float] = []  # seconds at the end of every epoch
        self.falls: list[Fall] = []
        self.end = most
        self.reason = COUNTED
        self.run: TrainingRun | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the training began, including earlier parts of a resumed training."""
        return self.before + time.monotonic() - self.began

    def start(self, run: TrainingRun) -> None:
        """Takes control of the schedule."""
        self.run = run
        self._apply()

    def evaluated(self, run: TrainingRun, scores: Scores | None) -> None:
        """Decides whether to lower the learning rate from now on, and when to end the training."""
        told = ""
        if run.is_main:
            assert scores is not None
            told = self.decide(run.epoch + 1, scores.value)
        self._take(of_first(self.state_dict()))
        self._apply()
        if told:
            run.log.message(told)

    def decide(self, done: int, loss: float) -> str:
        """Processes the loss after `done` epochs. Returns a message if something was decided."""
        self.losses.append(loss)
        self.marks.append(self.seconds)
        left = self._left(done)
        if self.falls:
            if self.end - done <= left:
                return ""
            self._fall(done, left, TIMED)
            return f"The time limit is near: {_epochs(left)} left."
        self.end = done + left
        if left <= FALL_SHARE * self.end:
            self._fall(done, left, TIMED if self.minutes else COUNTED)
            return f"The time limit is near: the learning rate is lowered from now on, {_epochs(left)} left."
        if flattened(self.losses, LEAST_WINDOW * self.stretch):
            length = max(LEAST_FALL * self.stretch, round(done * FALL_SHARE / (1 - FALL_SHARE)))
            self._fall(done, min(length, left), FLATTENED)
            return (
                f"The held-out loss is flat: the learning rate is lowered from now on, {_epochs(self.end - done)} left."
            )
        return ""

    def _fall(self, done: int, length: int, reason: str) -> None:
        self.end, self.reason = done + length, reason
        if length:
            self.falls.append(Fall(done, self.end))

    def _left(self, done: int) -> int:
        """Number of epochs that fit into the remaining minutes."""
        if not self.minutes:
            return self.most - done
        before = max(done - PACE, 0)
        pace = (self.marks[-1] - (self.marks[before - 1] if before else 0.0)) / (done - before)
        rest = self.minutes * 60 - self.marks[-1]
        return min(max(math.floor(rest / max(pace, 1e-9)), 0), self.most - done)

    def _apply(self) -> None:
        assert self.run is not None
        self.run.schedule = dataclasses.replace(self.run.schedule, falls=tuple(self.falls), epochs=self.end)

    def state_dict(self) -> dict[str, Any]:
        """The losses, the seconds and all decisions."""
        return {
            "losses": list(self.losses),
            "marks": list(self.marks),
            "falls": [[fall.start, fall.end] for fall in self.falls],
            "end": self.end,
            "reason": self.reason,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state."""
        self.load(state)
        self._apply()

    def load(self, state: dict[str, Any]) -> None:
        """Restores the output of `state_dict`; the time since then does not count."""
        self._take(state)
        self.before += float(state["seconds"])

    def _take(self, state: dict[str, Any]) -> None:
        self.losses, self.marks = [*map(float, state["losses"])], [*map(float, state["marks"])]
        self.falls = [Fall(int(start), int(end)) for start, end in state["falls"]]
        self.end, self.reason = int(state["end"]), str(state["reason"])

    def ending(self) -> str:
        """Reason for the end, to follow "because"."""
        if self.reason == TIMED:
            return f"the time limit of {duration(self.minutes * 60)} was reached"
        return "the held-out loss stopped falling" if self.reason == FLATTENED else "all steps were taken"


def flattened(losses: Sequence[float], least: int = LEAST_WINDOW) -> bool:
    """Whether the lowest loss so far is hardly lower than one window ago.

    The window grows with the training: a third of it must reduce the loss by at least a few per cent.

    Args:
        least: minimum number of epochs of the window.
    """
    window = max(least, math.ceil(len(losses) * WINDOW_SHARE))
    if len(losses) <= window:
        return False
    return min(losses) > (1 - LEAST_GAIN) * min(losses[:-window])


def _epochs(count: int) -> str:
    return f"{count} {'epoch' if count == 1 else 'epochs'}"
