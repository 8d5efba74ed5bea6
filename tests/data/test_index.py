"""Checking images and labels: what is counted, left out, repaired, refused, and how the cache is trusted."""

from __future__ import annotations

import os
import shutil
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import GOOD, MakeData, scanned, smooth_image

import secateur.data.checking.each_image as each_image
from secateur.data.config import load_data_config
from secateur.data.index import Counts, content_signature, scan
from secateur.data.labels import label_path
from secateur.errors import UserError


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
        ("0.5 0.5 0.5 0.2 0.2", "not a whole number"),
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
        f"{file.parent}/images/train/000.jpg: the JPEG is truncated; skipped",
        f"{file.parent}/images/train/001.jpg: the JPEG lacks its end marker; it is read anyway",
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


def said(capsys: pytest.CaptureFixture[str], file: Path) -> list[str]:
    scan(load_data_config(file), "train")
    return [line.strip() for line in capsys.readouterr().err.splitlines()]


def test_labels_next_to_the_images_are_found_and_it_is_said_once(
    make_data: MakeData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make_data([GOOD, None, GOOD])
    images, labels = file.parent / "images/train", file.parent / "labels/train"
    assert (index := scanned(file)).counts.found == 2
    assert index.label_folders == ((str(labels), 2),)
    (labels / "002.txt").rename(images / "002.txt")
    (images / "001.txt").write_text(GOOD)
    for _ in range(2):  # the second time from the cache
        assert said(capsys, file) == [
            "train: 3 images, 3 objects",
            f"2 images: labels found in {images}, not in {labels}",
        ]
    assert scanned(file).label_folders == ((str(labels), 1), (str(images), 2))


def test_a_label_file_that_comes_later_is_seen(make_data: MakeData) -> None:
    file = make_data([GOOD, None])
    assert scanned(file).counts.missing == 1
    place = file.parent / "images/train/001.TXT"
    place.write_text("1 0.5 0.5 0.1 0.1\n")
    assert scanned(file).labels[:, 0].tolist() == [0, 1]
    (file.parent / "labels/train/001.txt").write_text("2 0.5 0.5 0.1 0.1\n")
    assert scanned(file).labels[:, 0].tolist() == [0, 2]
    place.unlink()
    (file.parent / "labels/train/001.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    with pytest.raises(UserError, match=r"labels/train/001\.txt, line 1 has class id 7"):
        scanned(file)


def test_a_label_file_that_cannot_be_read_is_no_background(make_data: MakeData) -> None:
    file = make_data([GOOD, None])
    (file.parent / "labels/train/001.txt").symlink_to("nowhere")
    index = scanned(file)
    assert index.counts == Counts(found=1, corrupt=1)
    assert index.problems == (
        f"{file.parent / 'labels/train/001.txt'}: No such file or directory; the image is skipped",
    )


def test_clipped_coordinates_boxes_of_zero_size_and_spare_label_files_are_counted_and_named(
    make_data: MakeData, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make_data([GOOD + "1 1.005 0.5 0.2 0.2\n", "0 0.5 0.5 0 0.2\n1 0.1 0.1 0.1 0\n", GOOD])
    labels = file.parent / "labels/train"
    (labels / "other.txt").write_text(GOOD)
    expected = Counts(found=2, empty=1, clipped=1, flat=2, unused=1)
    for _ in range(2):  # the second time from the cache
        assert scanned(file).counts == expected
    assert said(capsys, file) == [
        "train: 3 images, 3 objects, 1 without objects",
        f"1 label file in {labels} without an image: other.txt",
        "coordinates just outside the image (-0.01 to 1.01), clipped: 1",
        "boxes of zero size, ignored: 2",
        f"{labels / '000.txt'}: coordinates just outside the image, clipped (1)",
        f"{labels / '001.txt'}: boxes of zero size, ignored (line 1 and 1 more)",
    ]


def test_confidences_are_read_over_where_every_row_has_one(
    make_data: MakeData, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make_data(["0 0.5 0.5 0.25 0.25 0.9\n1 0.1 0.1 0.1 0.1 1\n", "", None, "2 0.5 0.5 0.2 0.2 0\n"])
    for _ in range(2):  # the second time from the cache
        assert scanned(file).labels[:, 0].tolist() == [0, 1, 2]
        assert "the sixth value of every row is treated as a confidence and ignored" in said(capsys, file)
    (file.parent / "labels/train/001.txt").write_text(GOOD)
    index = scanned(file)
    assert (index.counts.found, index.counts.missing, index.counts.corrupt) == (1, 1, 2)
    told = "line 1 has 6 values; expected class x y width height, or class and an outline; the image is skipped"
    assert [problem.rpartition("/")[2] for problem in index.problems] == [f"000.txt: {told}", f"003.txt: {told}"]


PERSON = "0 0.6 0.4 0.1 0.3 0.58 0.3 0.62 0.3 0.6 0.5\n"


def test_key_points_are_read_as_what_data_yaml_says(make_data: MakeData) -> None:
    file = make_data([PERSON, PERSON.replace("0.6 0.4", "0.61 0.4", 1)])
    with pytest.raises(UserError, match=r"split train \(for example of .*000\.png\) are boxes with key points, .* Add "
                       r"kpt_shape: \[3, 2\] to .*data\.yaml"):  # fmt: skip
        scanned(file)
    with file.open("a") as stream:
        stream.write("kpt_shape: [3, 2]\n")
    index = scanned(file)
    np.testing.assert_allclose(index.labels, [[0, 0.6, 0.4, 0.1, 0.3], [0, 0.61, 0.4, 0.1, 0.3]])
    assert len(index.points) == 0
    file.write_text(file.read_text().replace("[3, 2]", "[17, 3]"))  # the cache is of another shape
    with pytest.raises(UserError, match=r"no usable image.* has 11 values; kpt_shape \[17, 3\] needs 56"):
        scanned(file)


def test_outlines_of_many_lengths_are_no_key_points(make_data: MakeData) -> None:
    index = scanned(make_data([PERSON + "0 0.5 0.5 0.6 0.5 0.55 0.6\n"]))
    assert len(index.labels) == 2
    assert index.point_offsets.tolist() == [0, 5, 8]


def test_less_than_a_tenth_with_objects_is_a_warning(make_data: MakeData, capsys: pytest.CaptureFixture[str]) -> None:
    file = make_data([GOOD, "", *[None] * 9])
    warning = "Warning: of 11 images only 1 has an object (9 without label file and 1 with a label file without boxes)."
    assert said(capsys, file) == ["train: 11 images, 1 objects, 10 without objects", warning]
    (file.parent / "labels/train/005.txt").write_text(GOOD)
    assert said(capsys, file) == ["train: 11 images, 2 objects, 9 without objects"]


def test_processes_find_what_threads_find(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_data([GOOD, "0 0.5 0.5 0.2 1.2", None, "1 0.2 0.2 0.6 0.2 0.6 0.8\n"])
    config = load_data_config(file)
    monkeypatch.setattr(each_image, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(each_image, "granted_cpus", lambda: 2)
    threads, processes = (
        scan(config, "train", cache=False, progress=False, processes=there) for there in (False, True)
    )
    assert content_signature(threads) == content_signature(processes)
    assert (threads.counts, threads.problems) == (processes.counts, processes.problems)
    (file.parent / "labels/train/001.txt").write_bytes(b"\x00\x01")
    with pytest.raises(UserError, match=r"001\.txt is not text"):
        scan(config, "train", cache=False, progress=False, processes=True)


def test_where_a_process_is_ended_by_the_system_threads_check(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[str] = []
    tracked = each_image._tracked

    def ended(pool: object, *rest: object) -> object:
        pools.append(type(pool).__name__)
        if pools == ["ProcessPoolExecutor"]:
            raise BrokenProcessPool
        return tracked(pool, *rest)

    monkeypatch.setattr(each_image, "_tracked", ended)
    monkeypatch.setattr(each_image, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(each_image, "granted_cpus", lambda: 2)
    config = load_data_config(make_data([GOOD, GOOD]))
    assert len(scan(config, "train", cache=False, progress=False, processes=True)) == 2
    assert pools == ["ProcessPoolExecutor", "ThreadPoolExecutor"]
