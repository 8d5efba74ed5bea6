"""Non-maximum suppression against a plain reference and under change of batch."""

from __future__ import annotations

import pytest
import torch
import torchvision

from secateur.errors import UserError
from secateur.evaluation.nms import non_max_suppression
from secateur.evaluation.settings import NmsSettings


def random_predictions(images: int, boxes: int, classes: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(images, boxes, 2, generator=generator) * 200
    sides = torch.rand(images, boxes, 2, generator=generator) * 80 + 5
    scores = torch.rand(images, boxes, 1 + classes, generator=generator)
    return torch.cat((centres, sides, scores), dim=2)


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def slow(rows: torch.Tensor, conf: float, threshold: float, max_det: int, multi_label: bool, agnostic: bool):
    candidates = []
    for x, y, w, h, objectness, *scores in rows.tolist():
        if objectness <= conf:
            continue
        box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        best = max(range(len(scores)), key=scores.__getitem__)
        for label, score in enumerate(scores):
            if score * objectness > conf and (multi_label or label == best):
                candidates.append((score * objectness, label, box))
    candidates.sort(key=lambda item: -item[0])
    kept = []
    for score, label, box in candidates:
        if all(iou(box, other) <= threshold for _, rival, other in kept if agnostic or rival == label):
            kept.append((score, label, box))
    return [[*box, score, label] for score, label, box in kept[:max_det]]


def test_agrees_with_the_definition() -> None:
    predictions = random_predictions(2, 60, 4)
    for multi_label in (True, False):
        for agnostic in (True, False):
            for conf, threshold, max_det in ((0.001, 0.6, 300), (0.3, 0.45, 20)):
                settings = NmsSettings(conf, threshold, max_det, agnostic, multi_label)
                fast = non_max_suppression(predictions, settings)
                for rows, image in zip(fast, predictions, strict=True):
                    expected = torch.tensor(slow(image, conf, threshold, max_det, multi_label, agnostic))
                    torch.testing.assert_close(rows, expected, atol=1e-3, rtol=1e-5)


def test_an_image_does_not_feel_its_companions() -> None:
    predictions = random_predictions(4, 200, 7, seed=1)
    together = non_max_suppression(predictions)
    for i in range(4):
        alone = non_max_suppression(predictions[i : i + 1])[0]
        assert torch.equal(together[i], alone)


def test_one_class_needs_no_multi_label() -> None:
    predictions = random_predictions(1, 50, 1)
    a, b = (
        non_max_suppression(predictions),
        non_max_suppression(predictions, NmsSettings(multi_label=False)),
    )
    assert torch.equal(a[0], b[0])


def test_only_the_best_candidates_enter_and_the_best_come_out_first() -> None:
    predictions = random_predictions(1, 300, 3)
    scores = (predictions[0, :, 5:] * predictions[0, :, 4:5]).flatten().sort(descending=True).values
    rows = non_max_suppression(predictions, NmsSettings(iou=1.0), max_nms=10)[0]
    torch.testing.assert_close(rows[:, 4], scores[:10])
    assert len(non_max_suppression(predictions, NmsSettings(iou=1.0, max_det=5))[0]) == 5


def test_nothing_found_gives_empty_rows() -> None:
    predictions = torch.zeros(2, 10, 8)
    assert [tuple(rows.shape) for rows in non_max_suppression(predictions)] == [(0, 6), (0, 6)]
    assert [tuple(rows.shape) for rows in non_max_suppression(torch.zeros(1, 0, 8))] == [(0, 6)]


def test_half_precision_scores_are_suppressed_in_full_precision() -> None:
    predictions = random_predictions(1, 40, 3).bfloat16()
    assert torch.equal(non_max_suppression(predictions)[0], non_max_suppression(predictions.float())[0])


@pytest.mark.parametrize("most", [1, 40, 300])
def test_growing_prefixes_give_what_all_candidates_at_once_give(most: int) -> None:
    generator = torch.Generator().manual_seed(most)
    boxes = torch.rand(5000, 4, generator=generator) * torch.tensor([300.0, 300.0, 60.0, 60.0])
    scores = torch.rand(5000, 1, generator=generator).round(decimals=2).clamp(min=0.01)  # with many ties
    predictions = torch.cat((boxes, torch.ones(5000, 1), scores), dim=1)[None]
    found = non_max_suppression(predictions, NmsSettings(iou=0.3, max_det=most))[0]
    corners = torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), dim=1)
    kept = torchvision.ops.nms(corners, scores[:, 0], 0.3)[:most]
    assert torch.equal(found[:, :4], corners[kept])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conf": 1.5}, "--conf is 1.5; it must be from 0 to 1"),
        ({"iou": -0.1}, "--iou is -0.1"),
        ({"max_det": 0}, "--max-det is 0"),
    ],
)
def test_senseless_thresholds_are_refused(changes, words) -> None:
    with pytest.raises(UserError, match=words):
        NmsSettings(**changes)
