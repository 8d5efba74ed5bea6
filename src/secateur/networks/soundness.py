"""Whether the numbers of a checkpoint are numbers: a NaN in one weight makes every output one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def flaw_of(tensors: Mapping[str, Tensor]) -> str:
    """What is wrong with the values of tensors, and in which: "NaN in model.3.conv.weight"; "" where nothing is.

    A sum reads each value once, in a third of the time of looking at all of them; it is finite where they are.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        narrow = tensor.dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
        values = tensor if narrow else tensor.float()
        if not math.isfinite(float(values.sum(dtype=torch.promote_types(values.dtype, torch.float32)))):
            if bool(values.isnan().any()):
                return f"NaN in {name}"
            if not bool(values.isfinite().all()):
                return f"infinite values in {name}"
        if name.endswith("running_var") and float(values.min()) < 0:
            return f"a negative variance in {name}"
    return ""
