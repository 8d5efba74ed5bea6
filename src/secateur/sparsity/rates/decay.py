"""Schedules that treat all channels alike: constant, linear, cosine, step."""

from __future__ import annotations

import math

from secateur.sparsity.rates import RATES, Sizes


@RATES.register("constant")
def constant(progress: float, sizes: Sizes) -> float:
    """s throughout (Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017)."""
    return 1.0


@RATES.register("linear")
def linear(progress: float, sizes: Sizes) -> float:
    """A line from s to 0.1 s: strong while the network can still rearrange itself (the YOLOv5 slimming scripts)."""
    return 1 - 0.9 * progress


@RATES.register("cosine")
def cosine(progress: float, sizes: Sizes) -> float:
    """Half a cosine from s to 0.2 s (Zhang et al., "Pruned-YOLO", ICANN 2021)."""
    return 0.8 * (1 + math.cos(math.pi * progress)) / 2 + 0.2


@RATES.register("step")
def step(progress: float, sizes: Sizes) -> float:
    """s for the first half of the epochs, 0.01 s for the second (YOLOv3 channel pruning's global decay)."""
    return 1.0 if progress < 0.5 else 0.01
