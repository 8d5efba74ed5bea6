"""The detection loss against a slow reference written with loops in double precision."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from secateur.families.hyp import load_hyp
from secateur.families.yolov5.hyp import YOLOv5Hyp
from secateur.families.yolov5.loss import DetectionLoss, complete_iou
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from toy_training import ToyBatches, toy_detector


def cross_entropy(logit: Tensor, wanted: float | Tensor, weight: float, gamma: float) -> Tensor:
    score = 1 / (1 + torch.exp(-logit))
    loss = -(weight * wanted * torch.log(score) + (1 - wanted) * torch.log(1 - score))
    if gamma > 0:
        hit = wanted * score + (1 - wanted) * (1 - score)
        loss = loss * (wanted * 0.25 + (1 - wanted) * 0.75) * (1 - hit) ** gamma
    return loss


def reference_ciou(first: list[Tensor], second: list[float]) -> Tensor:
    (x1, y1, w1, h1), (x2, y2, w2, h2) = first, second
    overlap_w = torch.clamp(
        torch.minimum(x1 + w1 / 2, torch.tensor(x2 + w2 / 2)) - torch.maximum(x1 - w1 / 2, torch.tensor(x2 - w2 / 2)),
        min=0,
    )
    overlap_h = torch.clamp(
        torch.minimum(y1 + h1 / 2, torch.tensor(y2 + h2 / 2)) - torch.maximum(y1 - h1 / 2, torch.tensor(y2 - h2 / 2)),
        min=0,
    )
    overlap = overlap_w * overlap_h
    iou = overlap / (w1 * h1 + w2 * h2 - overlap)
    hull_w = torch.maximum(x1 + w1 / 2, torch.tensor(x2 + w2 / 2)) - torch.minimum(
        x1 - w1 / 2, torch.tensor(x2 - w2 / 2)
    )
    hull_h = torch.maximum(y1 + h1 / 2, torch.tensor(y2 + h2 / 2)) - torch.minimum(
        y1 - h1 / 2, torch.tensor(y2 - h2 / 2)
    )
    shape = 4 / math.pi**2 * (math.atan(w2 / h2) - torch.atan(w1 / h1)) ** 2
    alpha = (shape / (1 - iou + shape)).detach()
    return iou - ((x1 - x2) ** 2 + (y1 - y2) ** 2) / (hull_w**2 + hull_h**2) - alpha * shape


def reference_loss(
    detector: Detector, hyp: YOLOv5Hyp, size: int, raw: list[Tensor], targets: Tensor, smooth: float
) -> Tensor:
    """YOLOv5's loss, one box, anchor, cell and class at a time."""
    levels, classes = detector.nl, detector.nc
    balance = [4.0, 1.0, 0.4] if levels == 3 else [4.0, 1.0, 0.25, 0.06, 0.02]
    total = torch.zeros((), dtype=torch.float64)
    for level, logits in enumerate(raw):
        batch, anchors, rows, columns, _ = logits.shape
        wanted: dict[tuple[int, int, int, int], float] = {}
        boxes, categories = [], []
        for image, category, x, y, w, h in targets.tolist():
            x, w, y, h = x * columns, w * columns, y * rows, h * rows
            cells = [(math.floor(x), math.floor(y))]
            if x % 1 < 0.5 and x > 1:
                cells.append((math.floor(x) - 1, math.floor(y)))
            if y % 1 < 0.5 and y > 1:
                cells.append((math.floor(x), math.floor(y) - 1))
            if (columns - x) % 1 < 0.5 and columns - x > 1:
                cells.append((math.floor(x) + 1, math.floor(y)))
            if (rows - y) % 1 < 0.5 and rows - y > 1:
                cells.append((math.floor(x), math.floor(y) + 1))
            for a in range(anchors):
                aw, ah = detector.head.anchors[level, a].double().tolist()
                if max(w / aw, aw / w, h / ah, ah / h) >= hyp.anchor_t:
                    continue
                for column, row in cells:
                    cell = logits[int(image), a, row, column]
                    s = torch.sigmoid(cell)
                    box = [s[0] * 2 - 0.5, s[1] * 2 - 0.5, (s[2] * 2) ** 2 * aw, (s[3] * 2) ** 2 * ah]
                    iou = reference_ciou(box, [x - column, y - row, w, h])
                    boxes.append(1 - iou)
                    key = (int(image), a, row, column)
                    wanted[key] = max(wanted.get(key, 0.0), float(iou.detach()), 0.0)
                    for c in range(classes):
                        goal = 1 - smooth / 2 if c == int(category) else smooth / 2
                        categories.append(cross_entropy(cell[5 + c], goal, hyp.cls_pw, hyp.fl_gamma))
        if boxes:
            total = total + hyp.box * 3 / levels * torch.stack(boxes).mean()
            if classes > 1:
                total = total + hyp.cls * classes / 80 * 3 / levels * torch.stack(categories).mean()
        objectness = [
            cross_entropy(logits[b, a, r, c, 4], wanted.get((b, a, r, c), 0.0), hyp.obj_pw, hyp.fl_gamma)
            for b in range(batch)
            for a in range(anchors)
            for r in range(rows)
            for c in range(columns)
        ]
        gain = hyp.obj * (size / 640) ** 2 * 3 / levels * balance[level]
        total = total + gain * torch.stack(objectness).mean()
    return total * raw[0].shape[0]


@pytest.mark.parametrize(
    ("topology", "classes", "hyp", "smooth"),
    [
        ("yolov5n", 3, YOLOv5Hyp(), 0.0),
        ("yolov5n", 1, YOLOv5Hyp(), 0.0),
        ("yolov5n", 3, load_hyp("finetune").read(YOLOv5Hyp), 0.1),
        ("yolov3-tiny", 2, YOLOv5Hyp(anchor_t=6.0), 0.0),
        ("yolov5n", 2, YOLOv5Hyp(fl_gamma=1.5), 0.0),
    ],
    ids=["plain", "one class", "fine-tuning gains and smoothing", "two levels", "focal"],
)
def test_loss_and_gradient_agree_with_the_reference(topology: str, classes: int, hyp: YOLOv5Hyp, smooth: float) -> None:
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml(topology, nc=classes))
    sides = [int(64 / stride) for stride in detector.strides]
    raw = [torch.randn(2, detector.na, side, side, 5 + classes) for side in sides]
    targets = torch.rand(14, 6)
    targets[:, 0] = torch.arange(14) % 2
    targets[:, 1] = torch.arange(14) % classes
    targets[:, 4:] = targets[:, 4:] * 0.6 + 0.08
    targets[1, 2:] = targets[3, 2:]  # two boxes claim the same cells
    fast = [level.clone().requires_grad_() for level in raw]
    slow = [level.double().requires_grad_() for level in raw]
    total, parts = DetectionLoss(detector, hyp, 64, smooth)(fast, targets)
    expected = reference_loss(detector, hyp, 64, slow, targets.double(), smooth)
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=2e-6)
    assert float(sum(parts.values())) * 2 == pytest.approx(float(expected.detach()), rel=2e-6)
    for mine, theirs in zip(torch.autograd.grad(total, fast), torch.autograd.grad(expected, slow), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-7)


def test_loss_depends_neither_on_the_order_of_boxes_nor_on_the_memory_layout() -> None:
    detector = toy_detector()
    batch = ToyBatches(size=4).whole(0, 0)
    raw = [level.detach() for level in detector(batch.images.float() / 255)]
    loss = DetectionLoss(detector, YOLOv5Hyp(), 64)
    total = loss(raw, batch.targets)[0]
    assert float(loss(raw, batch.targets.flip(0))[0]) == pytest.approx(float(total), rel=1e-6)
    assert float(loss([level.contiguous() for level in raw], batch.targets)[0]) == pytest.approx(float(total), rel=1e-6)


def test_images_without_objects_leave_only_objectness() -> None:
    detector = toy_detector()
    total, parts = DetectionLoss(detector, YOLOv5Hyp(), 64)(detector(torch.rand(2, 3, 64, 64)), torch.zeros(0, 6))
    assert float(parts["box"]) == 0 and float(parts["cls"]) == 0 and float(parts["obj"]) > 0
    total.backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())


def test_bf16_logits_are_summed_in_fp32() -> None:
    detector = toy_detector()
    batch = ToyBatches(size=2).whole(0, 0)
    raw = [level.detach() for level in detector(batch.images.float() / 255)]
    loss = DetectionLoss(detector, replace(YOLOv5Hyp(), label_smoothing=0.1), 64)
    total, parts = loss([level.bfloat16() for level in raw], batch.targets)
    assert total.dtype == torch.float32 and {part.dtype for part in parts.values()} == {torch.float32}
    assert float(total) == pytest.approx(float(loss(raw, batch.targets)[0]), rel=1e-2)


def test_complete_iou_of_equal_and_of_distant_boxes() -> None:
    box = torch.tensor([[2.0, 3.0, 4.0, 2.0]])
    assert float(complete_iou(box, box)) == pytest.approx(1, abs=1e-6)
    assert float(complete_iou(box, box + torch.tensor([[100.0, 0, 0, 0]]))) < -0.8
