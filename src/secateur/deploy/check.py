"""The check of every exported file: the runtime's rows beside the detector's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.detector.architecture import DetectionNetwork
from secateur.errors import UserError
from secateur.evaluation.latency import random_images

TOLERANCE = 1e-3


def probes(batch: int, channels: int, size: tuple[int, int]) -> list[Tensor]:
    """Inputs [B, C, H, W] float32 in 0..1: one of noise and one of shapes and gradients."""
    height, width = size
    picture = torch.linspace(0, 1, width).expand(batch, channels, height, width).clone()
    picture[:, 0, height // 4 : height // 2, width // 4 : width // 2] = 1
    picture[:, -1, height // 2 :, width // 3 :] *= torch.linspace(1, 0, height - height // 2)[:, None]
    return [random_images(size, batch, channels), picture]


def output_error(
    network: DetectionNetwork, run: Callable[[NDArray[np.float32]], NDArray[Any]], images: Sequence[Tensor]
) -> float:
    """The largest difference of decoded rows: absolute for scores, relative to max(1 px, |value|) for boxes.

    Args:
        network: in evaluation mode, on CPU.
        run: the exported file: images [B, C, H, W] in 0..1 -> rows [B, N, 5 + nc].
        images: inputs to compare on.
    """
    worst = 0.0
    for batch in images:
        with torch.inference_mode():
            expected = network.predict(batch).double().numpy()
        found = run(batch.numpy()).astype(np.float64)
        if found.shape != expected.shape:
            return float("inf")
        scale = np.ones_like(expected)
        scale[..., :4] = np.maximum(1, np.abs(expected[..., :4]))
        difference = np.abs(found - expected) / scale
        # A NaN would hide from max().
        worst = max(worst, float(difference.max(initial=0)) if np.isfinite(difference).all() else float("inf"))
    return worst


def check_outputs(error: float, runtime: str, path: object, advice: str) -> None:
    """UserError when a file's outputs differ from the detector's by more than `TOLERANCE`."""
    if not error <= TOLERANCE:
        raise UserError(
            f"{runtime} differs from the detector by {error:.2g} (allowed: {TOLERANCE:g}), so {path} was not written; "
            f"{advice}."
        )
