"""The interval of a difference: its laws, and that it is that of detectors measured anew on resampled images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import UserError
from secateur.evaluation.bootstrap import FIGURES, Difference, differences
from secateur.evaluation.matching import Boxes
from secateur.evaluation.metrics import measure
from secateur.evaluation.record import DetectionRecord
from secateur.evaluation.settings import NmsSettings

NAMES = {0: "disc", 1: "square", 2: "triangle"}


def pair(seed: int, images: int = 8, worse: float = 0.0) -> tuple[DetectionRecord, DetectionRecord]:
    """Two detectors on the same images; the second one misses and misplaces more by `worse`."""
    rng = np.random.default_rng(seed)
    count = 4 * images
    image = np.sort(rng.integers(0, images, count))
    corner = rng.uniform(0, 200, (count, 2))
    corners = np.concatenate((corner, corner + rng.uniform(15, 120, (count, 2))), axis=1)
    truths = Boxes(image, corners, rng.integers(0, 3, count), np.ones(count))
    records = []
    for loose in (0.0, worse):
        moved = corners + rng.normal(0, 2 + 10 * loose, corners.shape)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        kept = rng.random(count) > 0.1 + 0.5 * loose
        found = Boxes(image, moved, truths.classes, rng.random(count)).where(kept)
        files, shapes = [f"{n}.jpg" for n in range(images)], np.full((images, 2), 400, np.int32)
        records.append(DetectionRecord.of(files, shapes, truths, found, NAMES, NmsSettings()))
    return records[0], records[1]


def between(a: DetectionRecord, b: DetectionRecord, **how: int) -> dict[str, Difference]:
    return differences(a, {"b": b}, **how)["b"]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), worse=st.floats(0, 1))
def test_laws(seed: int, worse: float) -> None:
    a, b = pair(seed, worse=worse)
    there, back, itself = (between(*both, resamples=40, seed=seed) for both in ((a, b), (b, a), (a, a)))
    for figure in FIGURES:
        one, other, none = there[figure], back[figure], itself[figure]
        assert (none.change, none.low, none.high, none.above) == (0, 0, 0, 0) and none.verdict() == "within noise"
        assert one.low <= one.high and one.change == -other.change
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-15)
        assert one.above + other.above <= 1
        assert one.is_noise == other.is_noise
    for record, side in ((a, "reference"), (b, "value")):
        metrics = measure(record.truths, record.detections, record.shapes.astype(np.int64), NAMES).to_dict()
        for figure in FIGURES:
            assert getattr(there[figure], side) == pytest.approx(metrics[figure], rel=0, abs=1e-12)


def test_it_is_what_validations_of_resampled_images_give() -> None:
    a, b = pair(5, worse=0.3)
    found = between(a, b, resamples=30, seed=3)
    drawn = np.random.default_rng(3).multinomial(8, np.full(8, 1 / 8), size=30)
    changes = [_measured(b, weights) - _measured(a, weights) for weights in drawn]
    expected = np.percentile(changes, (2.5, 97.5), axis=0)
    for place, figure in enumerate(FIGURES):
        assert (found[figure].low, found[figure].high) == pytest.approx(tuple(expected[:, place]), abs=1e-12)
        assert found[figure].above == np.mean(np.array(changes)[:, place] > 0)


def _measured(record: DetectionRecord, weights: np.ndarray) -> np.ndarray:
    """Both figures on a data set that has image i weights[i] times."""
    copies = np.repeat(np.arange(len(weights)), weights)

    def repeated(boxes: Boxes) -> Boxes:
        places = [np.flatnonzero(boxes.image == image) for image in copies]
        chosen = np.concatenate(places)
        image = np.repeat(np.arange(len(copies)), [len(part) for part in places])
        return Boxes(image, boxes.corners[chosen], boxes.classes[chosen], boxes.scores[chosen])

    shapes = np.full((len(copies), 2), 400)
    metrics = measure(repeated(record.truths), repeated(record.detections), shapes, NAMES)
    return np.array([metrics.mAP50, metrics.mAP50_95])


def test_a_clear_difference_is_said_to_be_one() -> None:
    a, b = pair(1, images=40, worse=1.0)
    there, back = between(a, b, resamples=200)["mAP50"], between(b, a, resamples=200)["mAP50"]
    assert there.high < 0 and there.above == 0 and back.above == 1
    assert there.verdict().startswith(f"lower by {-there.change:.3f} ({-there.high:.3f} to {-there.low:.3f})")
    assert back.verdict().startswith(f"higher by {back.change:.3f} (")
    assert back.to_dict()["verdict"] == back.verdict() and back.to_dict()["change"] == back.change
    assert between(a, b, resamples=200) == between(a, b, resamples=200)
    assert between(a, b, resamples=200, seed=1)["mAP50"] != there


def test_what_cannot_be_compared_is_one_sentence() -> None:
    a, b = pair(0)
    with pytest.raises(UserError, match="disc, square, triangle and b with disc, square, cone"):
        between(a, dataclasses.replace(b, names={**NAMES, 2: "cone"}))
    with pytest.raises(UserError, match="Evaluate both on one data set"):
        between(a, pair(1)[0])
    with pytest.raises(UserError, match="--resamples is 0"):
        between(a, b, resamples=0)


def test_images_without_objects_and_detectors_without_boxes() -> None:
    a, _ = pair(0)
    nothing = a.detections.where(np.zeros(len(a.detections), bool))
    blind = dataclasses.replace(a, detections=nothing)
    assert between(a, blind, resamples=20)["mAP50"].value == 0
    empty = dataclasses.replace(a, truths=nothing)
    assert between(empty, empty, resamples=20)["mAP50"] == Difference(0, 0, 0, 0, 0, 20)
