"""What the words of a user stand for."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from secateur.errors import UserError
from secateur.prediction.sources import Medium, find_media


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/b.jpg", "in/a.PNG", "in/deep/a.jpg", "in/clip.mp4", "in/clip_7.jpg", "in/notes.md", "empty/x.md"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def addresses(*words: str, stdin: tuple[str, ...] = ()) -> list[str]:
    return [medium.address for medium in find_media(words, stdin)]


def test_folders_are_searched_to_any_depth() -> None:
    assert addresses("in") == ["in/a.PNG", "in/b.jpg", "in/clip.mp4", "in/clip_7.jpg", "in/deep/a.jpg"]


def test_patterns() -> None:
    assert addresses("in/*.jpg") == ["in/b.jpg", "in/clip_7.jpg"]
    assert addresses("in/**/*.jpg") == ["in/b.jpg", "in/clip_7.jpg", "in/deep/a.jpg"]
    assert addresses("in/d*") == ["in/deep/a.jpg"]


def test_a_file_with_the_letters_of_a_pattern_is_a_file() -> None:
    Path("in/[1].jpg").touch()
    assert addresses("in/[1].jpg") == ["in/[1].jpg"]


def test_lists_hold_paths_and_addresses() -> None:
    Path("list.txt").write_text("\ufeffin/b.jpg\n\n  in/clip.mp4 \nhttp://x.org/y.jpg\n")
    assert addresses("list.txt") == ["in/b.jpg", "in/clip.mp4", "http://x.org/y.jpg"]
    Path("in/near.txt").write_text("b.jpg\ngone.jpg\n")
    assert addresses("in/near.txt") == ["in/b.jpg", "gone.jpg"]
    assert addresses("-", stdin=("in/b.jpg\n", "\n", "gone.jpg\n")) == ["in/b.jpg", "gone.jpg"]


def test_lists_may_hold_comments_quotes_and_boxes() -> None:
    Path("in/#1.jpg").touch()
    Path("in/near.txt").write_text("# the first\n\"b.jpg\"\n'in/a.PNG'\nb.jpg 1,2,3,4,0 5,6,7,8,1\n#1.jpg\n")
    assert addresses("in/near.txt") == ["in/b.jpg", "in/a.PNG", "in/b.jpg", "in/#1.jpg"]


def test_pictures_that_are_not_read_are_named(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("in/x.heic", "in/y.jp2", "in/z.gif"):
        Path(name).touch()
    assert {"in/y.jp2", "in/z.gif"} <= set(addresses("in"))
    assert caplog.messages == [
        "in: images of unsupported formats are skipped (1 .heic; for example in/x.heic). Convert them to .jpg or .png."
    ]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("in/b.jpg", "image"),
        ("in/notes.md", "image"),
        ("in/clip.mp4", "video"),
        ("0", "camera"),
        ("rtsp://cam/1", "stream"),
        ("https://x.org/a.jpg", "web"),
    ],
)
def test_kinds(word: str, kind: str) -> None:
    assert [medium.kind for medium in find_media([word])] == [kind]


def test_a_file_named_like_a_webcam_is_the_file() -> None:
    Path("0").touch()
    assert find_media(["0"]) == [Medium("image", "0", "0")]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("gone.jpg", "There is no image, video or folder gone.jpg"),
        ("empty", "There are no images or videos in the folder empty"),
        ("*.jpg", "Nothing matches the pattern"),
        ("empty/*", "The pattern empty/\\* matches no images"),
        ("12345", "There is no image, video or folder 12345"),
        ("ftp://x.org/a.jpg", "ftp:// URLs are not supported"),
        ("http://[x/a.jpg", "is not a valid URL"),
    ],
)
def test_words_that_name_nothing(word: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        find_media([word])


def test_nothing_that_is_written_overwrites_another() -> None:
    stems = {medium.address: medium.stem for medium in find_media(["in", "in/b.jpg", "0"])}
    assert stems["in/a.PNG"] == "a" and stems["in/deep/a.jpg"] == "a-2"
    # The frames of clip.mp4 are called clip_1, clip_2, ..., and an image clip_7 is there too.
    assert stems["in/clip.mp4"] == "clip" and stems["in/clip_7.jpg"] == "clip_7-2"
    assert [medium.stem for medium in find_media(["in/b.jpg"] * 3)] == ["b", "b-2", "b-3"]


@pytest.mark.parametrize(
    ("url", "stem", "shown"),
    [
        ("https://x.org/p/My%20dog.jpg?size=2", "My_dog", "https://x.org/p/My%20dog.jpg?size=2"),
        ("rtsp://user:secret@10.0.0.7:554/", "10.0.0.7_554", "rtsp://10.0.0.7:554/"),
        ("http://x.org/../..%2f..%2fetc/passwd", "passwd", "http://x.org/../..%2f..%2fetc/passwd"),
    ],
)
def test_what_addresses_are_called(url: str, stem: str, shown: str) -> None:
    """Never a path out of the folder, nor the password."""
    medium = find_media([url])[0]
    assert (medium.address, medium.stem, str(medium)) == (url, stem, shown)


def test_names_that_are_not_utf_8() -> None:
    name = os.fsdecode(b"in/caf\xe9.jpg")
    (medium,) = find_media(["-"], [name])
    assert medium.address == name
    assert (str(medium), medium.stem) == ("in/caf\\udce9.jpg", "caf?")


def test_a_list_that_is_no_text_is_one_sentence() -> None:
    with pytest.raises(UserError, match="standard input is not UTF-8 text"):
        find_media(["-"], io.TextIOWrapper(io.BytesIO(b"a\xff.jpg\n"), encoding="utf-8"))
