"""The options of a channel cut, put together from those of its parts; imports no torch, so help stays fast."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

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
from secateur.ranges import POSITIVE, SHARE, THREADS, Advanced, Between, check_ranges

AUTO = "auto"
RoundTo = Annotated[int | Literal["auto"], arg(metavar="INT/auto"), Between(0, 4096)]


@functools.cache
def budget_options() -> type[Any]:
    """A frozen dataclass with one text option a registered cost: a new cost is a new option without a change here.

    It is made when it is first asked for: a file of the user's may import this one while costs are being looked for.
    """
    fields = [(kind.name, Annotated[str, arg(help=kind.help)], field(default="")) for kind in COSTS.values()]
    options = dataclasses.make_dataclass("BudgetOptions", fields, frozen=True)
    options.__doc__ = "How small the detector becomes; of several budgets all are met."
    return options


def no_budgets() -> Any:
    """The options of the budgets, none of them set."""
    return budget_options()()


@dataclass(frozen=True)
class LatencySettings:
    """Where --ms takes milliseconds from: a table measured once on this machine, or a file from another machine."""

    latency_table: str = ""
    """Latency table: a file that `secateur latency` wrote, on this machine or on the one that will run the detector."""
    runtime: Advanced[str] = ""
    """What to time where no table is given: {secateur.deploy.timing} (default: onnx where it is
    installed)."""
    threads: Advanced[Annotated[int, THREADS]] = 0
    """CPU threads while timing (0: those that this process was granted)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class GuardSettings:
    """Limits that every budget respects, in each of several tied layers."""

    min_share: Advanced[Annotated[float, SHARE]] = Guards.min_share
    """No group of tied channels keeps less than this share of its width."""
    min_count: Advanced[Annotated[int, POSITIVE]] = Guards.min_count
    """No layer keeps fewer channels than this."""
    round_to: RoundTo = Guards.round_to
    """Kept widths are multiples of this number (8 or 16 make CPUs and GPUs faster; auto: benchmark this machine once
    and take the fastest; 0: 8, or with --ms the latency table's block); a layer that keeps all its channels keeps
    their number."""
    exclude: tuple[str, ...] = Guards.exclude
    """Layers that keep all channels: patterns such as model.0.*."""

    def __post_init__(self) -> None:
        if isinstance(self.round_to, str) and self.round_to != AUTO:
            raise UserError(f"--round-to {self.round_to} is neither a number nor {AUTO}.")
        check_ranges(self)


@dataclass(frozen=True)
class ChannelSettings:
    """Channels to cut: the budget, the score that ranks them, limits that every budget respects, and the repair."""

    budget: Any = field(default_factory=no_budgets)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    rounds: RoundSettings = field(default_factory=RoundSettings)
    guards: Guards = field(default_factory=Guards)
    repair: RepairSettings = field(default_factory=RepairSettings)
    cliff: CliffSettings = field(default_factory=CliffSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)

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
