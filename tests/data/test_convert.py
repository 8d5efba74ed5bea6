"""COCO and VOC annotations to YOLO: boxes, class ids, splits, and one sentence for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import smooth_image

from hostile_yaml import check_sentence
from secateur.data.config import load_data_config
from secateur.data.convert import coco_to_yolo, voc_to_yolo
from secateur.data.index import scan
from secateur.errors import UserError


def coco(folder: Path, **changes: object) -> Path:
    (folder / "images").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(folder / "images" / name), smooth_image(100, 200, 0))
    data: dict[str, object] = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 200, "height": 100},
            {"id": 9, "file_name": "b.jpg", "width": 200, "height": 100},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"image_id": 7, "category_id": 18, "bbox": [20, 10, 40, 30], "iscrowd": 0},
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 200, 100], "iscrowd": 1},
            {"image_id": 7, "category_id": 3, "bbox": [190, 90, 50, 50]},
            {"image_id": 7, "category_id": 3, "bbox": [10, 10, 0, 5]},
        ],
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(data | changes))
    return file


@pytest.mark.parametrize("placing", ["link", "copy"])
def test_coco(tmp_path: Path, placing: str) -> None:
    result = coco_to_yolo(coco(tmp_path / "coco"), tmp_path / "out", placing=placing)
    assert (result.images, result.boxes, result.names) == (2, 2, ("car", "dog"))
    assert "annotation 3 has no area" in result.problems[0]
    index = scan(load_data_config(result.data), "train", progress=False)
    assert index.counts.found == 1
    assert index.counts.empty == 1
    expected = [[1, 0.2, 0.25, 0.2, 0.3], [0, 0.975, 0.95, 0.05, 0.1]]
    np.testing.assert_allclose(index.labels, expected, atol=1e-6)
    assert Path(index.files[0]).is_symlink() == (placing == "link")


def test_coco_splits(tmp_path: Path) -> None:
    files = {"train": coco(tmp_path / "one"), "val": coco(tmp_path / "two")}
    config = load_data_config(coco_to_yolo(files, tmp_path / "out").data)
    assert [source.name for source in config.splits["val"]] == ["val"]
    files["val"] = coco(tmp_path / "three", categories=[{"id": 1, "name": "cat"}], annotations=[])
    with pytest.raises(UserError, match="other categories"):
        coco_to_yolo(files, tmp_path / "out2")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": None}, "no COCO annotation file"),
        ({"annotations": None}, "has no annotations"),
        ({"categories": [{"id": 1}]}, "entry 0 of categories"),
        ({"annotations": [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}]}, "annotation 0 is broken"),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 2]}]}, "annotation 0 is broken"),
        ({"images": [{"id": 1, "file_name": "c.jpg", "width": 1, "height": 1}], "annotations": []}, "c.jpg"),
    ],
)
def test_coco_mistakes(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        coco_to_yolo(coco(tmp_path / "coco", **changes), tmp_path / "out")
    with pytest.raises(UserError, match=r"none\.json"):
        coco_to_yolo(tmp_path / "none.json", tmp_path / "out")


def _images(**changes: object) -> dict[str, object]:
    return {"images": [{"id": 7, "file_name": "a.jpg", "width": 200, "height": 100} | changes], "annotations": []}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (_images(file_name="../coco/images/a.jpg"), "outside its folder"),
        (_images(file_name="/etc/passwd"), "outside its folder"),
        (_images(file_name="..\\images\\a.jpg"), "outside its folder"),
        (_images(file_name="a" * 5000), "Image aaa"),
        (_images(file_name="a\0.jpg"), "is not in"),
        (_images(id=[7]), "no id that is a number or a word"),
        (_images(width=0), "no width that is a size"),
        (_images(height=float("inf")), "no height that is a size"),
        (_images(file_name=3), "no file_name that is a text"),
        ({"categories": [{"id": "x", "name": "a"}]}, "no id that is a whole number"),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 2, float("nan"), 4]}]}, "annotation 0 is"),
        ({"annotations": [{"image_id": 7, "category_id": float("inf"), "bbox": [1, 2, 3, 4]}]}, "annotation 0"),
        ({"annotations": [3]}, "annotation 0 is broken"),
        ({"images": [{"id": n, "file_name": "a.jpg", "width": 9, "height": 9} for n in (7, 8)], "annotations": []},
         "Two images would have the labels"),
    ],
)  # fmt: skip
def test_hostile_coco(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        coco_to_yolo(coco(tmp_path / "coco", **changes), tmp_path / "out")
    check_sentence(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["coco"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    file = coco(tmp_path / "coco")
    (tmp_path / "out/images/train").mkdir(parents=True)
    (tmp_path / "out/images/train/a.jpg").write_text("mine")
    with pytest.raises(UserError, match="nothing is overwritten"):
        coco_to_yolo(file, tmp_path / "out")
    assert (tmp_path / "out/images/train/a.jpg").read_text() == "mine"


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
        ("<object>", "<width>2</width><height>2</height>", "no VOC annotation"),
        (OBJECT.format("a", 0, "x", 1, 2, 2), "<width>2</width><height>2</height>", "no VOC annotation"),
        ("", "", "size/width"),
        ("", "<width>0</width><height>0</height>", "image size 0 x 0"),
        ("", "<width>2</width><height>2</height>", "hold no object"),
        (OBJECT.format("a", 0, 1, 1, 2, 2), "<width>inf</width><height>2</height>", "no VOC annotation"),
        (OBJECT.format("a", 0, 1, 1, 2, 2), f"<width>{'9' * 300}</width><height>2</height>", "gives the image size"),
        (OBJECT.format("a", 0, 1, 1, "nan", 2), "<width>2</width><height>2</height>", "not finite"),
    ],
)
def test_voc_mistakes(tmp_path: Path, objects: str, size: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        voc_to_yolo(voc(tmp_path / "voc", objects=objects, size=size), tmp_path / "out")
    with pytest.raises(UserError, match="no VOC annotations"):
        voc_to_yolo(tmp_path / "out", tmp_path / "other")
