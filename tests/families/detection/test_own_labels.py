"""Labels from a detector's own boxes: normalised, drawn by a seed, and refused where nothing is seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.families.detection.own_labels import OwnDetections

BOXES = torch.tensor([[8.0, 8, 40, 24, 1.0, 2], [0, 0, 16, 64, 0.5, 0], [30, 30, 60, 60, 0.12, 1]])


class Seer:
    """A predictor that answers every image with the same boxes."""

    def __init__(self, boxes: Tensor) -> None:
        self.boxes = boxes

    def predict(self, images: Tensor, settings: Any) -> list[Tensor]:
        assert settings.conf == 0.1
        return [self.boxes.clone() for _ in images]


def labels(boxes: Tensor, seed: int = 0) -> OwnDetections:
    return OwnDetections(Seer(boxes), seed)  # type: ignore[arg-type]


def test_boxes_become_normalised_targets_by_their_scores() -> None:
    found = labels(BOXES)
    targets = found(torch.zeros(200, 3, 64, 128))
    assert found.sight.images == 200 and found.sight.seen == 400
    first = targets[targets[:, 1] == 2]
    assert first[:, 0].tolist() == list(range(200))  # a score of 1 is drawn on every image
    half = (targets[:, 1] == 0).sum()
    assert 70 <= half <= 130 and 8 <= (targets[:, 1] == 1).sum() <= 45
    centre, sides = torch.tensor([24 / 128, 16 / 64]), torch.tensor([32 / 128, 16 / 64])
    assert torch.allclose(first[:, 2:4].mean(0), centre, atol=0.01)
    assert torch.allclose(first[:, 4:].log().mean(0), sides.log(), atol=0.03)
    assert ((first[:, 2:4] - centre) / sides).std() == pytest.approx(0.08, rel=0.2)
    found.require_some()


def test_the_seed_decides_what_is_drawn() -> None:
    images = torch.zeros(4, 3, 64, 64)
    assert torch.equal(labels(BOXES)(images), labels(BOXES)(images))
    assert not torch.equal(labels(BOXES)(images), labels(BOXES, 1)(images))


def test_images_on_which_nothing_is_seen_are_refused() -> None:
    unsure = labels(BOXES[2:])
    unsure.require_some()  # nothing was asked yet
    unsure(torch.zeros(3, 3, 64, 64))
    with pytest.raises(UserError, match=r"finds nothing \(no box above a confidence of 0.25\) on 3 images"):
        unsure.require_some()
