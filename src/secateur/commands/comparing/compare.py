"""`secateur compare`: compares networks on the same images and tests their difference for significance."""

from __future__ import annotations

from secateur.commands import Summary, command
from secateur.runs.compare.options import CompareOptions


@command(
    "compare",
    "compare networks on the same images: significance of the difference, and images of disagreement",
    lambda: CompareOptions,
    order=115,
    continues=True,
)
def compare(options: CompareOptions) -> Summary:
    """Evaluates files without recorded detections, then compares; see `runs.compare.work`."""
    from secateur.runs.compare.work import compare_networks

    return compare_networks(options)
