"""Pictures to calibrate on: few, and of every class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from secateur.data.dataset import DetectionDataset
from secateur.data.index import Index
from secateur.errors import UserError

CALIBRATION = 128
"""Pictures that ranges of activations are taken from."""


def calibration_pictures(
    index: Index, size: tuple[int, int], count: int = CALIBRATION, *, channels: int = 3
) -> list[Tensor]:
    """Pictures of an index as a validation shows them: uint8 [C, H, W], letterboxed to height and width.

    Raises:
        UserError: there is none.
    """
    if not len(index):
        raise UserError("int8 is calibrated on pictures, and there is none; give others with --data or --images.")
    side = size[0] if size[0] == size[1] else size
    dataset = DetectionDataset(index.select(covering(index, count)), side, batch_size=1, channels=channels)
    return [torch.from_numpy(dataset[number].image).permute(2, 0, 1).contiguous() for number in range(len(dataset))]


def covering(index: Index, count: int) -> list[int]:
    """Numbers of `count` pictures in which rare classes are as well seen as can be, in ascending order.

    One after the other that picture is taken whose classes were seen least so far. Pictures without labels are taken
    evenly over the whole index.
    """
    total = len(index)
    if total <= count:
        return list(range(total))
    if not len(index.labels):
        return np.unique(np.linspace(0, total - 1, count).round().astype(int)).tolist()
    classes = int(index.labels[:, 0].max()) + 1
    present = np.zeros((total, classes), bool)
    rows = np.repeat(np.arange(total), np.diff(index.offsets))
    present[rows, index.labels[:, 0].astype(int)] = True
    seen, free, chosen = np.zeros(classes), np.ones(total, bool), []
    for _ in range(count):
        gain = (present / (1 + seen) ** 2).sum(axis=1)
        best = int(np.where(free, gain, -1).argmax())
        chosen.append(best)
        free[best] = False
        seen += present[best]
    return sorted(chosen)
