"""What is done of a long piece of work, what is left of it, and how long that will take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.terminal.progress import duration

SECONDS = "seconds"
"""Name under which a part notes how long it took; None where an earlier process has done some of it."""


@dataclass(frozen=True)
class Part:
    """One part of the work.

    Attributes:
        name: under which a run remembers it.
        kind: parts of one kind take as long as their amounts say.
        amount: of work, in any unit.
        title: what is done, in a few words.
    """

    name: str
    kind: str
    amount: float
    title: str


@dataclass(frozen=True)
class Pace:
    """All parts of a run, in order; the time left follows from the seconds that completed ones of each kind took."""

    parts: Sequence[Part]

    def line(self, name: str, done: Mapping[str, Any]) -> str:
        """The line before a part: "[3/12] cut yolov5s to flops 0.5 (about 6 min left)".

        Args:
            done: results of completed parts by name, see `Progress.parts`.
        """
        number = next(number for number, part in enumerate(self.parts) if part.name == name)
        left = self.left(done)
        return f"[{number + 1}/{len(self.parts)}] {self.parts[number].title}{f' ({left})' if left else ''}"

    def left(self, done: Mapping[str, Any]) -> str:
        """The time left in words; "over" where a kind of work that is left has not been done yet, "" if none has."""
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
