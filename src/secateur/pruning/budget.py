"""Budgets: pairs of a cost and a target. This file does not import torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from secateur.errors import UserError
from secateur.pruning.costs import COSTS, CostKind
from secateur.ranges import shortened

MOST = 1e15
"""Upper limit of any amount. A larger number is a typing error: no network costs that much."""
_SUFFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


@dataclass(frozen=True)
class Budget:
    """Limit of one cost of the network.

    Attributes:
        cost: name of the cost, a key of `COSTS`.
        amount: a share in (0, 1), or a positive number in the unit of the cost.
        share: whether `amount` is a share of the cost of the dense network. When pruning in rounds, that is the network
            that the run started from. The share is the part to keep, or, for a cost that counts removals ("percent"),
            the part to remove.
        file: kind of file whose size is limited ("onnx-int8"); "" for the default kind and for costs other than file
            size.

    Raises:
        UserError: the amount is out of range.
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
        """Parses a share ("0.5", "50%", 0.5) or an amount ("2e6", "2M", "3.2 GFLOPs", 1768000, "2MB:onnx-int8").

        Raises:
            UserError: the cost is unknown, or the value is not such a number. The message shows the accepted forms.
        """
        kind = COSTS[cost]
        text, colon, file = str(value).strip().lower().partition(":") if kind.files else (str(value).lower(), "", "")
        if colon and not file.strip():
            raise UserError(f"--{cost} {shortened(value)} has no kind of file after the colon; write {_forms(kind)}.")
        amount, share = _amount(kind, text.strip(), value)
        if kind.means is not None:
            other, translated = kind.means
            return Budget(other, translated(amount), share=False)
        return Budget(cost, amount, share, file.strip())

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Budget:
        """Reads the output of `to_dict`, and of versions that did not mark shares."""
        amount = float(data["amount"])
        share = bool(data.get("share", amount < 1))
        return Budget(str(data["kind"]), amount, share, str(data.get("file", "")))

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        data: dict[str, Any] = {"kind": self.cost, "amount": self.amount, "share": self.share}
        return data | {"file": self.file} if self.file else data

    def __str__(self) -> str:
        number = f"{self.amount:,.0f}" if self.amount >= 1000 else f"{self.amount:g}"
        unit = "" if self.share or not COSTS[self.cost].factors else f" {COSTS[self.cost].unit}"
        return f"{self.cost} {number}{unit}{f' ({self.file})' if self.file else ''}"

    def at_round(self, number: int, rounds: int, reference: Mapping[str, float]) -> Budget:
        """The budget of one round. The cost falls by the same factor in every round, and the last round meets the
        target.

        Args:
            number: number of the round, from 1.
            rounds: number of rounds.
            reference: cost of the dense network by name; only read if the budget is an amount. Shares of the returned
                budget refer to the same network.
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
    """Parses budgets given by cost name; None and empty texts are skipped.

    Raises:
        UserError: see `Budget.parse`.
    """
    return [Budget.parse(cost, text) for cost, text in texts.items() if text not in (None, "") and text is not None]


def _amount(kind: CostKind, text: str, value: str | float) -> tuple[float, bool]:
    """The number in a text, and whether it is a share of the dense network.

    Args:
        value: the original input, for the error message.

    Raises:
        UserError: the text is not such a number.
    """
    given = f"--{kind.name} {shortened(value)}"
    named = text.endswith(kind.unit.lower())  # "0.8 ms" is not a share
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
        raise UserError(f"{given} is ambiguous: without a unit it may be an amount or a share. Write {_forms(kind)}.")
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
    """The accepted forms: "a share of the dense network such as 0.5 or 50%, or a number such as 2M"."""
    what = f"the share of {kind.unit} to remove" if kind.removes else "a share of the dense network"
    if kind.means is not None:
        return f"a number of {kind.unit} such as {kind.absolute}"
    share = f"{what} such as {kind.example} or {float(kind.example):.0%}"
    return f"{share}, or a number of {kind.unit} such as {kind.absolute}" if kind.absolute else share
