"""Where label files are looked for: `labels` folders in any case, next to the images, and what is said of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from secateur.data.checking.label_places import LabelFiles, find_label_files

ROW = "0 0.5 0.5 0.2 0.2\n"


def made(root: Path, *names: str) -> list[Path]:
    """Files of these names; which of them are images is told by their suffix."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(ROW)
    return [root / name for name in names]


def found(root: Path, *sources: str) -> tuple[LabelFiles, dict[str, str | None]]:
    """What is found for all images below, and the label file of each, both relative to the root."""
    images = sorted(str(path) for path in root.rglob("*") if path.suffix.lower() in {".png", ".jpg"})
    files = find_label_files(images, [root / source for source in sources])
    relative = [None if path is None else os.path.relpath(path, root) for path in files.paths]
    return files, dict(zip([os.path.relpath(image, root) for image in images], relative, strict=True))


@pytest.mark.parametrize(
    ("image", "label", "usual"),
    [
        ("images/train/a.png", "labels/train/a.txt", ""),
        ("images/a.png", "labels/a.txt", ""),
        ("images/deep/er/a.b.jpg", "labels/deep/er/a.b.txt", ""),
        ("images/x/images/a.png", "images/x/labels/a.txt", ""),
        ("set/a.png", "set/a.txt", ""),
        ("images/train/a.png", "labels/train/a.TXT", ""),
        ("set/a.png", "set/a.Txt", ""),
        ("Images/train/a.png", "labels/train/a.txt", ""),
        ("images/train/a.png", "images/train/a.txt", "labels/train"),
        ("images/set/pics/a.png", "images/set/pics/a.txt", "labels/set/pics"),
        ("Images/train/a.png", "Labels/train/a.txt", "labels/train"),
        ("Images/train/a.png", "Images/train/a.txt", "labels/train"),
        ("IMAGES/a.png", "LABELS/a.txt", "labels"),
        ("images/train/a.png", "Labels/train/a.txt", "labels/train"),
        ("out/images/train/images/a.png", "out/labels/train/images/a.txt", "out/images/train/labels"),
    ],
)
def test_places(tmp_path: Path, image: str, label: str, usual: str) -> None:
    """`usual` is the folder that is named as the usual one, where the label file is in another."""
    made(tmp_path, image, label)
    files, label_of = found(tmp_path)
    assert label_of == {image: label}
    assert files.folders == ((str((tmp_path / label).parent), 1),)
    said = f"1 image: labels found in {(tmp_path / label).parent}, not in {tmp_path / usual}"
    assert files.remarks == ((said,) if usual else ())
    assert files.unused == ()


def test_no_label_file(tmp_path: Path) -> None:
    made(tmp_path, "images/train/a.png", "images/train/b.png", "labels/val/a.txt", "a.txt")
    files, label_of = found(tmp_path)
    assert label_of == {"images/train/a.png": None, "images/train/b.png": None}
    assert files.folders == ((str(tmp_path / "labels/train"), 0),)
    assert files.remarks == ()


def test_where_both_are_there_labels_wins_and_it_is_said_once(tmp_path: Path) -> None:
    names = [f"{folder}/{n}.{suffix}" for n in "abc" for folder, suffix in (("images", "png"), ("labels", "txt"))]
    made(tmp_path, *names, "images/a.txt", "images/b.txt", "images/d.png", "images/d.txt")
    files, label_of = found(tmp_path)
    assert label_of == {f"images/{n}.png": f"labels/{n}.txt" for n in "abc"} | {"images/d.png": "images/d.txt"}
    images, labels = tmp_path / "images", tmp_path / "labels"
    assert files.remarks == (
        f"1 image: labels found in {images}, not in {labels}",
        f"2 images: labels in {labels} and in {images}; those in the first folder are used",
    )
    assert files.folders == ((str(labels), 3), (str(images), 1))


def test_many_folders_are_told_as_one(tmp_path: Path) -> None:
    made(tmp_path, *(name for n in range(5) for name in (f"Images/seq{n}/a.png", f"Labels/seq{n}/a.txt")))
    files, _ = found(tmp_path)
    assert files.folders == ((str(tmp_path / "Labels"), 5),)
    assert files.remarks == (f"5 images: labels found in {tmp_path / 'Labels'}, not in {tmp_path / 'labels'}",)


def test_label_files_of_no_image_are_counted_and_named(tmp_path: Path) -> None:
    spare = [f"labels/train/{name}.txt" for name in ("gone", "more", "n", "o")] + ["labels/train/deep/p.txt"]
    made(tmp_path, "images/train/a.png", "labels/train/a.txt", *spare, "labels/train/classes.txt", "labels/val/x.txt")
    files, _ = found(tmp_path, "images/train")
    assert files.unused == tuple(str(tmp_path / name) for name in spare)
    where = tmp_path / "labels/train"
    assert files.remarks == (f"5 label files in {where} without an image: gone.txt, more.txt, n.txt and 2 more",)


def test_label_files_of_images_of_another_split_are_not_counted(tmp_path: Path) -> None:
    made(tmp_path, "images/a.png", "images/b.png", "labels/a.txt", "labels/b.txt", "labels/c.txt")
    files = find_label_files([str(tmp_path / "images/a.png")], [tmp_path / "train.txt"])
    assert files.unused == (str(tmp_path / "labels/c.txt"),)
    assert files.remarks == (f"1 label file in {tmp_path / 'labels'} without an image: c.txt",)


def test_text_next_to_images_counts_only_where_labels_are_there(tmp_path: Path) -> None:
    made(tmp_path, "images/a.png", "labels/a.txt", "images/caption.txt")
    assert found(tmp_path)[0].unused == ()
    made(tmp_path, "set/b.png", "set/b.txt", "set/c.txt", "set/train.txt", "set/README.dataset.txt")
    assert found(tmp_path)[0].unused == (str(tmp_path / "set/c.txt"),)


def test_of_two_suffixes_the_usual_one_is_read(tmp_path: Path) -> None:
    made(tmp_path, "images/a.png", "labels/a.txt", "labels/a.TXT")
    if len(list((tmp_path / "labels").iterdir())) < 2:
        pytest.skip("this file system has one name for both")
    files, label_of = found(tmp_path)
    assert label_of == {"images/a.png": "labels/a.txt"}
    assert files.unused == (str(tmp_path / "labels/a.TXT"),)


def test_images_that_share_a_label_file_are_named(tmp_path: Path) -> None:
    made(tmp_path, "images/x.jpg", "images/x.png", "labels/x.txt", "images/y.png", "labels/y.txt")
    files, label_of = found(tmp_path)
    assert label_of["images/x.jpg"] == label_of["images/x.png"] == "labels/x.txt"
    assert files.remarks == (f"x.jpg and x.png share the label file {tmp_path / 'labels/x.txt'}",)
    twice = [str(tmp_path / "images/y.png")] * 2  # in a list, say
    assert find_label_files(twice).remarks == ()


def test_a_folder_that_cannot_be_listed_is_asked_for_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "images/a.png", "images/b.png", "labels/a.txt")
    scandir = os.scandir

    def refusing(folder: str):  # the tests may run as root, who may list everything
        if str(folder).endswith("labels"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    images = [str(tmp_path / "images" / name) for name in ("a.png", "b.png")]
    monkeypatch.setattr(os, "scandir", refusing)
    assert find_label_files(images).paths == (str(tmp_path / "labels/a.txt"), None)


def test_each_folder_is_listed_once_and_no_file_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n:03d}" for n in range(50)]
    made(tmp_path, *(f"images/{n}.png" for n in names), *(f"labels/{n}.txt" for n in names))
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(str(folder)) or scandir(folder))
    monkeypatch.setattr(os, "stat", None)
    monkeypatch.setattr(os, "lstat", None)
    files = find_label_files([str(tmp_path / "images" / f"{n}.png") for n in names])
    monkeypatch.undo()
    assert len(files.paths) == 50 and None not in files.paths
    assert len(listed) == len(set(listed))
