"""Checking images and labels: what is counted, left out, repaired, refused, and how the cache is trusted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import MakeData, smooth_image

import secateur.data.index as index_module
from secateur.data.config import load_data_config
from secateur.data.index import Counts, Index, content_signature, scan
from secateur.data.labels import label_path
from secateur.errors import UserError

GOOD = "0 0.5 0.5 0.25 0.25\n"


def scanned(file: Path, split: str = "train", **options: bool) -> Index:
    return scan(load_data_config(file), split, progress=False, **options)


def test_counts_and_arrays(make_data: MakeData) -> None:
    index = scanned(make_data([GOOD + "2 0.1 0.2 0.1 0.1\n", "", None, GOOD * 3]))
    assert index.counts == Counts(found=2, missing=1, empty=1, corrupt=0, duplicate=2)
    assert index.shapes.tolist() == [[48, 64]] * 4
    assert index.offsets.tolist() == [0, 2, 2, 2, 3]
    assert index.labels.dtype == np.float32
    np.testing.assert_allclose(index.labels_of(0), [[0, 0.5, 0.5, 0.25, 0.25], [2, 0.1, 0.2, 0.1, 0.1]])
    assert "2 duplicate rows" in index.problems[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 0.5 0.5 0.2 1.2", "line 1 is not normalised"),
        (GOOD + "0 -0.1 0.5 0.2 0.2", "line 2 has a negative"),
        ("0.5 0.5 0.5 0.2 0.2", "no whole number"),
        ("0 0.5 0.5 0.2", "has 4 values"),
        ("0 0.5 0.5 0.2 0.2 0.9", "has 6 values"),
        ("cat 0.5 0.5 0.2 0.2", "not a row of numbers"),
        ("0 nan 0.5 0.2 0.2", "not finite"),
    ],
)
def test_broken_labels_leave_the_image_out(make_data: MakeData, text: str, told: str) -> None:
    index = scanned(make_data([GOOD, text]))
    assert len(index) == 1
    assert index.counts.corrupt == 1
    assert told in index.problems[0]
    assert "001.txt" in index.problems[0]


def test_outlines_become_boxes(make_data: MakeData) -> None:
    index = scanned(make_data(["1 0.2 0.2 0.6 0.2 0.6 0.8 0.2 0.8\n" + GOOD]))
    np.testing.assert_allclose(index.labels[0], [1, 0.4, 0.5, 0.4, 0.6], atol=1e-6)
    assert index.point_offsets.tolist() == [0, 4, 4]


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02" * 50, bytes(range(256)) * 4])
def test_broken_image_is_left_out(make_data: MakeData, content: bytes) -> None:
    file = make_data([GOOD, GOOD])
    (file.parent / "images/train/000.png").write_bytes(content)
    index = scanned(file)
    assert len(index) == 1
    assert "000.png" in index.problems[0]


def test_nothing_usable_is_an_error(make_data: MakeData) -> None:
    file = make_data([GOOD])
    (file.parent / "images/train/000.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"no usable image.*000\.png.*zero bytes"):
        scanned(file)


def test_a_cut_short_jpeg_is_left_out_and_one_without_its_end_marker_is_kept(make_data: MakeData) -> None:
    file = make_data([GOOD, GOOD, GOOD], suffix=".jpg", sizes=[(200, 300)] * 3)
    for name, missing in (("000", 300), ("001", 2)):
        image = file.parent / f"images/train/{name}.jpg"
        image.write_bytes(image.read_bytes()[:-missing])
    index = scanned(file)
    assert [Path(name).name for name in index.files] == ["001.jpg", "002.jpg"]
    assert index.problems == (
        f"{file.parent}/images/train/000.jpg: the JPEG is cut short; left out",
        f"{file.parent}/images/train/001.jpg: the JPEG lacks its end marker; read all the same",
    )


@pytest.mark.parametrize("class_id", ["3", "-1"])
def test_class_without_a_name_names_file_and_line(make_data: MakeData, class_id: str) -> None:
    file = make_data([GOOD, f"{GOOD}\n{class_id} 0.5 0.5 0.1 0.1\n"])
    for _ in range(2):  # the second time from the cache
        with pytest.raises(UserError, match=rf"001\.txt, line 3 has class id {class_id}, but .* has 3 names"):
            scanned(file)
    assert scanned(file, single_cls=True).labels[:, 0].tolist() == [0, 0, 0]


def test_label_file_of_random_bytes_is_refused(make_data: MakeData) -> None:
    file = make_data([GOOD, GOOD])
    (file.parent / "labels/train/001.txt").write_bytes(np.random.default_rng(0).bytes(300))
    with pytest.raises(UserError, match=r"001\.txt is not text"):
        scanned(file)
    assert not list(file.parent.rglob("*.npz"))


def test_missing_things(make_data: MakeData) -> None:
    file = make_data([GOOD])
    with pytest.raises(UserError, match="no split 'test'; it has train, val"):
        scanned(file, "test")
    file.write_text("train: images/none\nnames: [a]")
    with pytest.raises(UserError, match="does not exist"):
        scanned(file)
    (file.parent / "images/none").mkdir()
    with pytest.raises(UserError, match="is empty"):
        scanned(file)


def test_links_and_loops(make_data: MakeData, tmp_path: Path) -> None:
    file = make_data([GOOD, GOOD])
    (tmp_path / "linked" / "images").mkdir(parents=True)
    (tmp_path / "linked" / "labels").symlink_to(file.parent / "labels")
    (tmp_path / "linked" / "images" / "train").symlink_to(file.parent / "images" / "train")
    (file.parent / "images" / "train" / "up").symlink_to(file.parent / "images")
    (tmp_path / "linked" / "data.yaml").write_text("train: images/train\nnames: [a]")
    index = scanned(tmp_path / "linked" / "data.yaml")
    assert len(index) == 2
    assert index.counts.found == 2


def test_txt_list(make_data: MakeData) -> None:
    file = make_data([GOOD, GOOD, GOOD])
    (file.parent / "lists").mkdir()
    (file.parent / "images/train/list.txt").write_text("./001.png\nimages/train/002.png\n\n# readme.md\n")
    file.write_text("train: images/train/list.txt\nnames: [a]")
    assert [Path(name).name for name in scanned(file).files] == ["001.png", "002.png"]


def test_cache_is_used_until_a_file_changes(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_data([GOOD, GOOD])
    first = scanned(file)
    cache = file.parent / "labels" / "train.train.secateur.npz"
    assert cache.is_file()
    calls = []
    check = index_module._check
    monkeypatch.setattr(index_module, "_check", lambda *a: calls.append(1) or check(*a))
    again = scanned(file)
    assert not calls
    assert again.files == first.files
    np.testing.assert_array_equal(again.labels, first.labels)
    (file.parent / "labels/train/001.txt").write_text(GOOD + "1 0.5 0.5 0.1 0.1")
    assert len(scanned(file).labels) == 3
    cache.write_bytes(b"no cache at all")
    assert len(scanned(file).labels) == 3
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("offsets", np.array([0, 1, 99])),
        ("offsets", np.array([0, 1.5, 2])),
        ("labels", np.full((2, 5), np.nan, np.float32)),
        ("labels", np.zeros((2, 4), np.float32)),
        ("labels", np.full((2, 5), 7, np.float32)),
        ("labels", np.full((2, 5), 0.5, np.float32)),
        ("labels", np.array([[0, 0.5, 0.5, 1.5, 0.5]] * 2, np.float32)),
        ("shapes", np.zeros((1, 2), np.int32)),
        ("point_offsets", np.array([0, 1, 2])),
        ("text", np.frombuffer(b'{"files": ["/etc/passwd", "b"], "counts": {}, "problems": []}', np.uint8)),
    ],
)
def test_a_cache_that_came_with_the_data_and_says_what_cannot_be_is_made_anew(
    make_data: MakeData, name: str, value: object
) -> None:
    file = make_data([GOOD, GOOD])
    first = scanned(file)
    cache = file.parent / "labels" / "train.train.secateur.npz"
    with np.load(cache) as data:
        arrays = dict(data)
    np.savez(cache, **arrays | {name: value})
    again = scanned(file)
    assert again.files == first.files
    np.testing.assert_array_equal(again.labels, first.labels)
    np.savez_compressed(cache, **arrays | {"more": np.zeros(1_000_000)})
    assert scanned(file).files == first.files
    with np.load(cache) as data:
        assert "more" not in data


def test_read_only_data_set_is_cached_at_home(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_data([GOOD])
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may write anywhere
    scanned(file)
    assert not list(file.parent.rglob("*.npz"))
    assert len(list((tmp_path / "cache-home").rglob("*.npz"))) == 1


def test_exif_orientation_turns_shape_and_pixels(make_data: MakeData) -> None:
    file = make_data([GOOD], suffix=".jpg", sizes=[(40, 80)])
    image = file.parent / "images/train/000.jpg"
    plain = image.read_bytes()
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    segment = b"Exif\x00\x00" + tiff
    image.write_bytes(plain[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + plain[2:])
    assert scanned(file).shapes.tolist() == [[80, 40]]


def test_select(make_data: MakeData) -> None:
    index = scanned(make_data([GOOD, GOOD + "1 0.1 0.1 0.1 0.1\n", "2 0.2 0.2 0.6 0.2 0.6 0.8"]))
    part = index.select([2, 1])
    assert part.files == (index.files[2], index.files[1])
    np.testing.assert_array_equal(part.labels, np.concatenate([index.labels_of(2), index.labels_of(1)]))
    assert part.point_offsets.tolist() == [0, 3, 3, 3]


def test_label_path_changes_the_last_images_folder() -> None:
    assert label_path("/a/images/b/images/c.x.jpg") == "/a/images/b/labels/c.x.txt"
    assert label_path("/a/c.jpg") == "/a/c.txt"


def test_tiny_image_is_left_out(make_data: MakeData) -> None:
    file = make_data([GOOD, GOOD])
    cv2.imwrite(str(file.parent / "images/train/000.png"), smooth_image(5, 40, 0))
    assert "40 x 5" in scanned(file).problems[0]


def test_content_signature_is_of_what_is_there_and_not_of_when_or_where(make_data: MakeData, tmp_path: Path) -> None:
    file = make_data([GOOD, "1 0.2 0.2 0.6 0.2 0.6 0.8\n", None])
    first = scanned(file)
    for image in (file.parent / "images/train").iterdir():
        os.utime(image, (1, 1))
    shutil.copytree(file.parent, tmp_path / "moved")
    for again in (scanned(file), scanned(tmp_path / "moved" / "data.yaml")):
        assert again.signature != first.signature
        assert content_signature(again) == content_signature(first)


@pytest.mark.parametrize("change", ["class", "box", "outline", "label for background", "image", "name", "fewer"])
def test_content_signature_changes_with_the_content(make_data: MakeData, change: str) -> None:
    file = make_data([GOOD, "1 0.2 0.2 0.6 0.2 0.6 0.8\n", None])
    images, labels = file.parent / "images/train", file.parent / "labels/train"
    before = content_signature(scanned(file))
    if change == "class":
        (labels / "000.txt").write_text("1" + GOOD[1:])
    elif change == "box":
        (labels / "000.txt").write_text(GOOD.replace("0.25", "0.26", 1))
    elif change == "outline":  # of the same box
        (labels / "001.txt").write_text("1 0.2 0.2 0.6 0.2 0.6 0.8 0.2 0.8\n")
    elif change == "label for background":
        (labels / "002.txt").write_text(GOOD)
    elif change == "image":
        cv2.imwrite(str(images / "000.png"), np.zeros((48, 64, 3), np.uint8))
    elif change == "name":
        (images / "002.png").rename(images / "003.png")
    else:
        (images / "002.png").unlink()
    assert content_signature(scanned(file)) != before


def test_a_name_that_is_no_utf8_is_an_ordinary_file(make_data: MakeData) -> None:
    """OpenCV's own reading of such a file ends the process."""
    file = make_data([GOOD, GOOD])
    first = Path(scanned(file).files[0])
    strange = os.fsencode(first.with_name("bad")) + b"\xff" + os.fsencode(first.suffix)
    try:
        shutil.copy(first, strange)
    except OSError:
        pytest.skip("this file system takes no such name")
    index = scanned(file)
    assert len(index) == 3 and index.counts.corrupt == 0
