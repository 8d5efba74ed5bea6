"""What is written: label files, lines of JSON, crops, drawn images and videos."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from bright_rectangles import GREEN, RED, picture

from secateur.errors import UserError
from secateur.prediction.detections import to_detections
from secateur.prediction.drawing import Album, Drawing, window
from secateur.prediction.files import LONGEST, crop_folders, json_line, write_crops, write_image, write_labels
from secateur.prediction.media import Frame
from secateur.prediction.predicting import Prediction
from secateur.prediction.settings import DrawSettings, WriteSettings
from secateur.prediction.sources import Medium
from secateur.prediction.writing import opened_writers

NAMES = {0: "red", 1: "green/leaf"}
PIXELS = picture(100, 200, (RED, (20, 10, 60, 50)), (GREEN, (120, 40, 200, 100)))
BOXES = torch.tensor([[20, 10, 60, 50, 0.875, 0], [120, 40, 200, 100, 0.5, 1]], dtype=torch.float32)
SHOT = Medium("image", "in/shot.png", "shot")
CLIP = Medium("video", "in/clip.mov", "clip")


def found(medium: Medium = SHOT, number: int | None = None, boxes: torch.Tensor = BOXES) -> Prediction:
    return Prediction(Frame(medium, PIXELS, number, 12.5 if number else 0.0), boxes)


def test_label_files_are_those_of_yolo(tmp_path: Path) -> None:
    write_labels(tmp_path, found(), confidence=False)
    assert (tmp_path / "shot.txt").read_text() == "0 0.2 0.3 0.2 0.4\n1 0.8 0.7 0.4 0.6\n"
    write_labels(tmp_path, found(CLIP, 7), confidence=True)
    assert (tmp_path / "clip_7.txt").read_text() == "0 0.2 0.3 0.2 0.4 0.875\n1 0.8 0.7 0.4 0.6 0.5\n"
    write_labels(tmp_path, found(CLIP, 8, BOXES[:0]), confidence=True)
    assert not (tmp_path / "clip_8.txt").exists()


def test_numbers_of_label_files_have_six_digits(tmp_path: Path) -> None:
    write_labels(tmp_path, found(boxes=torch.tensor([[1, 2, 34.3333, 50, 1 / 3, 0]])), confidence=True)
    assert (tmp_path / "shot.txt").read_text() == "0 0.0883333 0.26 0.166667 0.48 0.333333\n"


def test_a_line_of_json() -> None:
    row = json.loads(json_line(found(CLIP, 7), NAMES))
    assert row == {
        "file": "in/clip.mov",
        "frame": 7,
        "height": 100,
        "width": 200,
        "detections": [
            {"class": 0, "name": "red", "confidence": 0.875, "box": [20.0, 10.0, 60.0, 50.0]},
            {"class": 1, "name": "green/leaf", "confidence": 0.5, "box": [120.0, 40.0, 200.0, 100.0]},
        ],
    }
    assert "frame" not in json.loads(json_line(found(), NAMES))


def test_crops(tmp_path: Path) -> None:
    write_crops(tmp_path, found(), crop_folders(NAMES))
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.jpg")) == [
        "green_leaf/shot-2.jpg",
        "red/shot-1.jpg",
    ]
    crop = cv2.imread(str(tmp_path / "red" / "shot-1.jpg"))
    assert crop is not None and crop.shape == (40, 40, 3)
    assert np.abs(crop.astype(int) - RED).max() < 30


AWKWARD = {
    0: "a/b", 1: "a_b", 2: "..", 3: "CON", 4: "con.x", 5: "x" * 400, 6: "x" * 399, 7: "", 8: "\0", 9: "red.",
    10: "Red", 11: "red", 12: "é" * 90, 13: "\ud800", 14: "a\\b", 15: "LPT1", 16: "teddy bear", 17: "7", 18: "e\u0301",
}  # fmt: skip


def test_every_class_has_a_folder_of_its_own_whatever_it_is_called(tmp_path: Path, caplog) -> None:
    folders = crop_folders(AWKWARD)
    assert {number: folders[number] for number in (0, 1, 2, 3, 4, 7, 8, 10, 11, 14, 15, 16, 17)} == {
        0: "a_b-0", 1: "a_b", 2: "2", 3: "_CON", 4: "_con.x", 7: "7-7", 8: "_", 10: "Red", 11: "red-11",
        14: "a_b-14", 15: "_LPT1", 16: "teddy bear", 17: "7",
    }  # fmt: skip
    assert len({folder.casefold() for folder in folders.values()}) == len(AWKWARD)
    assert folders[5].startswith("x" * LONGEST) and len(folders[12].encode()) == LONGEST
    for number, folder in folders.items():
        assert Path(folder).name == folder and not folder.endswith((".", " "))
        write_crops(tmp_path, found(boxes=torch.tensor([[0.0, 0, 9, 9, 0.5, number]])), folders)
    assert {file.parent.name for file in tmp_path.rglob("*.jpg")} == set(folders.values())
    assert caplog.text.count("Class names that are not valid folder names are changed for crops: 'a/b' in a_b-0, ") == 1


def test_folders_are_told_only_where_they_differ(caplog) -> None:
    assert crop_folders({0: "cat", 1: "Hund"}) == {0: "cat", 1: "Hund"}
    assert caplog.text == ""


def test_a_box_without_area_at_the_edge_is_cropped_too(tmp_path: Path) -> None:
    write_crops(
        tmp_path,
        found(boxes=torch.tensor([[200.0, 100, 200, 100, 0.5, 0], [3, 4, 3.5, 4, 0.5, 0]])),
        crop_folders(NAMES),
    )
    assert [cv2.imread(str(tmp_path / "red" / f"shot-{k}.jpg")).shape for k in (1, 2)] == [(1, 1, 3)] * 2


def test_detections_of_supervision() -> None:
    detections = to_detections(BOXES, NAMES)
    assert detections.xyxy.tolist() == BOXES[:, :4].tolist()
    assert detections.confidence is not None and detections.confidence.tolist() == [0.875, 0.5]
    assert detections.class_id is not None and detections.class_id.tolist() == [0, 1]
    assert list(detections.data["class_name"]) == ["red", "green/leaf"]
    empty = to_detections(BOXES[:0], NAMES)
    assert len(empty) == 0 and len(empty.data["class_name"]) == 0


def test_boxes_are_drawn_where_they_are_in_the_colour_of_their_class() -> None:
    drawn = Drawing(NAMES, DrawSettings(line_thickness=2, hide_labels=True))(found())
    changed = (drawn != PIXELS).any(2)
    edges = np.zeros_like(changed)
    for x1, y1, x2, y2 in BOXES[:, :4].int().tolist():
        edges[max(y1 - 2, 0) : y2 + 3, max(x1 - 2, 0) : x2 + 3] = True
        edges[y1 + 3 : y2 - 2, x1 + 3 : x2 - 2] = False
    assert changed.any() and not changed[~edges].any()
    assert (drawn[10, 30] != drawn[40, 150]).any()
    assert (picture(100, 200, (RED, (20, 10, 60, 50)), (GREEN, (120, 40, 200, 100))) == PIXELS).all()


def test_names_and_confidences_are_drawn_or_not() -> None:
    ways = [
        DrawSettings(),
        DrawSettings(hide_conf=True),
        DrawSettings(hide_labels=True),
        DrawSettings(line_thickness=5),
    ]
    pictures = [Drawing(NAMES, way)(found()) for way in ways]
    changed = [int((drawn != PIXELS).sum()) for drawn in pictures]
    assert changed[2] < changed[1] < changed[0] < changed[3]


def test_lines_grow_with_the_picture() -> None:
    def width(side: int) -> int:
        pixels = np.zeros((side, side, 3), np.uint8)
        box = torch.tensor([[side / 4, side / 4, side / 2, side / 2, 0.5, 0]])
        drawn = Drawing(NAMES, DrawSettings(hide_labels=True))(Prediction(Frame(SHOT, pixels), box))
        return int(drawn[side * 3 // 8, : side * 3 // 8].any(1).sum())

    assert width(100) <= 3 and 9 <= width(3000) <= 12


def test_a_window_shows_every_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[np.ndarray] = []
    monkeypatch.setenv("DISPLAY", ":0")
    for name, stand_in in (
        ("namedWindow", lambda *_: None),
        ("imshow", lambda _, pixels: shown.append(pixels)),
        ("waitKey", lambda _: -1),
    ):
        monkeypatch.setattr(cv2, name, stand_in)
    with opened_writers(None, NAMES, WriteSettings(save=False), DrawSettings(), view=True) as writers:
        for write in writers:
            write(found())
    assert len(shown) == 1 and (shown[0] != PIXELS).any()


def test_without_windows_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise cv2.error("The function is not implemented.")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", refuse)
    with pytest.raises(UserError, match="cannot show windows here"):
        window()


def test_an_album_has_pictures_and_videos(tmp_path: Path) -> None:
    other = Medium("stream", "rtsp://x/y", "y")
    with Album(tmp_path) as album:
        album.add(Frame(SHOT, PIXELS), PIXELS)
        album.add(Frame(Medium("image", "a.dng", "a"), PIXELS), PIXELS)
        for number in range(1, 6):
            album.add(Frame(CLIP, PIXELS, number, 12.5), PIXELS)
        assert not (tmp_path / "clip.mp4").exists()  # nothing half-written has the name
        album.add(Frame(other, PIXELS, 1, 5.0), PIXELS)
        assert (tmp_path / "clip.mp4").exists()
        album.add(Frame(other, PIXELS[:50], 2, 5.0), PIXELS[:50])  # the camera changes its size
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.jpg", "clip.mp4", "shot.png", "y.mp4"]
    assert (cv2.imread(str(tmp_path / "shot.png")) == PIXELS).all()
    for name, rate, count in (("clip.mp4", 12.5, 5), ("y.mp4", 5.0, 2)):
        video = cv2.VideoCapture(str(tmp_path / name))
        assert (video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT)) == (rate, count)
        assert np.abs(video.read()[1].astype(int) - PIXELS).mean() < 6


def test_a_failure_leaves_no_half_video(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Album(tmp_path) as album:
        album.add(Frame(CLIP, PIXELS, 1, 12.5), PIXELS)
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_each_writer_gets_every_prediction(tmp_path: Path) -> None:
    lines = io.StringIO()
    every = WriteSettings(save_txt=True, save_conf=True, save_crop=True, save_json=True)
    with opened_writers(tmp_path, NAMES, every, DrawSettings(), lines=lines) as writers:
        for number in (1, 2):
            for write in writers:
                write(found(CLIP, number))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip.mp4", "crops", "labels", "predictions.jsonl"]
    assert (tmp_path / "predictions.jsonl").read_text() == lines.getvalue()
    assert [json.loads(line)["frame"] for line in lines.getvalue().splitlines()] == [1, 2]


def test_a_picture_too_large_for_its_format_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"long\.jpg: 70000 x 1 pixels"):
        write_image(tmp_path / "long.jpg", np.zeros((1, 70000, 3), np.uint8))
