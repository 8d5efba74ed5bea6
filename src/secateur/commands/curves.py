"""`secateur sweep` and `secateur pareto`: accuracy at several ratios, and against milliseconds at several budgets."""

from __future__ import annotations

from secateur.commands import Summary, command
from secateur.runs.pareto.options import ParetoOptions
from secateur.runs.sweep_options import SweepOptions


@command(
    "sweep",
    "the table of pruning ratio against accuracy, parameters and FLOPs",
    lambda: SweepOptions,
    order=70,
    continues=True,
)
def sweep(options: SweepOptions) -> Summary:
    """Measures the masked detector at every ratio."""
    from secateur.runs.sweep import sweep as measure_ratios

    return measure_ratios(options)


@command(
    "pareto",
    "the curve of accuracy against milliseconds of networks cut to several budgets",
    lambda: ParetoOptions,
    order=72,
    continues=True,
)
def pareto(options: ParetoOptions) -> Summary:
    """Cuts, heals and measures at every budget."""
    from secateur.runs.pareto.curve import pareto as draw_curve

    return draw_curve(options)
