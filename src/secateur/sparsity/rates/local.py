"""The local schedule: after half of the epochs the channels that proved important are nearly left alone."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.sparsity.rates import RATES, Sizes

RELAXED = 0.15  # share of the channels
FACTOR = 0.01


@RATES.register("local")
def local(progress: float, sizes: Sizes) -> float | Tensor:
    """s for all channels at first; from half of the epochs the 15 % with the largest |scale| get 0.01 s.

    The set is drawn anew at each step, so a channel that grows joins it (YOLOv3 channel pruning's local decay). Of
    equal channels the first ones are taken, hence the same ones in every process.
    """
    if progress < 0.5:
        return 1.0
    values = sizes()
    largest = values.argsort(descending=True, stable=True)[: round(RELAXED * len(values))]
    return torch.ones_like(values).index_fill_(0, largest, FACTOR)
