"""Average precision of weighted images, and by size of objects, against COCO's engine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.evaluation.average_precision import THRESHOLDS, ap_by_size, ranked
from secateur.evaluation.coco import evaluate_coco
from secateur.evaluation.matching import Boxes

IMAGES, CLASSES = 6, 3


def random_boxes(rng: np.random.Generator, count: int, *, whole: bool) -> Boxes:
    """Boxes of all sizes, often on one another; whole numbers make overlaps that are exactly a threshold."""
    corner, sides = rng.uniform(0, 60, (count, 2)), np.exp(rng.uniform(2.3, 5.3, (count, 2)))
    corners = np.concatenate((corner, corner + sides), axis=1)
    corners = corners.round(-1) + np.array([0, 0, 10, 10]) if whole else corners
    image = np.sort(rng.integers(0, IMAGES, count))
    return Boxes(image, corners, rng.integers(0, CLASSES, count), rng.random(count))


def near(rng: np.random.Generator, truths: Boxes, *, whole: bool) -> Boxes:
    """Detections: the objects, moved a little, several of each."""
    many = np.repeat(np.arange(len(truths)), 3)
    step = 10 if whole else 0.1
    corners = truths.corners[many] + (rng.normal(0, 8, (len(many), 4)) / step).round() * step
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + step)
    return Boxes(truths.image[many], corners, truths.classes[many], rng.random(len(many)))


def joined(a: Boxes, b: Boxes) -> Boxes:
    order = np.argsort(np.concatenate((a.image, b.image)), kind="stable")
    parts = [np.concatenate(pair)[order] for pair in zip(vars(a).values(), vars(b).values(), strict=True)]
    return Boxes(*parts)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_that_of_the_engine(seed: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    truths = random_boxes(rng, 40, whole=whole)
    found = joined(near(rng, truths, whole=whole), random_boxes(rng, 60, whole=whole))
    shapes, classes = np.full((IMAGES, 2), 400), np.unique(truths.classes)
    engine = evaluate_coco(truths, found, shapes, classes, max_det=300, twelve=True)
    weights = np.ones((1, IMAGES), np.int64)
    for row, of_class in enumerate(ranked(truths, found, IMAGES).values()):
        np.testing.assert_allclose(of_class.average_precision(weights)[0], engine.ap[:, row], rtol=0, atol=1e-12)
    # The engine takes the best 100 of an image and class, which are all here.
    keys = {"AP small": "APs", "AP medium": "APm", "AP large": "APl"}
    sizes = {name: -1.0 if value is None else value for name, value in ap_by_size(truths, found, IMAGES).items()}
    assert sizes == pytest.approx({name: engine.twelve[key] for name, key in keys.items()}, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    weights=st.lists(st.integers(0, 3), min_size=IMAGES, max_size=IMAGES).filter(any),
)
def test_a_weight_is_an_image_that_is_there_so_often(seed: int, weights: list[int]) -> None:
    rng = np.random.default_rng(seed)
    truths = random_boxes(rng, 12, whole=False)
    found = joined(near(rng, truths, whole=False), random_boxes(rng, 12, whole=False))
    copies = [image for image, weight in enumerate(weights) for _ in range(weight)]

    def repeated(boxes: Boxes) -> Boxes:
        places = [np.flatnonzero(boxes.image == image) for image in copies]
        image = np.repeat(np.arange(len(copies)), [len(part) for part in places])
        chosen = np.concatenate(places).astype(int)
        return Boxes(image, boxes.corners[chosen], boxes.classes[chosen], boxes.scores[chosen])

    expected = ranked(repeated(truths), repeated(found), len(copies))
    for number, of_class in ranked(truths, found, IMAGES).items():
        ap = of_class.average_precision(np.array([weights]))[0]
        if number in expected:
            whole = expected[number].average_precision(np.ones((1, len(copies)), np.int64))[0]
            np.testing.assert_allclose(ap, whole, rtol=0, atol=1e-12)
        else:
            assert np.isnan(ap).all()


def test_small_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    truths = random_boxes(rng, 30, whole=False)
    (one, *_) = ranked(truths, near(rng, truths, whole=False), IMAGES).values()
    weights = rng.integers(0, 4, (50, IMAGES))
    whole = one.average_precision(weights)
    monkeypatch.setattr("secateur.evaluation.average_precision._CHUNK", 100)
    assert np.array_equal(one.average_precision(weights), whole, equal_nan=True)


def test_no_object_and_no_detection() -> None:
    nothing = random_boxes(np.random.default_rng(0), 0, whole=False)
    some = random_boxes(np.random.default_rng(0), 9, whole=False)
    assert ranked(nothing, some, IMAGES) == {}
    assert ap_by_size(nothing, some, IMAGES) == {"AP small": None, "AP medium": None, "AP large": None}
    for of_class in ranked(some, nothing, IMAGES).values():
        assert of_class.average_precision(np.ones((2, IMAGES), np.int64)).tolist() == [[0.0] * len(THRESHOLDS)] * 2
    assert set(ap_by_size(some, nothing, IMAGES).values()) <= {0.0, None}
