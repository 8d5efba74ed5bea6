"""Converts boxes to `supervision.Detections`, which that library's tools draw, count, track and convert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from secateur.errors import UserError

if TYPE_CHECKING:
    from supervision import Detections


def check_supervision(what: str, otherwise: str = "") -> None:
    """Checks that supervision is installed.

    Args:
        what: feature that needs it, as the beginning of the error message.
        otherwise: alternative without it.

    Raises:
        UserError: it is not installed.
    """
    try:
        import supervision  # noqa: F401
    except ImportError:
        raise UserError(f"{what} needs supervision: pip install 'secateur[predict]'{otherwise}.") from None


def to_detections(boxes: Tensor, names: Mapping[int, str]) -> Detections:
    """Converts boxes float32 [n, 6] (x1, y1, x2, y2, confidence, class) to detections with `data["class_name"]`.

    Raises:
        UserError: supervision is not installed.
    """
    check_supervision("supervision.Detections")
    from supervision import Detections

    rows = boxes.numpy()
    classes = rows[:, 5].astype(np.int64)
    found = np.array([names.get(int(number), str(number)) for number in classes], dtype=np.str_)
    return Detections(
        xyxy=rows[:, :4].copy(), confidence=rows[:, 4].copy(), class_id=classes, data={"class_name": found}
    )
