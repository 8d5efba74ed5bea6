"""`secateur compare`: networks on the same images, and whether their difference is more than noise."""

from __future__ import annotations

from secateur.commands import Summary, command
from secateur.runs.compare.options import CompareOptions


@command(
    "compare",
    "compare networks on the same images: is a difference more than noise, and where do they disagree",
    lambda: CompareOptions,
    order=115,
    continues=True,
)
def compare(options: CompareOptions) -> Summary:
    """Evaluates what was not evaluated yet, then compares; see `runs.compare.work`."""
    from secateur.runs.compare.work import compare_networks

    return compare_networks(options)
