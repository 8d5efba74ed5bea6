"""The record of an evaluation: what it holds is what was evaluated, and a file gives it back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from secateur.cli import main
from secateur.errors import UserError
from secateur.evaluation.matching import Boxes
from secateur.evaluation.metrics import measure
from secateur.evaluation.record import DetectionRecord, record_file
from secateur.evaluation.settings import NmsSettings

NAMES = {0: "disc", 1: "square"}


def boxes(rows: list[tuple[float, ...]]) -> Boxes:
    """Rows of image, x1, y1, x2, y2, class, score."""
    array = np.asarray(rows, dtype=float).reshape(-1, 7)
    return Boxes(array[:, 0].astype(np.int64), array[:, 1:5], array[:, 5].astype(np.int64), array[:, 6])


TRUTHS = boxes([(0, 10, 10, 50, 50, 0, 1), (0, 60, 60, 90, 90, 1, 1), (2, 0, 0, 20, 20, 0, 1)])
FOUND = boxes(
    [(0, 11, 10, 50, 50, 0, 0.75), (0, 60, 60, 90, 90, 0, 0.5), (0, 10, 10, 50, 50, 0, 0.25), (1, 0, 0, 9, 9, 1, 0.125)]
)


def record(root: Path) -> DetectionRecord:
    files = [str(root / "images/a.jpg"), str(root / "images/b.jpg"), "/elsewhere/c.jpg"]
    shapes = np.array([[100, 100], [50, 80], [40, 40]], np.int32)
    made = DetectionRecord.of(files, shapes, TRUTHS, FOUND, NAMES, NmsSettings())
    return made.of_data(root / "data.yaml", "val", root)


def test_a_file_gives_the_record_back(tmp_path: Path) -> None:
    before, file = record(tmp_path), record_file(tmp_path / "reports", "test")
    before.save(file)
    after = DetectionRecord.load(file)
    assert file.name == "detections-test.npz" and record_file(tmp_path).name == "detections.npz"
    assert after.files == ("images/a.jpg", "images/b.jpg", "/elsewhere/c.jpg")
    assert [after.image_file(0), after.image_file(2)] == [tmp_path / "images/a.jpg", Path("/elsewhere/c.jpg")]
    assert (after.data, after.split, after.names) == ("data.yaml", "val", NAMES)
    assert (after.confidence, after.iou, after.max_det) == (0.001, 0.6, 300)
    assert after.truth_offsets.tolist() == [0, 2, 2, 3] and after.detection_offsets.tolist() == [0, 3, 4, 4]
    for mine, theirs in ((before.truths, after.truths), (before.detections, after.detections)):
        for name in ("image", "corners", "classes", "scores"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name)), name
    assert after.signature == before.signature
    assert not [entry for entry in file.parent.iterdir() if entry != file]


def test_the_signature_is_that_of_images_and_objects(tmp_path: Path) -> None:
    one, moved = record(tmp_path), record(tmp_path / "copy")
    assert one.signature == moved.signature
    nothing = dataclasses.replace(one, detections=boxes([]), names={0: "x", 1: "y"})
    assert nothing.signature == one.signature
    corners = TRUTHS.corners.copy()
    corners[0, 0] += 1
    other = dataclasses.replace(one, truths=dataclasses.replace(TRUTHS, corners=corners))
    renamed = dataclasses.replace(one, files=("images/d.jpg", *one.files[1:]))
    assert len({one.signature, other.signature, renamed.signature}) == 3


def test_matches_say_which_object_each_detection_finds(tmp_path: Path) -> None:
    matched = record(tmp_path).matched((0.5, 0.99))
    # The more confident box takes the object where it overlaps enough; the square is called a disc.
    assert matched.truth.tolist() == [[0, -1, -1, -1], [-1, -1, 0, -1]]
    assert matched.found.tolist() == [[True, False, False], [True, False, False]]
    assert matched.hits.sum(axis=1).tolist() == [1, 1]
    assert record(tmp_path).matched((0.99,), confidence=0.3).found.any() == np.False_


@pytest.mark.parametrize("damage", ["cut", "text", "offsets", "class", "format", "missing"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "detections.npz"
    record(tmp_path).save(file)
    with np.load(file) as data:
        arrays = dict(data)
    about = json.loads(arrays["about"].tobytes())
    if damage == "offsets":
        arrays["truth_offsets"] = np.array([0, 3, 2, 3])
    if damage == "class":
        arrays["detection_classes"] = np.array([0, 0, 0, 7])
    if damage == "format":
        arrays["about"] = np.frombuffer(json.dumps({**about, "format": 99}).encode(), np.uint8)
    np.savez_compressed(file, **arrays)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-200])
    if damage == "text":
        file.write_text("no archive")
    if damage == "missing":
        file.unlink()
    words = "Cannot read" if damage == "missing" else "is not a detection record"
    with pytest.raises(UserError, match=words):
        DetectionRecord.load(file)


def test_val_writes_what_it_measured(tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["val", "--weights", str(tiny_weights), "--data", str(tiny_data), "--image-size", "64", "--workers", "0"]
    main([*command, "--task", "test", "--no-plots", "--json"])
    said = json.loads(capsys.readouterr().out)
    kept = DetectionRecord.load(Path(said["folder"]) / "detections-test.npz")
    assert (kept.data, kept.split, len(kept)) == (tiny_data.name, "test", 8)
    assert all(kept.image_file(number).is_file() for number in range(8)) and kept.root == str(tiny_data.parent)
    assert not any(Path(name).is_absolute() for name in kept.files)
    metrics = measure(kept.truths, kept.detections, kept.shapes.astype(np.int64), kept.names)
    assert metrics.to_dict() == said["metrics"]
    assert said["ap_by_size"] == kept.ap_by_size and set(kept.ap_by_size) == {"AP small", "AP medium", "AP large"}
