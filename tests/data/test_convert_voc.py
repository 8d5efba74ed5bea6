"""VOC annotations to YOLO: boxes, class ids, splits, and one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import block, smooth_image, turned

from secateur.data.config import load_data_config
from secateur.data.convert import voc_to_yolo
from secateur.data.index import scan
from secateur.errors import UserError

OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult>"
    "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def voc(folder: Path, *, objects: str, stem: str = "x", size: str = "<width>200</width><height>100</height>") -> Path:
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "JPEGImages" / f"{stem}.jpg"), smooth_image(100, 200, 0))
    text = f"<annotation><filename>{stem}.png</filename><size>{size}</size>{objects}</annotation>"
    (folder / "Annotations" / f"{stem}.xml").write_text(text)
    return folder


def test_voc(tmp_path: Path) -> None:
    objects = OBJECT.format("person", 0, 21, 11, 60, 40) + OBJECT.format("dog", 1, 1, 1, 200, 100)
    folder = voc(tmp_path / "voc", objects=objects)
    voc(folder, objects="", stem="y")
    result = voc_to_yolo(folder, tmp_path / "out")
    index = scan(load_data_config(result.data), "train", progress=False)
    assert result.names == ("dog", "person")
    np.testing.assert_allclose(index.labels, [[1, 0.2, 0.25, 0.2, 0.3], [0, 0.5, 0.5, 1, 1]], atol=1e-6)
    easy = voc_to_yolo(folder, tmp_path / "easy", names=["person"], keep_difficult=False)
    assert (easy.boxes, easy.names) == (1, ("person",))
    assert "class dog" in easy.problems[0]


@pytest.mark.parametrize("name", ["/etc/passwd", "../../x.png", "C:\\x.png", "a" * 5000 + ".png"])
def test_the_file_name_of_a_voc_annotation_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    folder = voc(tmp_path / "voc", objects=OBJECT.format("dog", 0, 1, 1, 20, 10))
    file = folder / "Annotations" / "x.xml"
    file.write_text(file.read_text().replace("x.png", name))
    voc_to_yolo(folder, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out/images/train").iterdir()] == ["x.jpg"]


def test_voc_boxes_that_were_drawn_before_an_exif_turn_are_turned(tmp_path: Path) -> None:
    size = "<width>60</width><height>40</height>"
    folder = voc(tmp_path / "voc", objects=OBJECT.format("dog", 0, 19, 13, 30, 20), size=size)
    turned(folder / "JPEGImages" / "x.jpg", 6)
    result = voc_to_yolo(folder, tmp_path / "out")
    index = scan(load_data_config(result.data), "train", progress=False)
    np.testing.assert_allclose(index.labels[0, 1:], [0.6, 0.4, 0.2, 0.2], atol=1e-6)
    np.testing.assert_allclose(index.labels[0, 1:], block(index.files[0]), atol=0.02)
    assert (
        "x.jpg: the annotation has the size 60 x 40, but after its EXIF rotation the image has 40 x 60; "
        "its boxes are rotated" in result.problems[0]
    )


def test_voc_annotations_of_one_name_and_classes_that_are_named_twice_are_refused(tmp_path: Path) -> None:
    folder = voc(tmp_path / "voc", objects=OBJECT.format("dog", 0, 1, 1, 20, 10))
    with pytest.raises(UserError, match="The class name 'dog' is a duplicate"):
        voc_to_yolo(folder, tmp_path / "out", names=["dog", "cat", "dog"])
    (folder / "Annotations" / "more").mkdir()
    (folder / "Annotations" / "more" / "x.xml").write_text((folder / "Annotations" / "x.xml").read_text())
    with pytest.raises(UserError, match=r"x\.xml and .*x\.xml have the same name\. Rename one"):
        voc_to_yolo(folder, tmp_path / "out")


def test_voc_image_sets(tmp_path: Path) -> None:
    folder = voc(tmp_path / "voc", objects=OBJECT.format("a", 0, 1, 1, 9, 9))
    voc(folder, objects=OBJECT.format("b", 0, 1, 1, 9, 9), stem="y")
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text("x\n")
    (folder / "ImageSets/Main/val.txt").write_text("y\n")
    config = load_data_config(voc_to_yolo(folder, tmp_path / "out").data)
    assert [len(scan(config, split, progress=False)) for split in ("train", "val")] == [1, 1]
    (folder / "ImageSets/Main/val.txt").write_text("z\n")
    with pytest.raises(UserError, match="names z"):
        voc_to_yolo(folder, tmp_path / "out2")


@pytest.mark.parametrize(
    ("objects", "size", "told"),
    [
        ("<object>", "<width>2</width><height>2</height>", "is not a valid VOC annotation"),
        (OBJECT.format("a", 0, "x", 1, 2, 2), "<width>2</width><height>2</height>", "is not a valid VOC annotation"),
        ("", "", "size/width"),
        ("", "<width>0</width><height>0</height>", "image size 0 x 0"),
        ("", "<width>2</width><height>2</height>", "have no objects"),
        (OBJECT.format("a", 0, 1, 1, 2, 2), "<width>inf</width><height>2</height>", "is not a valid VOC annotation"),
        (OBJECT.format("a", 0, 1, 1, 2, 2), f"<width>{'9' * 300}</width><height>2</height>", "has the image size"),
        (OBJECT.format("a", 0, 1, 1, "nan", 2), "<width>2</width><height>2</height>", "not finite"),
    ],
)
def test_voc_mistakes(tmp_path: Path, objects: str, size: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        voc_to_yolo(voc(tmp_path / "voc", objects=objects, size=size), tmp_path / "out")
    with pytest.raises(UserError, match="has no VOC annotations"):
        voc_to_yolo(tmp_path / "out", tmp_path / "other")


def test_a_byte_order_mark_in_an_image_set_is_read_over(tmp_path: Path) -> None:
    folder = voc(tmp_path / "voc", objects=OBJECT.format("a", 0, 1, 1, 9, 9))
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_bytes(b"\xef\xbb\xbfx\r\n")
    assert voc_to_yolo(folder, tmp_path / "out2").images == 1
    (folder / "ImageSets/Main/train.txt").write_bytes("x\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"Cannot read the image set .*train\.txt .*\. Save it as UTF-8 text"):
        voc_to_yolo(folder, tmp_path / "out3")
