"""Selects the final boxes from a detector's candidates: non-maximum suppression, or filtering of final boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from secateur.evaluation.settings import NmsSettings

# Boxes of class c are shifted by c times this many pixels, so that classes do not overlap. In fp32 the shift rounds the
# boxes of high class ids by up to 0.03 px; published figures include this rounding, so it is kept.
CLASS_OFFSET = 7680
_FIRST_CANDIDATES = 1024  # about three times max_det: usually sufficient, and fast


class Candidates(NamedTuple):
    """The candidates of a detector for one image, before suppression.

    Attributes:
        boxes: float [n, 4]: x1, y1, x2, y2 in pixels.
        scores: float [n, nc] in 0..1: confidence of each class.
    """

    boxes: Tensor
    scores: Tensor


def non_max_suppression(
    candidates: Sequence[Candidates],
    settings: NmsSettings | None = None,
    classes: Sequence[int] | None = None,
    *,
    max_nms: int = 30_000,
) -> list[Tensor]:
    """Keeps, for each image, the best of every cluster of overlapping boxes of one class.

    Images are processed separately, so the result for an image does not depend on the other images of the batch.

    Args:
        candidates: candidates of each image.
        settings: thresholds; None uses those of a validation.
        classes: ids of the classes to keep; None keeps all.
        max_nms: maximum number of candidates per image, best by score.

    Returns:
        for each image float32 [n, 6]: x1, y1, x2, y2 in pixels, score, class; best score first.
    """
    settings = settings or NmsSettings()
    results = []
    for boxes, all_scores in candidates:
        scores = all_scores.float()
        if settings.multi_label and scores.shape[1] > 1:
            row, label = (scores > settings.conf).nonzero(as_tuple=True)
            score = scores[row, label]
        else:
            score, label = scores.max(dim=1)
            row = (score > settings.conf).nonzero(as_tuple=True)[0]
            score, label = score[row], label[row]
        if classes is not None:
            wanted = _of_classes(label, classes)
            row, score, label = row[wanted], score[wanted], label[wanted]
        if score.numel() > max_nms:
            score, best = score.topk(max_nms)
            row, label = row[best], label[best]
        corners = boxes[row].float()
        shifted = corners if settings.agnostic else corners + label[:, None] * CLASS_OFFSET
        kept = _survivors(shifted, score, settings.iou, settings.max_det)
        results.append(torch.cat((corners[kept], score[kept, None], label[kept, None].float()), dim=1))
    return results


def best_boxes(
    found: Sequence[Tensor], settings: NmsSettings | None = None, classes: Sequence[int] | None = None
) -> list[Tensor]:
    """Filters the final boxes of a detector that needs no suppression.

    Args:
        found: float boxes [n, 6] of each image: x1, y1, x2, y2 in pixels, score, class; in any order.
        settings: `conf` and `max_det` are used; None uses those of a validation.
        classes: ids of the classes to keep; None keeps all.

    Returns:
        for each image float32 [n, 6], best score first.
    """
    settings = settings or NmsSettings()
    results = []
    for of_image in found:
        boxes = of_image[of_image[:, 4] > settings.conf].float()
        if classes is not None:
            boxes = boxes[_of_classes(boxes[:, 5], classes)]
        results.append(boxes[boxes[:, 4].argsort(descending=True, stable=True)[: settings.max_det]])
    return results


def corners_of(boxes: Tensor) -> Tensor:
    """Converts boxes [..., 4] from centre x, centre y, width, height to x1, y1, x2, y2."""
    centres, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centres - half, centres + half), dim=-1)


def _of_classes(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Which of the labels [n] are in `classes`: bool [n]."""
    return torch.isin(labels, torch.tensor(list(classes), dtype=labels.dtype, device=labels.device))


def _survivors(boxes: Tensor, scores: Tensor, iou: float, most: int) -> Tensor:
    """Indices int64 [n] of the best `most` boxes that remain after suppression, best first; boxes [n, 4], scores [n].

    Only better boxes can suppress a box, so the result for the best candidates is final. Growing prefixes therefore
    give the same result as all candidates at once, whose number of pairs would make the epochs of an untrained detector
    slow.
    """
    order = scores.argsort(descending=True, stable=True)
    count = _FIRST_CANDIDATES
    while True:
        best = order[:count]
        kept = nms(boxes[best], scores[best], iou)
        if len(kept) >= most or count >= len(order):
            return best[kept[:most]]
        count *= 4


class Suppressed(nn.Module):
    """A network with non-maximum suppression: images [B, C, H, W] -> boxes [B, max_det, 6].

    Rows are x1, y1, x2, y2 in pixels, score, class; best first, padded with zeros. Equivalent to `evaluation.nms` with
    one label per box.

    Args:
        detector: images -> corners [B, N, 4] in pixels and scores [B, N, nc] of all boxes.
        settings: thresholds.
        batch: batch size.
    """

    def __init__(self, detector: nn.Module, settings: NmsSettings, batch: int) -> None:
        super().__init__()
        self.detector, self.settings, self.batch = detector, settings, batch

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 [B, C, H, W] in 0..1 -> boxes float32 [B, max_det, 6]."""
        corners, scores = self.detector(images)
        return torch.stack([self._kept(corners[number], scores[number]) for number in range(self.batch)])

    def _kept(self, corners: Tensor, scores: Tensor) -> Tensor:
        score, label = scores.max(dim=1)
        found = (score > self.settings.conf).nonzero().squeeze(1)
        score, label, corners = score[found], label[found].float(), corners[found]
        shifted = corners if self.settings.agnostic else corners + label[:, None] * CLASS_OFFSET
        kept = nms(shifted, score, self.settings.iou)
        result = torch.cat((corners[kept], score[kept, None], label[kept, None]), 1)
        return torch.cat((result, result.new_zeros(self.settings.max_det, 6)))[: self.settings.max_det]
