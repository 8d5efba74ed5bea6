"""Images to calibrate on: few, and of every class where they have boxes."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from secateur.data.index import Index
from secateur.errors import UserError
from secateur.families.detection.split import DetectionSplit
from secateur.families.reading import Reading, Split, evenly

CALIBRATION = 128
"""Images that ranges of activations are taken from."""


def calibration_images(
    split: Split, size: tuple[int, int], count: int = CALIBRATION, *, channels: int = 3
) -> list[Tensor]:
    """Images of a split as a validation shows them: uint8 [C, H, W], of this height and width.

    Raises:
        UserError: there is none.
    """
    if not len(split):
        raise UserError("int8 is calibrated on images, and there is none; give others with --data or --images.")
    some = split.select(covering(split.index, count)) if isinstance(split, DetectionSplit) else evenly(split, count)
    reading = Reading(size[0] if size[0] == size[1] else size, 1, channels=channels)
    return [image.contiguous() for batch in some.ordered(reading) for image in batch.images]


def covering(index: Index, count: int) -> list[int]:
    """Numbers of `count` images in which rare classes are as well seen as can be, in ascending order.

    One after the other that image is taken whose classes were seen least so far. Images without labels are taken
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
