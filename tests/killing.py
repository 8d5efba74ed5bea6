"""Stands for kill -9 in the middle of a training: nothing of ours catches it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from secateur.training.session import Session


class Killed(BaseException):
    """The end of a process."""


@contextmanager
def killed_after(steps: int) -> Iterator[None]:
    """Everything inside dies before optimizer step number `steps` + 1, counted over all its trainings."""
    original, taken = Session.step, []

    def step(self: Session) -> None:
        taken.append(1)
        if len(taken) > steps:
            raise Killed
        original(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Session, "step", step)
        yield
