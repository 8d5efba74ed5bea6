"""Non-maximum suppression as a module, for networks that give boxes after it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from secateur.evaluation.nms import CLASS_OFFSET
from secateur.evaluation.settings import NmsSettings


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
