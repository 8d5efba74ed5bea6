"""COCO annotations to YOLO: boxes, class ids, splits, and one sentence for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import block, smooth_image, turned
from PIL import Image as Pillow

from hostile_yaml import check_sentence
from secateur.data.config import load_data_config
from secateur.data.convert import coco_to_yolo
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
    with pytest.raises(UserError, match="different categories"):
        coco_to_yolo(files, tmp_path / "out2")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": None}, "not a COCO annotation file"),
        ({"annotations": None}, "has no annotations"),
        ({"categories": [{"id": 1}]}, "entry 0 of categories"),
        ({"annotations": [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}]}, "annotation 0 is invalid"),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 2]}]}, "annotation 0 is invalid"),
        ({"images": [{"id": 1, "file_name": "c.jpg", "width": 1, "height": 1}], "annotations": []}, "c.jpg"),
    ],
)
def test_coco_mistakes(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        coco_to_yolo(coco(tmp_path / "coco", **changes), tmp_path / "out")
    with pytest.raises(UserError, match=r"none\.json"):
        coco_to_yolo(tmp_path / "none.json", tmp_path / "out")


def one_image(folder: Path, size: tuple[int, int], *boxes: list[float]) -> Path:
    """A COCO file of the image `a.jpg`, with a stated size and boxes."""
    data = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": size[0], "height": size[1]}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"image_id": 7, "category_id": 1, "bbox": box} for box in boxes],
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(data))
    return file


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_that_were_drawn_before_an_exif_turn_are_turned(tmp_path: Path, orientation: int) -> None:
    turned(tmp_path / "a.jpg", orientation)
    stated = one_image(tmp_path, (60, 40), [18, 12, 12, 8])
    result = coco_to_yolo(stated, tmp_path / "out")
    index = scan(load_data_config(result.data), "train", progress=False)
    if orientation >= 5:  # the width becomes the height: the annotation was made without the turn
        np.testing.assert_allclose(index.labels[0, 1:], block(index.files[0]), atol=0.02)
        assert (
            "a.jpg: the annotation has the size 60 x 40, but after its EXIF rotation the image has 40 x 60; "
            "its boxes are rotated" in result.problems[0]
        )
    else:  # the size is that of the image as it is read
        np.testing.assert_allclose(index.labels[0, 1:], [0.4, 0.4, 0.2, 0.2], atol=1e-6)
        told = "its EXIF data rotate it without changing the size; its boxes are treated as those of the rotated image"
        assert result.problems == ((f"{tmp_path}/a.jpg: {told}",) if orientation > 1 else ())
    if orientation == 6:
        np.testing.assert_allclose(index.labels[0, 1:3], [0.6, 0.4], atol=1e-6)


@pytest.mark.parametrize("orientation", [2, 3, 4])
@pytest.mark.parametrize("stored", [True, False])
def test_what_the_other_images_are_decides_where_a_turn_keeps_the_size(
    tmp_path: Path, orientation: int, stored: bool
) -> None:
    turned(tmp_path / "a.jpg", 8)
    turned(tmp_path / "b.jpg", orientation)
    sizes, box = ([(60, 40), (60, 40)], [18, 12, 12, 8]) if stored else ([(40, 60), (60, 40)], [12, 30, 8, 12])
    data = {
        "images": [{"id": n, "file_name": f"{'ab'[n]}.jpg", "width": w, "height": h} for n, (w, h) in enumerate(sizes)],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"image_id": n, "category_id": 1, "bbox": [18, 12, 12, 8] if n else box} for n in (0, 1)],
    }
    (tmp_path / "instances.json").write_text(json.dumps(data))
    result = coco_to_yolo(tmp_path / "instances.json", tmp_path / "out")
    index = scan(load_data_config(result.data), "train", progress=False)
    np.testing.assert_allclose(index.labels[0, 1:], block(index.files[0]), atol=0.02)
    np.testing.assert_allclose(
        index.labels[1, 1:], block(index.files[1]) if stored else [0.4, 0.4, 0.2, 0.2], atol=0.02
    )
    assert len(result.problems) == (2 if stored else 0)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_other_formats_are_turned_where_opencv_turns_them(tmp_path: Path, suffix: str) -> None:
    turned(tmp_path / "a.jpg", 6)
    image = Pillow.open(tmp_path / "a.jpg")
    image.save(tmp_path / f"a.{suffix}", exif=image.getexif(), **({"lossless": True} if suffix == "webp" else {}))
    file = one_image(tmp_path, (60, 40), [18, 12, 12, 8])
    file.write_text(file.read_text().replace("a.jpg", f"a.{suffix}"))
    index = scan(load_data_config(coco_to_yolo(file, tmp_path / "out").data), "train", progress=False)
    np.testing.assert_allclose(index.labels[0, 1:], block(index.files[0]), atol=0.02)


@pytest.mark.parametrize(
    ("size", "problem"), [((40, 60), ""), ((60, 40), "its boxes are already those of the rotated image")]
)
def test_boxes_that_were_drawn_after_an_exif_turn_stay(tmp_path: Path, size: tuple[int, int], problem: str) -> None:
    turned(tmp_path / "a.jpg", 6)
    # The second reaches out of the stored image, which is 40 high, and not out of the turned one.
    result = coco_to_yolo(one_image(tmp_path, size, [20, 18, 8, 12], [0, 30, 20, 30]), tmp_path / "out")
    index = scan(load_data_config(result.data), "train", progress=False)
    np.testing.assert_allclose(index.labels[0, 1:], block(index.files[0]), atol=0.02)
    np.testing.assert_allclose(index.labels[1, 1:], [0.25, 0.75, 0.5, 0.5], atol=1e-6)
    assert [problem in told for told in result.problems] == ([True] if problem else [])


@pytest.mark.parametrize("size", [(120, 80), (40, 60), (90, 50)])
def test_boxes_count_in_pixels_of_the_image_and_another_stated_size_is_named(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    turned(tmp_path / "a.jpg", 1)
    result = coco_to_yolo(one_image(tmp_path, size, [18, 12, 12, 8], [30, 20, 30, 20]), tmp_path / "out")
    index = scan(load_data_config(result.data), "train", progress=False)
    np.testing.assert_allclose(index.labels[:, 1:], [[0.4, 0.4, 0.2, 0.2], [0.75, 0.75, 0.5, 0.5]], atol=1e-6)
    told = (
        f"a.jpg: the annotation has the size {size[0]} x {size[1]}, but the image has 60 x 40; "
        "its boxes are treated as pixels of the image"
    )
    assert len(result.problems) == 1
    assert result.problems[0].endswith(told)


def test_images_that_were_scaled_after_the_annotation(tmp_path: Path) -> None:
    """Boxes that reach out of the images, and none out of the stated sizes, are in pixels of the stated ones."""
    turned(tmp_path / "a.jpg", 1)
    result = coco_to_yolo(one_image(tmp_path, (120, 80), [36, 24, 24, 16], [60, 40, 60, 40]), tmp_path / "out")
    index = scan(load_data_config(result.data), "train", progress=False)
    np.testing.assert_allclose(index.labels[:, 1:], [[0.4, 0.4, 0.2, 0.2], [0.75, 0.75, 0.5, 0.5]], atol=1e-6)
    assert "treated as pixels of the size in the annotation, because some exce" in result.problems[0]


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = one_image(tmp_path, (60, 40), [18, 12, 12, 8])
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    result = coco_to_yolo(file, tmp_path / "out")
    assert result.problems == (f"{tmp_path}/a.jpg: is not an image or is damaged; the size in the annotation is used",)
    assert (tmp_path / "out/labels/train/a.txt").read_text() == "0 0.400000 0.400000 0.200000 0.200000\n"


GROUPED = [
    {"id": 0, "name": "animals", "supercategory": "none"},
    {"id": 1, "name": "dog", "supercategory": "animals"},
    {"id": 2, "name": "car", "supercategory": "animals"},
]


@pytest.mark.parametrize("name", ["animals", "dog"])
def test_the_category_that_groups_the_others_is_no_class(tmp_path: Path, name: str) -> None:
    boxes = [{"image_id": 7, "category_id": 2, "bbox": [20, 10, 40, 30]}]
    categories = [{**GROUPED[0], "name": name}, *GROUPED[1:]] if name == "animals" else [
        GROUPED[0], *({**entry, "name": name} for entry in GROUPED[1:2])
    ]  # fmt: skip
    if name == "dog":
        boxes[0]["category_id"] = 1
    result = coco_to_yolo(coco(tmp_path / "coco", categories=categories, annotations=boxes), tmp_path / "out")
    assert result.names == (("dog", "car") if name == "animals" else ("dog",))
    assert (tmp_path / "out/labels/train/a.txt").read_text().split()[0] == str(boxes[0]["category_id"] - 1)
    assert result.problems == ("category animals only groups others; skipped",)


def test_a_first_category_that_is_a_class_stays(tmp_path: Path) -> None:
    used = [{"image_id": 7, "category_id": 0, "bbox": [20, 10, 40, 30]}]
    plain = [{**entry, "supercategory": "none"} for entry in GROUPED]
    for number, changes in enumerate((
        {"categories": GROUPED, "annotations": used},
        {"categories": plain, "annotations": []},
        {"categories": GROUPED[:1], "annotations": []},
    )):  # fmt: skip
        result = coco_to_yolo(coco(tmp_path / f"coco{number}", **changes), tmp_path / f"out{number}")
        assert result.names[0] == "animals"
    # It is one for all splits where one of them uses it.
    files = {
        "train": coco(tmp_path / "one", categories=GROUPED, annotations=used),
        "val": coco(tmp_path / "two", categories=GROUPED, annotations=[]),
    }
    assert coco_to_yolo(files, tmp_path / "both").names == ("animals", "dog", "car")


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    file = coco(tmp_path / "coco")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert coco_to_yolo(file, tmp_path / "out").boxes == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "entry 1 of categories has the id 3, which"),
        (
            {"categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "a"}]},
            "entry 1 of categories has the name 'a', wh",
        ),
        ({"images": [{"id": 7, "file_name": name, "width": 9, "height": 9} for name in "ab"]}, "entry 1 of images has"),
        ({"categories": [{"id": 3, "name": " "}]}, "entry 0 of categories has no name that is a text"),
    ],
)
def test_what_is_given_twice_or_without_a_name_is_refused(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        coco_to_yolo(coco(tmp_path / "coco", **changes), tmp_path / "out")


@pytest.mark.parametrize("name", ["no", "01", "~", "12:30", "null", "a: b", "#x", "é"])
def test_names_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    result = coco_to_yolo(coco(tmp_path / "coco", categories=[{"id": 1, "name": name}], annotations=[]), tmp_path / "o")
    assert load_data_config(result.data).names == {0: name}


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
        ({"annotations": [3]}, "annotation 0 is invalid"),
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
    with pytest.raises(UserError, match="is not overwritten"):
        coco_to_yolo(file, tmp_path / "out")
    assert (tmp_path / "out/images/train/a.jpg").read_text() == "mine"
