"""Non-maximum suppression against a plain reference and under change of batch."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torchvision

from secateur.errors import UserError
from secateur.evaluation.nms import Candidates, best_boxes, corners_of, non_max_suppression
from secateur.evaluation.settings import NmsSettings


def random_candidates(images: int, boxes: int, classes: int, seed: int = 0) -> list[Candidates]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(images, boxes, 2, generator=generator) * 200
    sides = torch.rand(images, boxes, 2, generator=generator) * 80 + 5
    scores = torch.rand(images, boxes, classes, generator=generator)
    return [Candidates(*of_image) for of_image in zip(corners_of(torch.cat((centres, sides), 2)), scores, strict=True)]


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def slow(
    of_image: Candidates,
    conf: float,
    threshold: float,
    max_det: int,
    multi_label: bool,
    agnostic: bool,
    classes: Sequence[int] | None,
):
    candidates = []
    for box, scores in zip(of_image.boxes.tolist(), of_image.scores.tolist(), strict=True):
        best = max(range(len(scores)), key=scores.__getitem__)
        for label, score in enumerate(scores):
            if score > conf and (multi_label or label == best) and (classes is None or label in classes):
                candidates.append((score, label, box))
    candidates.sort(key=lambda item: -item[0])
    kept = []
    for score, label, box in candidates:
        if all(iou(box, other) <= threshold for _, rival, other in kept if agnostic or rival == label):
            kept.append((score, label, box))
    return [[*box, score, label] for score, label, box in kept[:max_det]]


@pytest.mark.parametrize("classes", [None, (1, 3), ()])
def test_agrees_with_the_definition(classes: Sequence[int] | None) -> None:
    candidates = random_candidates(2, 60, 4)
    for multi_label in (True, False):
        for agnostic in (True, False):
            for conf, threshold, max_det in ((0.001, 0.6, 300), (0.3, 0.45, 20)):
                settings = NmsSettings(conf, threshold, max_det, agnostic, multi_label)
                fast = non_max_suppression(candidates, settings, classes)
                for rows, image in zip(fast, candidates, strict=True):
                    expected = slow(image, conf, threshold, max_det, multi_label, agnostic, classes)
                    torch.testing.assert_close(rows, torch.tensor(expected).reshape(-1, 6), atol=1e-3, rtol=1e-5)


def test_an_image_does_not_feel_its_companions() -> None:
    candidates = random_candidates(4, 200, 7, seed=1)
    together = non_max_suppression(candidates)
    for i in range(4):
        alone = non_max_suppression(candidates[i : i + 1])[0]
        assert torch.equal(together[i], alone)


def test_one_class_needs_no_multi_label() -> None:
    candidates = random_candidates(1, 50, 1)
    a, b = (
        non_max_suppression(candidates),
        non_max_suppression(candidates, NmsSettings(multi_label=False)),
    )
    assert torch.equal(a[0], b[0])


def test_only_the_best_candidates_enter_and_the_best_come_out_first() -> None:
    candidates = random_candidates(1, 300, 3)
    scores = candidates[0].scores.flatten().sort(descending=True).values
    rows = non_max_suppression(candidates, NmsSettings(iou=1.0), max_nms=10)[0]
    torch.testing.assert_close(rows[:, 4], scores[:10])
    assert len(non_max_suppression(candidates, NmsSettings(iou=1.0, max_det=5))[0]) == 5


def test_nothing_found_gives_empty_rows() -> None:
    nothing = [Candidates(torch.zeros(10, 4), torch.zeros(10, 3)), Candidates(torch.zeros(0, 4), torch.zeros(0, 3))]
    for settings in (NmsSettings(), NmsSettings(multi_label=False)):
        assert [tuple(rows.shape) for rows in non_max_suppression(nothing, settings, (0, 2))] == [(0, 6), (0, 6)]
    assert [tuple(rows.shape) for rows in best_boxes([torch.zeros(3, 6), torch.zeros(0, 6)])] == [(0, 6), (0, 6)]


def test_half_precision_scores_are_suppressed_in_full_precision() -> None:
    rough = [Candidates(boxes.bfloat16(), scores.bfloat16()) for boxes, scores in random_candidates(1, 40, 3)]
    exact = [Candidates(boxes.float(), scores.float()) for boxes, scores in rough]
    assert torch.equal(non_max_suppression(rough)[0], non_max_suppression(exact)[0])


@pytest.mark.parametrize("most", [1, 40, 300])
def test_growing_prefixes_give_what_all_candidates_at_once_give(most: int) -> None:
    generator = torch.Generator().manual_seed(most)
    boxes = corners_of(torch.rand(5000, 4, generator=generator) * torch.tensor([300.0, 300.0, 60.0, 60.0]))
    scores = torch.rand(5000, 1, generator=generator).round(decimals=2).clamp(min=0.01)  # with many ties
    found = non_max_suppression([Candidates(boxes, scores)], NmsSettings(iou=0.3, max_det=most))[0]
    kept = torchvision.ops.nms(boxes, scores[:, 0], 0.3)[:most]
    assert torch.equal(found[:, :4], boxes[kept])


def test_final_boxes_are_chosen_and_never_suppressed() -> None:
    final = torch.tensor(
        [
            [0, 0, 10, 10, 0.3, 1],
            [0, 0, 10, 10, 0.9, 0],
            [0, 0, 10, 10, 0.9, 2],  # the same box again: the detector means it
            [5, 5, 20, 20, 0.1, 1],
        ]
    )
    [all_of_them], [sure], [of_classes], [few] = (
        best_boxes([final], NmsSettings(conf=conf, iou=0.0, max_det=most, agnostic=True), classes)
        for conf, most, classes in ((0.05, 300, None), (0.2, 300, None), (0.05, 300, (1, 2)), (0.05, 2, None))
    )
    assert torch.equal(all_of_them, final[[1, 2, 0, 3]])
    assert torch.equal(sure, final[[1, 2, 0]])
    assert torch.equal(of_classes, final[[2, 0, 3]])
    assert torch.equal(few, final[[1, 2]])
    assert best_boxes([final.half()])[0].dtype == torch.float32


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
