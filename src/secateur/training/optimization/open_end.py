"""A training whose end is decided on the way: it lasts while a held-out loss falls, and while minutes are left."""

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
"""Share of the whole training in which the learning rate falls."""
LEAST_FALL = 4
"""Epochs of the shortest fall that the loss, and not the clock, begins."""
WINDOW_SHARE, LEAST_WINDOW = 0.3, 6
"""The loss has flattened when it fell too little over this share of the epochs, and over so many at least."""
LEAST_GAIN = 0.03
"""What is too little, as a share of the loss."""
PACE = 5
"""Epochs whose seconds say how long the next ones take."""
FLATTENED, TIMED, COUNTED = "flattened", "minutes", "steps"


class OpenEnd(Hook):
    """Keeps the learning rate at its highest while the loss pays, lets it fall then, and ends the training with that.

    The rate begins to fall when the held-out loss has flattened, or when the minutes that are left just suffice for
    the fall. Where they run out before the end of the fall, it becomes steeper. The first process decides after each
    evaluation, all follow, and the decisions are part of the state: the rates are a function of the epoch and of them.
    So a resumed training takes the same steps; the minutes count those of its earlier parts, without what a kill lost.

    Args:
        minutes: at most, from `began` on; 0: no limit.
        most: epochs at most.
        began: when the minutes began, by `time.monotonic`.
    """

    def __init__(self, minutes: float, most: int, began: float) -> None:
        self.minutes, self.most, self.began = minutes, most, began
        self.before = 0.0  # seconds of earlier parts of a resumed training
        self.losses: list[float] = []
        self.marks: list[float] = []  # seconds at the end of every epoch
        self.falls: list[Fall] = []
        self.end = most
        self.reason = COUNTED
        self.run: TrainingRun | None = None

    @property
    def seconds(self) -> float:
        """Since the training began, over kills."""
        return self.before + time.monotonic() - self.began

    def start(self, run: TrainingRun) -> None:
        """Takes the schedule over."""
        self.run = run
        self._apply()

    def evaluated(self, run: TrainingRun, scores: Scores | None) -> None:
        """Decides whether the rate falls from here on, and when the training ends."""
        told = ""
        if run.is_main:
            assert scores is not None
            told = self.decide(run.epoch + 1, scores.value)
        self._take(of_first(self.state_dict()))
        self._apply()
        if told:
            run.log.message(told)

    def decide(self, done: int, loss: float) -> str:
        """Takes the loss after `done` epochs; a sentence where something was decided."""
        self.losses.append(loss)
        self.marks.append(self.seconds)
        left = self._left(done)
        if self.falls:
            if self.end - done <= left:
                return ""
            self._fall(done, left, TIMED)
            return f"The minutes run out: {_epochs(left)} left."
        self.end = done + left
        if left <= FALL_SHARE * self.end:
            self._fall(done, left, TIMED if self.minutes else COUNTED)
            return f"The time is nearly used: the learning rate falls now, {_epochs(left)} left."
        if flattened(self.losses):
            length = max(LEAST_FALL, round(done * FALL_SHARE / (1 - FALL_SHARE)))
            self._fall(done, min(length, left), FLATTENED)
            return f"The held-out loss has flattened: the learning rate falls now, {_epochs(self.end - done)} left."
        return ""

    def _fall(self, done: int, length: int, reason: str) -> None:
        self.end, self.reason = done + length, reason
        if length:
            self.falls.append(Fall(done, self.end))

    def _left(self, done: int) -> int:
        """Epochs that fit into what is left of the minutes."""
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
        """Goes on where the training was."""
        self.load(state)
        self._apply()

    def load(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave; the seconds since then do not count."""
        self._take(state)
        self.before += float(state["seconds"])

    def _take(self, state: dict[str, Any]) -> None:
        self.losses, self.marks = [*map(float, state["losses"])], [*map(float, state["marks"])]
        self.falls = [Fall(int(start), int(end)) for start, end in state["falls"]]
        self.end, self.reason = int(state["end"]), str(state["reason"])

    def ending(self) -> str:
        """Why it ended, to follow "because"."""
        if self.reason == TIMED:
            return f"its {duration(self.minutes * 60)} are used"
        return "the held-out loss no longer fell" if self.reason == FLATTENED else "all steps were taken"


def flattened(losses: Sequence[float]) -> bool:
    """Whether the lowest loss so far is hardly lower than it was a window ago.

    The window grows with the training: what took a third of it shall bring at least a few per cent.
    """
    window = max(LEAST_WINDOW, math.ceil(len(losses) * WINDOW_SHARE))
    if len(losses) <= window:
        return False
    return min(losses) > (1 - LEAST_GAIN) * min(losses[:-window])


def _epochs(count: int) -> str:
    return f"{count} {'epoch' if count == 1 else 'epochs'}"
