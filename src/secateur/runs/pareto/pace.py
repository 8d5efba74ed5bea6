"""Progress of a long sequence of parts, and an estimate of the remaining time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.terminal.progress import duration

SECONDS = "seconds"
"""Entry of a part's result for its duration in seconds; None if an earlier process did part of the work."""


@dataclass(frozen=True)
class Part:
    """One part of the work.

    Attributes:
        name: name under which a run records it.
        kind: parts of one kind take time in proportion to their amounts.
        amount: amount of work, in any unit.
        title: short description.
    """

    name: str
    kind: str
    amount: float
    title: str


@dataclass(frozen=True)
class Pace:
    """All parts of a run in order. The remaining time is estimated from completed parts of each kind."""

    parts: Sequence[Part]

    def line(self, name: str, done: Mapping[str, Any]) -> str:
        """The line before a part: `[3/12] cut yolov5s to flops 0.5 (about 6 min left)`.

        Args:
            name: name of the part.
            done: results of completed parts by name, see `Progress.parts`.
        """
        number = next(number for number, part in enumerate(self.parts) if part.name == name)
        left = self.left(done)
        return f"[{number + 1}/{len(self.parts)}] {self.parts[number].title}{f' ({left})' if left else ''}"

    def left(self, done: Mapping[str, Any]) -> str:
        """The remaining time as text; a lower bound with "over" if no part of a remaining kind is complete yet; "" if
        no part is complete.
        """
        spent: dict[str, float] = defaultdict(float)
        amounts: dict[str, float] = defaultdict(float)
        for part in self.parts:
            if part.name in done and done[part.name][SECONDS] is not None:
                spent[part.kind] += done[part.name][SECONDS]
                amounts[part.kind] += part.amount
        rest = [part for part in self.parts if part.name not in done]
        known = [part.amount * spent[part.kind] / amounts[part.kind] for part in rest if amounts[part.kind]]
        if not known:
            return ""
        return f"{'about' if len(known) == len(rest) else 'over'} {duration(sum(known))} left"
