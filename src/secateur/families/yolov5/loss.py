"""Detection loss of YOLOv5: assignment of boxes to cells and anchors, and the box, objectness and class terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.families.yolov5.hyp import YOLOv5Hyp
from secateur.families.yolov5.model import Detector
from secateur.training.distributed import sum_over_processes, world_size
from secateur.training.optimization.precision import full_precision

FOCAL_ALPHA = 0.25


@dataclass(frozen=True)
class Assignment:
    """The n positives of one level: int64 indices [n] and the targets of each."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    box: Tensor  # float [n, 4]: centre from the cell's corner, width and height; in cells
    category: Tensor


def assign(targets: Tensor, anchors: Tensor, grid: tuple[int, int], anchor_t: float) -> Assignment:
    """Assigns each box to the anchors of similar size, in its cell and in up to two cells nearest to its centre.

    Args:
        targets: float [T, 6], rows (image, class, x, y, w, h), normalised to the image.
        anchors: float [na, 2], widths and heights of one level, in cells.
        grid: rows and columns of the level.
        anchor_t: largest ratio of sides, in either direction, at which box and anchor match.
    """
    rows, columns = grid
    size = targets.new_tensor([columns, rows])
    centre, sides = targets[:, 2:4] * size, targets[:, 4:6] * size
    ratio = sides[None] / anchors[:, None]
    fits = torch.maximum(ratio, 1 / ratio).amax(2) < anchor_t
    anchor, which = fits.nonzero(as_tuple=True)
    centre, sides = centre[which], sides[which]

    # A neighbour is used if the centre is in the half of the cell next to it, and if it is inside the image.
    near_low = (centre % 1 < 0.5) & (centre > 1)  # left, upper
    from_end = size - centre
    near_high = (from_end % 1 < 0.5) & (from_end > 1)  # right, lower
    chosen = torch.cat([torch.ones_like(near_low[:, :1]), near_low, near_high], 1).T  # [5, n]
    shifts = targets.new_tensor([[0, 0], [0.5, 0], [0, 0.5], [-0.5, 0], [0, -0.5]])
    shift, positive = chosen.nonzero(as_tuple=True)
    centre, sides = centre[positive], sides[positive]
    cell = (centre - shifts[shift]).long()
    column, row = cell[:, 0].clamp(0, columns - 1), cell[:, 1].clamp(0, rows - 1)
    corner = torch.stack([column, row], 1)
    source = which[positive]
    return Assignment(
        image=targets[source, 0].long(),
        anchor=anchor[positive],
        row=row,
        column=column,
        box=torch.cat([centre - corner, sides], 1),
        category=targets[source, 1].long(),
    )


def complete_iou(first: Tensor, second: Tensor, eps: float = 1e-7) -> Tensor:
    """Complete IoU of boxes (centre, width, height), row by row: [n, 4] x [n, 4] -> [n] (Zheng et al. 2020)."""
    x1, y1, w1, h1 = first.unbind(1)
    x2, y2, w2, h2 = second.unbind(1)
    left1, right1, top1, bottom1 = x1 - w1 / 2, x1 + w1 / 2, y1 - h1 / 2, y1 + h1 / 2
    left2, right2, top2, bottom2 = x2 - w2 / 2, x2 + w2 / 2, y2 - h2 / 2, y2 + h2 / 2
    width = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).clamp(0)
    height = (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)).clamp(0)
    intersection = width * height
    iou = intersection / (w1 * h1 + w2 * h2 - intersection + eps)
    hull_width = torch.maximum(right1, right2) - torch.minimum(left1, left2)
    hull_height = torch.maximum(bottom1, bottom2) - torch.minimum(top1, top2)
    distance = ((x2 - x1).square() + (y2 - y1).square()) / (hull_width.square() + hull_height.square() + eps)
    shape = (4 / math.pi**2) * (torch.atan(w2 / (h2 + eps)) - torch.atan(w1 / (h1 + eps))).square()
    with torch.no_grad():
        # Rounding can raise the IoU of equal boxes above 1, and this would be 0 / 0.
        weight = shape / (shape - iou.clamp(max=1) + (1 + eps))
    return iou - distance - weight * shape


def joint_logit(level: Tensor) -> Tensor:
    """Logit of the best score (objectness x class): raw logits [..., 5 + nc] -> [...]."""
    log_score = F.logsigmoid(level[..., 4]) + F.logsigmoid(level[..., 5:].amax(-1))
    return log_score - torch.log1p(-log_score.exp().clamp(max=1 - 1e-6))


class DetectionLoss:
    """Sum of box, objectness and class losses, normalised over the batches of all processes.

    If two boxes are assigned to the same anchor and cell, the objectness target is the larger IoU, so the result does
    not depend on the order of writes. In a detector with only some of its trained classes, the objectness also covers
    the removed classes, so the best score (objectness x class) is used instead. With several processes, each returns
    its share such that the mean of the gradients over processes (as DDP computes it) equals the gradient of one process
    with the whole batch.

    Args:
        detector: its anchors, levels and classes are read once, so create the loss after AutoAnchor.
        image_size: size of the training images in pixels; scales the objectness gain.
    """

    def __init__(self, detector: Detector, hyp: YOLOv5Hyp, image_size: int, label_smoothing: float = 0.0) -> None:
        levels, self.classes = detector.nl, detector.nc
        self.hyp = hyp
        self.anchors: Tensor = full_precision(detector.head.anchors.detach().clone())
        self.box_gain = hyp.box * 3 / levels
        self.class_gain = hyp.cls * self.classes / 80 * 3 / levels
        self.objectness_gain = hyp.obj * (image_size / 640) ** 2 * 3 / levels
        self.balance = (4.0, 1.0, 0.4) if levels == 3 else (4.0, 1.0, 0.25, 0.06, *[0.02] * levels)[:levels]
        smoothing = max(label_smoothing, hyp.label_smoothing)
        self.joint = detector.topology.trained_classes > self.classes
        self.positive, self.negative = 1 - smoothing / 2, smoothing / 2

    def __call__(
        self, raw: Sequence[Tensor], targets: Tensor, images: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of raw logits [B, na, ny, nx, no] per level for targets [T, 6] (image, class, x, y, w, h; 0..1).

        Returns:
            The loss to differentiate, a scalar (times the total batch size, as in upstream), and the terms `box`,
            `obj`, `cls` (detached, with gains, not times the batch size; with several processes: the share of this one
            in the sum).
        """
        raw = [full_precision(level) for level in raw]
        targets = targets.to(raw[0].dtype)
        assigned = [
            assign(targets, anchors, (level.shape[2], level.shape[3]), self.hyp.anchor_t)
            for level, anchors in zip(raw, self.anchors, strict=True)
        ]
        batch, positives, cells = self._totals(raw, assigned)
        box = objectness = category = raw[0].new_zeros(())
        for i, (level, found) in enumerate(zip(raw, assigned, strict=True)):
            level_box, iou, level_category = self._positives(level, found, self.anchors[i])
            if positives[i] > 0:
                box = box + level_box / positives[i]
                category = category + level_category / (positives[i] * self.classes)
            seen = joint_logit(level) if self.joint else level[..., 4]
            level_objectness = self._objectness(seen, found, iou)
            objectness = objectness + level_objectness * (self.balance[i] / cells[i])
        box, objectness = box * self.box_gain, objectness * self.objectness_gain
        category = category * self.class_gain
        total = (box + objectness + category) * (batch * world_size())
        return total, {"box": box.detach(), "obj": objectness.detach(), "cls": category.detach()}

    def _totals(self, raw: Sequence[Tensor], assigned: Sequence[Assignment]) -> tuple[float, list[float], list[float]]:
        """Images, positives per level and cells per level, over all processes."""
        counts = [float(raw[0].shape[0])]
        counts += [float(found.row.numel()) for found in assigned] + [level[..., 0].numel() for level in raw]
        if world_size() > 1:
            shared = torch.tensor(counts, dtype=torch.float64, device=raw[0].device)
            counts = sum_over_processes(shared).tolist()
        return counts[0], counts[1 : 1 + len(raw)], counts[1 + len(raw) :]

    def _positives(self, level: Tensor, found: Assignment, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of the box and class losses over the positives of one level, and their detached IoUs."""
        logits = level[found.image, found.anchor, found.row, found.column]
        centre = logits[:, :2].sigmoid() * 2 - 0.5
        sides = (logits[:, 2:4].sigmoid() * 2).square() * anchors[found.anchor]
        iou = complete_iou(torch.cat([centre, sides], 1), found.box)
        category = logits.new_zeros(())
        if self.classes > 1:
            wanted = torch.full_like(logits[:, 5:], self.negative)
            wanted.scatter_(1, found.category[:, None], self.positive)
            category = self._cross_entropy(logits[:, 5:], wanted, self.hyp.cls_pw)
        return (1 - iou).sum(), iou.detach().clamp(0), category

    def _objectness(self, logits: Tensor, found: Assignment, iou: Tensor) -> Tensor:
        """Sum of the objectness loss over all cells of one level; the target of a positive is its IoU, otherwise 0."""
        _, anchors, rows, columns = logits.shape
        wanted = torch.zeros(logits.shape, dtype=logits.dtype, device=logits.device)
        place = ((found.image * anchors + found.anchor) * rows + found.row) * columns + found.column
        wanted.view(-1).scatter_reduce_(0, place, iou, "amax")
        return self._cross_entropy(logits, wanted, self.hyp.obj_pw)

    def _cross_entropy(self, logits: Tensor, wanted: Tensor, positive_weight: float) -> Tensor:
        weight = None if positive_weight == 1 else logits.new_tensor(positive_weight)
        if self.hyp.fl_gamma == 0:
            return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight, reduction="sum")
        # Focal loss (Lin et al. 2017) with soft targets.
        loss = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight, reduction="none")
        score = logits.sigmoid()
        miss = 1 - (wanted * score + (1 - wanted) * (1 - score))
        alpha = wanted * FOCAL_ALPHA + (1 - wanted) * (1 - FOCAL_ALPHA)
        return (loss * alpha * miss.pow(self.hyp.fl_gamma)).sum()
