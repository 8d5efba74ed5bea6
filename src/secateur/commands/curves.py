"""`secateur sweep` and `secateur pareto`: accuracy against the pruning ratio, and accuracy against milliseconds."""

from __future__ import annotations

from secateur.commands import Summary, command
from secateur.runs.pareto.options import ParetoOptions
from secateur.runs.sweep_options import SweepOptions


@command(
    "sweep",
    "tabulate accuracy, parameters and FLOPs against the pruning ratio",
    lambda: SweepOptions,
    order=70,
    continues=True,
)
def sweep(options: SweepOptions) -> Summary:
    """Evaluates the masked detector at every ratio."""
    from secateur.runs.sweep import sweep as measure_ratios

    return measure_ratios(options)


@command(
    "pareto",
    "plot accuracy against milliseconds for networks cut to several budgets",
    lambda: ParetoOptions,
    order=72,
    continues=True,
)
def pareto(options: ParetoOptions) -> Summary:
    """Cuts, heals and measures networks at every budget."""
    from secateur.runs.pareto.curve import pareto as draw_curve

    return draw_curve(options)
