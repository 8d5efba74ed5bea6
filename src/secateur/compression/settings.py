"""The options of a channel cut, put together from those of its parts; imports no torch, so help stays fast."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Annotated, Any

from tyro.conf import arg

from secateur.errors import UserError
from secateur.pruning.budget import Budget, budgets_from
from secateur.pruning.costs import COSTS
from secateur.pruning.settings import (
    CliffSettings,
    Guards,
    RepairSettings,
    RoundSettings,
    ScoreSettings,
    SearchSettings,
)


@functools.cache
def budget_options() -> type[Any]:
    """A frozen dataclass with one text option a registered cost: a new cost is a new option without a change here.

    It is made when it is first asked for: a file of the user's may import this one while costs are being looked for.
    """
    fields = [(kind.name, Annotated[str, arg(help=kind.help)], field(default="")) for kind in COSTS.values()]
    options = dataclasses.make_dataclass("BudgetOptions", fields, frozen=True)
    options.__doc__ = "How small the detector is to become; with several budgets all are met."
    return options


def no_budgets() -> Any:
    """The options of the budgets, none of them set."""
    return budget_options()()


@dataclass(frozen=True)
class ChannelSettings:
    """Channels to cut: the budget, the score that ranks them, what no budget may break, and the repair."""

    budget: Any = field(default_factory=no_budgets)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    rounds: RoundSettings = field(default_factory=RoundSettings)
    guards: Guards = field(default_factory=Guards)
    repair: RepairSettings = field(default_factory=RepairSettings)
    cliff: CliffSettings = field(default_factory=CliffSettings)
    search: SearchSettings = field(default_factory=SearchSettings)

    @property
    def budgets(self) -> list[Budget]:
        """The budgets that are set.

        Raises:
            UserError: one is out of its range.
        """
        return budgets_from(dataclasses.asdict(self.budget))

    def check(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            UserError: no budget, or one out of its range.
        """
        if not self.budgets:
            options = ", ".join(f"--{kind.name} {kind.example}" for kind in COSTS.values())
            raise UserError(f"No budget is given: say one of {options} (several: all are met).")
