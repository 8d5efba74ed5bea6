"""Agreement of two detectors: one with itself is whole, and labels are not read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from law_subjects import enliven
from secateur.data.config import unlabelled_images
from secateur.data.index import scan
from secateur.errors import UserError
from secateur.evaluation.matching import Boxes
from secateur.evaluation.settings import ValSettings
from secateur.families.context import Context
from secateur.families.detection.agreement import agreement, labelled_with
from secateur.families.evaluation import agreement as of_checkpoints
from secateur.families.family import predictor_of
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.model import Detector
from secateur.networks.checkpoint import Checkpoint

SETTINGS = ValSettings(image_size=64, workers=0)


@pytest.fixture
def seeing(tiny_weights: Path) -> Detector:
    detector = load_checkpoint(tiny_weights).build()
    assert isinstance(detector, Detector)
    enliven(detector)
    with torch.no_grad():
        for last in detector.head.m:
            last.bias.view(detector.na, -1)[:, 4] += 3  # type: ignore[union-attr, operator]
    return detector


def test_a_detector_agrees_with_itself_and_less_with_a_changed_one(seeing: Detector, tiny_data: Path) -> None:
    data = unlabelled_images(tiny_data.parent / "images" / "train", seeing.names)
    context, whole = Context(64, unlabelled=data), Checkpoint.of(seeing)
    own = of_checkpoints(whole, whole, context, limit=6)
    assert own.counts["images"] == 6 and own.counts["instances"] > 0
    # Boxes of a random network may have no area; those are no labels, and count against it where it says them again.
    assert own.values["R"] == 1 and own.values["mAP50"] > 0.7
    with torch.no_grad():
        for parameter in seeing.parameters():
            parameter.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    other = of_checkpoints(whole, Checkpoint.of(seeing), context, limit=6)
    assert other.values["mAP50"] < own.values["mAP50"] - 0.05


def test_what_sees_nothing_has_nothing_to_agree_with(tiny_weights: Path, tiny_data: Path) -> None:
    blind = predictor_of(load_checkpoint(tiny_weights))
    index = scan(unlabelled_images(tiny_data.parent / "images" / "train", blind.names), "train")
    with pytest.raises(UserError, match=r"finds nothing .* agreement cannot be measured"):
        agreement(blind, blind, index, SETTINGS, progress=False)


def test_boxes_become_labels_of_their_images(tiny_data: Path) -> None:
    index = scan(unlabelled_images(tiny_data.parent / "images" / "train", {0: "a"}), "train").select([0, 1, 2])
    index = replace(index, shapes=np.array([[40, 80], [40, 80], [20, 20]], np.int32))
    corners = np.array([[8.0, 4, 24, 12], [0, 0, 80, 40], [5, 5, 15, 10]])
    boxes = Boxes(np.array([0, 0, 2]), corners, np.array([1, 0, 2]), np.ones(3))
    made = labelled_with(index, boxes)
    assert made.labels_of(0).tolist() == [[1, *np.float32([0.2, 0.2, 0.2, 0.2])], [0, 0.5, 0.5, 1, 1]]
    assert len(made.labels_of(1)) == 0 and made.labels_of(2).tolist() == [[2, 0.5, 0.375, 0.5, 0.25]]
