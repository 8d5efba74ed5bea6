"""Options of channel pruning, combined from those of its parts. This file does not import torch, so that help is
fast."""

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
    """A frozen dataclass with one text option for every registered cost, so that a new cost becomes an option
    automatically.

    The class is created on first use, because a file of the user may import this module while costs are being loaded.
    """
    fields = [(kind.name, Annotated[str, arg(help=kind.help)], field(default="")) for kind in COSTS.values()]
    options = dataclasses.make_dataclass("BudgetOptions", fields, frozen=True)
    options.__doc__ = "Target size or speed of the pruned network. All given budgets are met."
    return options


def no_budgets() -> Any:
    """Budget options, none of them set."""
    return budget_options()()


@dataclass(frozen=True)
class LatencySettings:
    """Source of the milliseconds for --ms: a table measured on this machine, or a file from another machine."""

    latency_table: str = ""
    """File written by `secateur latency` on this machine or on the target machine."""
    runtime: Advanced[str] = ""
    """Runtime to measure if no table is given: {secateur.deploy.timing} (default: onnx if it is installed)."""
    threads: Advanced[Annotated[int, THREADS]] = 0
    """CPU threads during the measurement (0: all that this process may use)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class GuardSettings:
    """Limits for every budget. They apply to each of several tied layers."""

    min_share: Advanced[Annotated[float, SHARE]] = Guards.min_share
    """Minimum share of the channels that every group of tied channels keeps."""
    min_count: Advanced[Annotated[int, POSITIVE]] = Guards.min_count
    """Minimum number of channels that every layer keeps."""
    round_to: RoundTo = Guards.round_to
    """Round kept widths to multiples of this number: 8 or 16 for fast CPUs and GPUs; auto: benchmark this machine
    once and use the fastest; 0: 8, or the block of the latency table with --ms. Layers that keep all channels are
    not rounded."""
    exclude: tuple[str, ...] = Guards.exclude
    """Patterns of layers that keep all channels, such as model.0.*."""

    def __post_init__(self) -> None:
        if isinstance(self.round_to, str) and self.round_to != AUTO:
            raise UserError(f"--round-to {self.round_to} is invalid. Set a number or {AUTO}.")
        check_ranges(self)


@dataclass(frozen=True)
class ChannelSettings:
    """Options of channel pruning: budgets, scores, guards and repair."""

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
            UserError: a budget is out of range.
        """
        return budgets_from(dataclasses.asdict(self.budget))

    def check(self) -> None:
        """Validates the options.

        Raises:
            UserError: no budget is set, or one is out of range.
        """
        if not self.budgets:
            options = ", ".join(f"--{kind.name} {kind.example}" for kind in COSTS.values())
            raise UserError(f"No budget is set. Set at least one of: {options}. If several are set, all are met.")
