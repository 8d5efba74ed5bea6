"""Resolves source arguments: images, videos, folders, patterns, lists, webcams, URLs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from secateur.data.image_lists import path_in
from secateur.data.images import SUFFIXES, files_in, files_matching
from secateur.errors import UserError
from secateur.files import usable_path

VIDEOS = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm",
    ".wmv",
})  # fmt: skip
IMAGES = SUFFIXES | {".avif", ".jp2", ".pgm", ".ppm"}
STDIN = "-"
_STREAMED = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt", "mms")

Kind = Literal["image", "video", "web", "stream", "camera"]


@dataclass(frozen=True)
class Medium:
    """One source to read.

    Attributes:
        kind: an image file, a video file, an image or video behind http, a stream, or a webcam.
        address: path, URL or webcam number.
        stem: file stem of its outputs, unique among the media of a list.
    """

    kind: Kind
    address: str
    stem: str

    @property
    def live(self) -> bool:
        """Whether it runs until it is stopped."""
        return self.kind in ("stream", "camera")

    def __str__(self) -> str:
        """Its name in messages and results: a URL without its password, and a file name in valid UTF-8."""
        if self.kind == "camera":
            return f"webcam {self.address}"
        if self.kind in ("web", "stream"):
            return re.sub(r"(?<=://)[^/@]*@", "", self.address)
        return self.address.encode("utf-8", "backslashreplace").decode()


def find_media(words: Sequence[str], stdin: Iterable[str] = ()) -> list[Medium]:
    """The media for the given arguments, with the contents of folders and patterns sorted.

    Args:
        words: files, folders (searched recursively), patterns, `.txt` lists, URLs, webcam numbers, or `-`.
        stdin: lines with paths or URLs, used for `-`.

    Raises:
        UserError: an argument matches nothing readable.
    """
    return _with_own_stems([medium for word in words for medium in _media_of(word, stdin)])


def _media_of(word: str, stdin: Iterable[str]) -> Iterator[Medium]:
    if word == STDIN:
        yield from _listed(_lines_of(stdin), Path())
        return
    if "://" in word:
        yield _at_url(word)
        return
    path = usable_path(word)
    if path.is_dir():
        yield from _each(files_in(path, IMAGES | VIDEOS), f"There are no images or videos in the folder {word}.")
    elif path.is_file() and path.suffix.lower() == ".txt":
        yield from _listed(_lines(path), path.parent)
    elif path.exists():
        yield _in_file(word)
    elif word.isdecimal() and len(word) < 4:
        yield Medium("camera", word, f"webcam{word}")
    elif glob.has_magic(word):
        found = files_matching(path, IMAGES | VIDEOS)
        yield from _each(found, f"The pattern {word} matches no images or videos.")
    else:
        raise UserError(f"There is no image, video or folder {word}. Correct the path.")


def _each(files: list[str], nothing: str) -> Iterator[Medium]:
    if not files:
        raise UserError(nothing)
    yield from map(_in_file, sorted(files))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the list {file}: {error}.") from error


def _lines_of(stdin: Iterable[str]) -> list[str]:
    try:
        return list(stdin)
    except UnicodeDecodeError as error:
        raise UserError(f"The list on standard input is not UTF-8 text ({error.reason}).") from None


def _listed(lines: Iterable[str], folder: Path) -> Iterator[Medium]:
    """The files and URLs of a list. Missing files are reported when they are read."""
    for line in filter(None, (line.strip() for line in lines)):
        if "://" in line:
            yield _at_url(line)
            continue
        # Path.exists raises for names that are too long.
        name = line if os.path.exists(line) else path_in(line)[0]  # noqa: PTH110
        here, there = os.path.exists(name), os.path.exists(folder / name)  # noqa: PTH110
        if here or there or not name.startswith("#"):
            yield _in_file(str(folder / name) if there and not here else name)


def _in_file(name: str) -> Medium:
    path = Path(name)
    # Names of outputs are UTF-8 even if the name of the source is not.
    stem = path.stem.encode("utf-8", "replace").decode()
    return Medium("video" if path.suffix.lower() in VIDEOS else "image", name, stem)


def _at_url(url: str) -> Medium:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError(f"{url} is not a valid URL ({error}).") from None
    stem = re.sub(r"[^\w.-]+", "_", Path(unquote(parts.path)).stem or parts.netloc.rpartition("@")[2]).strip(".")
    if parts.scheme in ("http", "https"):
        return Medium("web", url, stem or "web")
    if parts.scheme in _STREAMED:
        return Medium("stream", url, stem or "stream")
    raise UserError(f"{parts.scheme}:// URLs are not supported. Use http, https, rtsp, rtmp, or a file.")


def _with_own_stems(media: list[Medium]) -> list[Medium]:
    """The media with unique stems, so that outputs of a.jpg, a.png and b/a.jpg do not overwrite each other.

    Frames of a video `clip` are named clip_1, clip_2, ...; an image with such a name gets another stem too.
    """
    moving = {medium.stem for medium in media if medium.kind != "image"}
    taken: set[str] = set()
    named = []
    for medium in media:
        stem, number = medium.stem, 1
        while stem in taken or (medium.kind == "image" and _like_a_frame(stem, moving)):
            number += 1
            stem = f"{medium.stem}-{number}"
        taken.add(stem)
        named.append(replace(medium, stem=stem))
    return named


def _like_a_frame(stem: str, moving: set[str]) -> bool:
    start, _, number = stem.rpartition("_")
    return number.isdecimal() and start in moving
