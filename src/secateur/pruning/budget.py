"""Budgets: how small a network is to become, as pairs of a cost and a target; imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from secateur.errors import UserError
from secateur.pruning.costs import COSTS, CostKind
from secateur.ranges import shortened

MOST = 1e15
"""Of any unit; a larger number is a slip, for no network costs as much."""
_SUFFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


@dataclass(frozen=True)
class Budget:
    """How much of one cost the network may have.

    Attributes:
        cost: name of the cost, one of `COSTS`.
        amount: a share in (0, 1), or a number over 0 in the unit of the cost.
        share: whether it is a share. It speaks of the dense network: of a run that prunes in rounds, the one that the
            run began with. It says what stays, or for a cost that counts removals ("percent") what goes.
        file: kind of file whose size is meant ("onnx-int8"); "" where the cost is not that of a file, or for the usual
            kind.

    Raises:
        UserError: the amount is outside these ranges.
    """

    cost: str
    amount: float
    share: bool = True
    file: str = ""

    def __post_init__(self) -> None:
        if self.share and not 0 < self.amount < 1:
            raise UserError(f"The share {self.amount:g} of the budget {self.cost} is not between 0 and 1.")
        if not 0 < self.amount < math.inf:
            raise UserError(f"The amount {self.amount:g} of the budget {self.cost} is not positive.")

    @staticmethod
    def parse(cost: str, value: str | float) -> Budget:
        """Reads a share ("0.5", "50%", 0.5) or an amount ("2e6", "2M", "3.2 GFLOPs", 1768000, "2MB:onnx-int8").

        Raises:
            UserError: unknown cost, or a text that is no such number; it says what to write.
        """
        kind = COSTS[cost]
        text, colon, file = str(value).strip().lower().partition(":") if kind.files else (str(value).lower(), "", "")
        if colon and not file.strip():
            raise UserError(f"--{cost} {shortened(value)} names no kind of file after the colon; write {_forms(kind)}.")
        amount, share = _amount(kind, text.strip(), value)
        if kind.means is not None:
            other, translated = kind.means
            return Budget(other, translated(amount), share=False)
        return Budget(cost, amount, share, file.strip())

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Budget:
        """Reads what `to_dict` gave, also in files of before shares were marked."""
        amount = float(data["amount"])
        share = bool(data.get("share", amount < 1))
        return Budget(str(data["kind"]), amount, share, str(data.get("file", "")))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        data: dict[str, Any] = {"kind": self.cost, "amount": self.amount, "share": self.share}
        return data | {"file": self.file} if self.file else data

    def __str__(self) -> str:
        number = f"{self.amount:,.0f}" if self.amount >= 1000 else f"{self.amount:g}"
        unit = "" if self.share or not COSTS[self.cost].factors else f" {COSTS[self.cost].unit}"
        return f"{self.cost} {number}{unit}{f' ({self.file})' if self.file else ''}"

    def at_round(self, number: int, rounds: int, reference: Mapping[str, float]) -> Budget:
        """The budget of round `number` of `rounds` (from 1): every round has the same factor, the last one the target.

        Args:
            number: of the round, from 1.
            rounds: how many there are.
            reference: what the dense network of the run costs, by the name of the cost; read for amounts. The shares of
                the budgets that come out speak of that network too.
        """
        if number >= rounds:
            return self
        part = number / rounds
        if not self.share:
            dense = reference[self.cost]
            return replace(self, amount=dense * (self.amount / dense) ** part) if self.amount < dense else self
        if COSTS[self.cost].removes:
            return replace(self, amount=1 - (1 - self.amount) ** part)
        return replace(self, amount=self.amount**part)


def budgets_from(texts: Mapping[str, str | float | None]) -> list[Budget]:
    """The budgets that are given, by the names of their costs; None and empty texts are left out.

    Raises:
        UserError: as `Budget.parse`.
    """
    return [Budget.parse(cost, text) for cost, text in texts.items() if text not in (None, "") and text is not None]


def _amount(kind: CostKind, text: str, value: str | float) -> tuple[float, bool]:
    """The number in a text, and whether it is a share of the dense network.

    Args:
        value: what was given, for the error.

    Raises:
        UserError: it is no such number.
    """
    given = f"--{kind.name} {shortened(value)}"
    named = text.endswith(kind.unit.lower())  # "0.8 ms" is no share
    if kind.factors:
        ending = next((name for name in sorted(kind.factors, key=len, reverse=True) if text.endswith(name)), "")
        number, factor = text.removesuffix(ending), kind.factors.get(ending)
    else:
        text = text.removesuffix(kind.unit.lower()).strip()
        factor = _SUFFIXES.get(text[-1:])
        number = text[:-1] if factor else text
    shares = kind.means is None
    amount = _number(number.removesuffix("%") if shares else number)
    if amount is None:
        raise UserError(f"{given} is not a number; write {_forms(kind)}.")
    if shares and (text.endswith("%") or (factor is None and amount < 1 and not named)):
        share = amount / 100 if text.endswith("%") else amount
        if not 0 < share < 1:
            raise UserError(f"{given} is not between 0 and 1; write {_forms(kind)}.")
        return share, True
    if kind.factors and factor is None:
        raise UserError(f"{given} has no unit, so it may be an amount or a share: write {_forms(kind)}.")
    amount *= factor or 1.0
    if not kind.absolute:
        raise UserError(f"{given} is not between 0 and 1; write {_forms(kind)}.")
    if not kind.least <= amount <= MOST or not amount:
        either = "neither a share nor" if shares else "not"
        raise UserError(f"{given} is {either} a number of {kind.unit}; write {_forms(kind)}.")
    return amount, False


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _forms(kind: CostKind) -> str:
    """What may be written: "a share of the dense network such as 0.5 or 50%, or a number such as 2M"."""
    what = f"the share of {kind.unit} to remove" if kind.removes else "a share of the dense network"
    if kind.means is not None:
        return f"a number of {kind.unit} such as {kind.absolute}"
    share = f"{what} such as {kind.example} or {float(kind.example):.0%}"
    return f"{share}, or a number of {kind.unit} such as {kind.absolute}" if kind.absolute else share
