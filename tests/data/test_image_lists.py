"""Lists of images: every line is an image, nothing, a comment, or an error with its number."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from pictures import smooth_image

from secateur.data.config import load_data_config
from secateur.data.image_lists import read_list
from secateur.data.images import SUFFIXES
from secateur.data.index import scan
from secateur.errors import UserError

NAMES = ("images/a.jpg", "images/b c.png", "images/d.JPG", "lists/e.png", "obj_train_data/f.PNG", "images/g.jpg h.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def listed(root: Path, content: str | bytes) -> list[str]:
    file = root / "lists" / "train.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return [str(Path(name).relative_to(root)) for name in read_list(file, root, SUFFIXES)]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("images/a.jpg", "images/a.jpg"),
        ("  images/a.jpg\t ", "images/a.jpg"),
        ("images/b c.png", "images/b c.png"),
        ('"images/b c.png"', "images/b c.png"),
        ("'images/a.jpg'", "images/a.jpg"),
        ("images/d.JPG", "images/d.JPG"),
        ("./e.png", "lists/e.png"),
        ("e.png", "lists/e.png"),
        ("../images/a.jpg", "images/a.jpg"),
        ("images/../images/a.jpg", "images/a.jpg"),
        ("images/a.jpg 10,20,30,40,0", "images/a.jpg"),
        ("images/b c.png 10,20,30,40,0 1.5,2,3,4.25,11", "images/b c.png"),
        ('"images/b c.png" 10,20,30,40', "images/b c.png"),
        ("images/g.jpg h.png", "images/g.jpg h.png"),
        ("images\\a.jpg", "images/a.jpg"),
        (".\\images\\b c.png", "images/b c.png"),
        ("data/obj_train_data/f.PNG", "obj_train_data/f.PNG"),
        ("data\\obj_train_data\\f.PNG", "obj_train_data/f.PNG"),
        ("D:\\images\\a.jpg", "images/a.jpg"),
        ("images/not there.jpg", "images/not there.jpg"),
    ],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_line_is_an_image(root: Path, line: str, name: str, ends: str) -> None:
    content = f"\ufeff# the first half{ends}{ends}{line}{ends}  {ends}#images/a.jpg{ends}"
    assert listed(root, content) == [name]


def test_whole_paths_are_left_as_they_are(root: Path) -> None:
    names = [f"{root}/images/a.jpg", "/images/a.jpg", "/elsewhere/v1.100 x/not there.jpg"]
    (root / "train.txt").write_text("\n".join(names))
    assert read_list(root / "train.txt", root, SUFFIXES) == names


@pytest.mark.parametrize(
    "line",
    [
        "readme.md",
        "images",
        "images/a.heic",
        "images/a.jpg 0",
        "images/a.jpg 0 0.5 0.5 0.2 0.2",
        "images/a.jpg,0",
        "images/a.jpg labels/a.txt",
        "images/a.jpg images/d.JPG",
        '"images/a.jpg" "images/d.JPG"',
        '"images/a.jpg",',
        "images/a.jpg # the first",
        "10,20,30,40,0",
        "images/a.jpg 10,20,30",
        "\0",
    ],
)
def test_a_line_that_is_no_image_is_an_error_with_its_number(root: Path, line: str) -> None:
    with pytest.raises(UserError, match=r"lists/train\.txt, line 3 is .*, but must be the path of one image") as caught:
        listed(root, f"images/a.jpg\n\n{line}\nimages/a.jpg\n")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["images/a.jpg\n".encode("utf-16"), b"images/\xe9.jpg\n"])
def test_a_list_in_another_encoding_is_refused(root: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"lists/train\.txt is not UTF-8 text. Save it as UTF-8"):
        listed(root, content)


def test_what_was_changed_in_paths_is_said_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "obj_train_data" / "g.PNG").touch()
    listed(root, "data/obj_train_data/f.PNG\ndata/obj_train_data/g.PNG\nimages/a.jpg\n")
    assert caplog.messages == [
        f"Image list {root}/lists/train.txt: paths are read without their first folder "
        f"(data/obj_train_data/f.PNG is {root}/obj_train_data/f.PNG)."
    ]
    caplog.clear()
    listed(root, "data\\obj_train_data\\f.PNG\nimages/a.jpg 1,2,3,4,5\nimages/a.jpg 1,2,3,4,5\n")
    assert caplog.messages == [
        f"Image list {root}/lists/train.txt: paths are read without their first folder and with / for \\ "
        f"(data\\obj_train_data\\f.PNG is {root}/obj_train_data/f.PNG).",
        f"Image list {root}/lists/train.txt: the boxes after 2 paths are ignored. Labels are read from label files.",
    ]
    caplog.clear()
    listed(root, "images/a.jpg\n./e.png\ne.png\n'images/a.jpg'\n")
    assert not caplog.messages


@pytest.mark.parametrize("line", ["data/obj_train_data/{}", "data\\obj_train_data\\{}"])
def test_a_cvat_export_as_it_comes(tmp_path: Path, line: str) -> None:
    """Everything beside `train.txt`, whose lines begin with a folder that the archive does not have."""
    folder = tmp_path / "obj_train_data"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.PNG"), smooth_image(48, 64, number))
    (tmp_path / "train.txt").write_text("".join(f"{line.format(f'{n}.PNG')}\n" for n in range(3)))
    (tmp_path / "data.yaml").write_text("path: .\ntrain: train.txt\nnames:\n  0: no\n")
    index = scan(load_data_config(tmp_path / "data.yaml"), "train", progress=False)
    assert index.files == tuple(str(folder / f"{number}.PNG") for number in range(3))
