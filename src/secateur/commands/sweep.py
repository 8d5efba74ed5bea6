"""`secateur sweep`."""

from __future__ import annotations

from secateur.commands import Summary, command
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
