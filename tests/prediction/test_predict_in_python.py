"""`secateur.predict`: detections of supervision, for anything that detects."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import supervision
from bright_rectangles import GREEN, RED, BrightRectangles, picture

import secateur
from secateur.detector.checkpoint import load_checkpoint
from secateur.errors import UserError

SCENE = picture(80, 160, (RED, (10, 20, 60, 70)), (GREEN, (100, 0, 120, 20)))


def test_one_picture_gives_one_result_and_several_give_a_list(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "scene.png"), SCENE)
    predictor = BrightRectangles()
    for one in (SCENE, tmp_path / "scene.png", str(tmp_path / "scene.png")):
        found = secateur.predict(predictor, one, image_size=160)
        assert isinstance(found, supervision.Detections)
        assert found.xyxy.tolist() == [[10, 20, 60, 70], [100, 0, 120, 20]]
        assert list(found.data["class_name"]) == ["red", "green"]
        assert found.class_id is not None and found.class_id.tolist() == [0, 1]
    several = secateur.predict(predictor, [SCENE, tmp_path / "scene.png", picture(64, 64)], image_size=160)
    assert [len(found) for found in several] == [2, 2, 0]
    assert secateur.predict(predictor, []) == []


def test_options_are_those_of_the_command() -> None:
    found = secateur.predict(BrightRectangles(), SCENE, classes=("green",), conf=0.4, batch_size=1)
    assert list(found.data["class_name"]) == ["green"]
    assert len(secateur.predict(BrightRectangles(), SCENE, max_det=1)) == 1
    with pytest.raises(TypeError, match="unknown option 'shape'"):
        secateur.predict(BrightRectangles(), SCENE, shape=3)


def test_a_file_is_asked_like_its_checkpoint(tiny_weights: Path, tiny_data: Path) -> None:
    pictures = sorted((tiny_data.parent / "images" / "val").iterdir())[:3]
    checkpoint = load_checkpoint(tiny_weights)
    first = secateur.predict(checkpoint, pictures, image_size=64, conf=0.001)
    second = secateur.predict(tiny_weights, pictures, image_size=64, conf=0.001)
    assert sum(map(len, first)) > 0
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.xyxy, other.xyxy) and np.array_equal(one.class_id, other.class_id)


def test_what_cannot_be_a_picture_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("nothing of the kind")
    with pytest.raises(UserError, match=r"text\.jpg: is not an image or is damaged\."):
        secateur.predict(BrightRectangles(), tmp_path / "text.jpg")
    with pytest.raises(UserError, match=r"gone\.jpg: does not exist\."):
        secateur.predict(BrightRectangles(), ["gone.jpg"])
    with pytest.raises(UserError, match=r"BGR array uint8 \[H, W, 3\], not float32 \[4, 4\]"):
        secateur.predict(BrightRectangles(), np.zeros((4, 4), np.float32))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Nothing here runs"):
        secateur.predict(tmp_path / "text.jpg", SCENE)


def test_a_predictor_of_one_size_says_so(caplog: pytest.LogCaptureFixture) -> None:
    predictor = BrightRectangles((96, 160))
    secateur.predict(predictor, SCENE, image_size=640)
    assert predictor.shapes == [(1, 3, 96, 160)]
    assert "takes images of 96 x 160 pixels alone" in caplog.text


def test_without_supervision_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match=r"pip install 'secateur\[predict\]'"):
        secateur.predict(BrightRectangles(), SCENE)
