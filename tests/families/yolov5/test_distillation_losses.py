"""Every output loss against a slow reference written with loops in double precision, and what all losses share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from law_subjects import detector_named
from secateur.distillation.methods import standardised
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.families.yolov5.distillation import DISTILLATIONS, View
from secateur.families.yolov5.distillation.imitate import ImitateHead
from secateur.families.yolov5.hyp import YOLOv5Hyp
from secateur.families.yolov5.loss import DetectionLoss, complete_iou
from toy_training import ToyBatches

OUTPUTS = ("bce", "kl", "l2", "softmax")
GRIDS = ((4, 3), (2, 2), (1, 1))


def view_of(seed: int = 0, equal: bool = False, batch: int = 2) -> View:
    generator = torch.Generator().manual_seed(seed)

    def logits() -> list[Tensor]:
        return [2 * torch.randn(batch, 3, ny, nx, 8, generator=generator) for ny, nx in GRIDS]

    teacher = logits()
    student = [level.clone() for level in teacher] if equal else logits()
    anchors = detection_loss().anchors
    other = anchors if equal else anchors * (0.5 + torch.rand(anchors.shape, generator=generator))
    targets = ToyBatches(size=batch).whole(0, seed).targets
    return View(
        student=tuple(level.requires_grad_() for level in student),
        teacher=tuple(teacher),
        student_anchors=anchors,
        teacher_anchors=other,
        targets=targets,
        share=torch.tensor(1.0),
    )


@cache
def detection_loss() -> DetectionLoss:
    return DetectionLoss(detector_named("yolov5n"), YOLOv5Hyp(), 320)


def parts_of(name: str, view: View, temperature: float = 0.0) -> dict[str, Tensor]:
    settings = DistillSettings(name, distill_temperature=temperature)
    return DISTILLATIONS[name](settings, detection_loss())(view)


def sig(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softmax(values: list[float], heat: float) -> list[float]:
    powers = [math.exp(v / heat) for v in values]
    return [p / sum(powers) for p in powers]


def cells(view: View, level: int) -> list[tuple[list[float], list[float], int]]:
    """Student row, teacher row and anchor of every cell of a level."""
    s, t = view.student[level].detach().double(), view.teacher[level].double()
    rows = []
    for b in range(s.shape[0]):
        for a in range(s.shape[1]):
            for y in range(s.shape[2]):
                rows += [(s[b, a, y, x].tolist(), t[b, a, y, x].tolist(), a) for x in range(s.shape[3])]
    return rows


def squares(view: View, heat: float) -> dict[str, float]:
    """l2 where heat is 0, else kl."""
    box = objectness = category = 0.0
    for level in range(3):
        rows = cells(view, level)
        n = len(rows)
        for s, t, a in rows:
            w = sig(t[4])
            for k in range(4):
                ratio = 1.0
                if k >= 2:
                    ratio = math.sqrt(view.teacher_anchors[level, a, k - 2] / view.student_anchors[level, a, k - 2])
                box += w * (sig(s[k]) - ratio * sig(t[k])) ** 2 / (2 * n)
            objectness += w * (s[4] - t[4]) ** 2 / n
            for p, q, i, j in zip(softmax(t[5:], heat or 1), softmax(s[5:], heat or 1), t[5:], s[5:], strict=True):
                category += w * (heat**2 * p * math.log(p / q) if heat else (i - j) ** 2) / (3 * n)
    return {"d_box": 0.05 * box, "d_obj": 0.25 * objectness, "d_cls": 0.5 * 3 / 80 * category}


def bernoulli(s: float, t: float, heat: float) -> float:
    p, q = sig(t / heat), sig(s / heat)
    return heat**2 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))


def decoded(row: list[float], anchor: Tensor) -> Tensor:
    x, y, w, h = (sig(v) for v in row[:4])
    width, height = anchor.double().tolist()
    return torch.tensor([[2 * x - 0.5, 2 * y - 0.5, (2 * w) ** 2 * width, (2 * h) ** 2 * height]], dtype=torch.float64)


def sigmoids(view: View, heat: float) -> dict[str, float]:
    box = objectness = category = total = 0.0
    for level, balance in enumerate((4.0, 1.0, 0.4)):
        rows = cells(view, level)
        for s, t, a in rows:
            w = sig(t[4])
            total += w
            objectness += balance * bernoulli(s[4], t[4], heat) / len(rows)
            category += w * sum(bernoulli(i, j, heat) for i, j in zip(s[5:], t[5:], strict=True)) / 3
            here, there = decoded(s, view.student_anchors[level, a]), decoded(t, view.teacher_anchors[level, a])
            box += w * float(complete_iou(there, there) - complete_iou(here, there))
    norm = 3 / max(total, 1.0)
    return {"d_box": 0.05 * box * norm, "d_obj": 0.25 * objectness, "d_cls": 0.5 * 3 / 80 * category * norm}


REFERENCES: dict[str, tuple[Callable[[View, float], dict[str, float]], float]] = {
    "l2": (squares, 0.0),
    "kl": (squares, 20.0),
    "bce": (sigmoids, 1.0),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_loss_is_its_formula(name: str) -> None:
    reference, heat = REFERENCES[name]
    view = view_of()
    parts = parts_of(name, view)
    expected = reference(view, heat)
    assert {key: float(value.detach()) for key, value in parts.items()} == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("name", ["kl", "bce"])
def test_the_users_temperature_replaces_the_methods(name: str) -> None:
    view = view_of(1)
    expected = REFERENCES[name][0](view, 4.0)
    assert float(parts_of(name, view, 4.0)["d_cls"].detach()) == pytest.approx(expected["d_cls"], rel=2e-4)


def test_background_does_not_dilute_the_cross_entropy_of_classes() -> None:
    view = view_of(2)
    with torch.no_grad():
        for level in view.teacher:
            level[..., 4] = -20.0
        view.teacher[0][0, 0, 0, 0, 4] = 20.0
    parts = parts_of("bce", view)
    s, t = view.student[0][0, 0, 0, 0].tolist(), view.teacher[0][0, 0, 0, 0].tolist()
    alone = sum(bernoulli(i, j, 1.0) for i, j in zip(s[5:], t[5:], strict=True)) / 3
    assert float(parts["d_cls"].detach()) == pytest.approx(alone * 3 * 0.5 * 3 / 80, rel=1e-4)


def test_softmax_pulls_boxes_to_the_label_only_where_the_teacher_is_nearer() -> None:
    view = view_of(3)
    sum(parts_of("softmax", view).values(), torch.zeros(())).backward()
    pulled = [level.grad[..., :4].abs().sum(-1) > 0 for level in view.student if level.grad is not None]
    same = tuple(level.detach().clone() for level in view.student)
    better = replace(view, teacher=same, teacher_anchors=view.student_anchors)
    assert float(parts_of("softmax", better)["d_box"].detach()) == 0
    assert 0 < sum(int(level.sum()) for level in pulled) < sum(level.numel() for level in pulled)


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_perfect_student_costs_nothing_and_has_nothing_to_learn(name: str) -> None:
    view = view_of(4, equal=True)
    parts = parts_of(name, view)
    assert all(float(value.detach()) == pytest.approx(0, abs=1e-6) for value in parts.values())
    sum(parts.values(), torch.zeros(())).backward()
    for level in view.student:
        assert level.grad is not None and float(level.grad.abs().max()) < 1e-5
    assert all(float(value.detach()) > 1e-4 for value in parts_of(name, view_of(4)).values())


@pytest.mark.parametrize("name", OUTPUTS)
def test_gradient_descent_on_the_logits_reaches_the_teacher(name: str) -> None:
    view = view_of(5)
    start = sum(parts_of(name, view).values(), torch.zeros(())).detach()
    optimizer = torch.optim.Adam(view.student, lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        loss = sum(parts_of(name, view).values(), torch.zeros(()))
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2 * float(start)


def test_standardised_features_ignore_scale_and_shift() -> None:
    features = torch.randn(4, 6, 5, 5)
    scale, shift = torch.rand(6, 1, 1) + 0.5, torch.randn(6, 1, 1)
    torch.testing.assert_close(standardised(features), standardised(features * scale + shift), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(standardised(features).square().mean((0, 2, 3)), torch.ones(6), rtol=1e-4, atol=0)


def test_unknown_names_and_bad_numbers_are_refused() -> None:
    detector = detector_named("yolov5n")
    with pytest.raises(
        UserError, match=r"Unknown distillation 'huber'; choose one of bce, features, kl, l2, raw, softmax\."
    ):
        ImitateHead(DistillSettings("huber"), detector, detector, YOLOv5Hyp(), 64)
    with pytest.raises(UserError, match=r"--distill-weight is -1"):
        DistillSettings("l2", distill_weight=-1)
    with pytest.raises(UserError, match="empty name"):
        DistillSettings("l2+")
    with pytest.raises(UserError, match="twice"):
        DistillSettings("l2+l2")
