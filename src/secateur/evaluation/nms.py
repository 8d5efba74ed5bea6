"""Non-maximum suppression of decoded predictions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms

from secateur.evaluation.settings import NmsSettings

# Boxes of class c are moved by c times this many pixels, so that classes do not meet. In fp32 the shift rounds the
# boxes of high class ids by up to 0.03 px; published figures carry that rounding, so it is kept.
CLASS_OFFSET = 7680
_FIRST_CANDIDATES = 1024  # some three times max_det: mostly enough, and cheap


def non_max_suppression(
    predictions: Tensor | Sequence[Tensor], settings: NmsSettings | None = None, *, max_nms: int = 30_000
) -> list[Tensor]:
    """Keeps, for each image, the best of every cluster of overlapping boxes of one class.

    A box's score for a class is objectness x class score. Images are treated one by one, so the result for an image
    does not depend on its companions in the batch.

    Args:
        predictions: decoded rows [B, N, 5 + nc], or [n, 5 + nc] of each image: centre x, y, width, height in pixels,
            objectness, class scores.
        settings: thresholds; None takes those of a validation.
        max_nms: most candidates of an image that enter the suppression (the best by score).

    Returns:
        for each image float32 [n, 6]: x1, y1, x2, y2 in pixels, score, class; best score first.
    """
    settings = settings or NmsSettings()
    results = []
    for candidates in predictions:
        rows = candidates[candidates[:, 4] > settings.conf].float()
        scores = rows[:, 5:] * rows[:, 4:5]
        if settings.multi_label and scores.shape[1] > 1:
            row, label = (scores > settings.conf).nonzero(as_tuple=True)
            score = scores[row, label]
        else:
            score, label = scores.max(dim=1)
            row = (score > settings.conf).nonzero(as_tuple=True)[0]
            score, label = score[row], label[row]
        if score.numel() > max_nms:
            score, best = score.topk(max_nms)
            row, label = row[best], label[best]
        corners = _corners(rows[row, :4])
        shifted = corners if settings.agnostic else corners + label[:, None] * CLASS_OFFSET
        kept = _survivors(shifted, score, settings.iou, settings.max_det)
        results.append(torch.cat((corners[kept], score[kept, None], label[kept, None].float()), dim=1))
    return results


def _survivors(boxes: Tensor, scores: Tensor, iou: float, most: int) -> Tensor:
    """Indices of the best `most` survivors, best first.

    Only better boxes can remove a box, so the survivors among the best candidates are final: growing prefixes give the
    same result as all candidates at once, whose pairs are what makes the epochs of an untrained detector slow.
    """
    order = scores.argsort(descending=True, stable=True)
    count = _FIRST_CANDIDATES
    while True:
        best = order[:count]
        kept = nms(boxes[best], scores[best], iou)
        if len(kept) >= most or count >= len(order):
            return best[kept[:most]]
        count *= 4


def _corners(boxes: Tensor) -> Tensor:
    """[n, 4] centre x, y, width, height -> x1, y1, x2, y2."""
    centres, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat((centres - half, centres + half), dim=1)
