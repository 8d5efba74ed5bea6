"""Chance as a criterion: what every other one has to beat."""

from __future__ import annotations

import numpy as np

from secateur.pruning.graph import ChannelGraph, Floats
from secateur.pruning.importance import criterion
from secateur.pruning.statistics import Statistics


@criterion("random")
def random(graph: ChannelGraph, statistics: Statistics) -> Floats:
    """Uniform random scores from the seed of the statistics."""
    return np.random.default_rng(statistics.seed).random(graph.units)
