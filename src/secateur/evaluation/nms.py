"""Candidates of a detector, and which of them stay: non-maximum suppression, or a choice among final boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from secateur.evaluation.settings import NmsSettings

# Boxes of class c are moved by c times this many pixels, so that classes do not meet. In fp32 the shift rounds the
# boxes of high class ids by up to 0.03 px; published figures carry that rounding, so it is kept.
CLASS_OFFSET = 7680
_FIRST_CANDIDATES = 1024  # some three times max_det: mostly enough, and cheap


class Candidates(NamedTuple):
    """What a detector proposes for one image, before suppression.

    Attributes:
        boxes: [n, 4]: x1, y1, x2, y2 in pixels.
        scores: [n, nc] in 0..1: how sure the detector is that an object of each class is in the box.
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

    Images are treated one by one, so the result for an image does not depend on its companions in the batch.

    Args:
        candidates: of each image.
        settings: thresholds; None takes those of a validation.
        classes: ids of the only classes that are wanted; None wants all.
        max_nms: most candidates of an image that enter the suppression (the best by score).

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
    """Of the final boxes of a detector that needs no suppression, those that are wanted.

    Args:
        found: boxes [n, 6] of each image: x1, y1, x2, y2 in pixels, score, class; in any order.
        settings: `conf` and `max_det` are taken from here; None takes those of a validation.
        classes: ids of the only classes that are wanted; None wants all.

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
    """[..., 4] centre x, y, width, height -> x1, y1, x2, y2."""
    centres, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centres - half, centres + half), dim=-1)


def _of_classes(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Which of the labels [n] are among the classes."""
    return torch.isin(labels, torch.tensor(list(classes), dtype=labels.dtype, device=labels.device))


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


class Suppressed(nn.Module):
    """Images [B, C, H, W] -> boxes [B, max_det, 6] that stay after non-maximum suppression: x1, y1, x2, y2 in pixels,
    score, class; best first, rows of zeros behind the last. `evaluation.nms` with one label a box does the same.

    Args:
        detector: images -> corners [B, N, 4] in pixels and scores [B, N, nc] of all boxes.
        settings: which boxes stay.
        batch: images of a call.
    """

    def __init__(self, detector: nn.Module, settings: NmsSettings, batch: int) -> None:
        super().__init__()
        self.detector, self.settings, self.batch = detector, settings, batch

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, max_det, 6]."""
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
