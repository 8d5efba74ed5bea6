"""Reads image files with OpenCV (EXIF orientation applied) and finds those of a folder, a list or a pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from secateur.errors import UserError
from secateur.files import usable_path

Image = NDArray[np.uint8]
SUFFIXES = frozenset({".bmp", ".dng", ".jpeg", ".jpg", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".pfm"})
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


class ImageError(Exception):
    """An image that cannot be used, with the reason."""


def check_image_channels(channels: int) -> None:
    """Refuses networks whose images no file holds.

    Raises:
        UserError: the network takes neither grey nor colour images.
    """
    if channels not in (1, 3):
        raise UserError(
            f"The network takes images of {channels} channels, and Secateur reads images of 1 (grey) or 3 (colour): "
            "use a network with 'ch: 1' or 'ch: 3' in its model YAML."
        )


def with_channels(image: Image, channels: int) -> Image:
    """A BGR image uint8 [H,W,3] as a network of so many channels reads it: for 3 the image itself, for 1 grey [H,W].

    Grey is .299 red + .587 green + .114 blue of the decoded image, for files, videos and arrays alike: what a decoder
    gives as grey differs from that by a few steps, depending on the format.
    """
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8) if channels == 1 else image


def read_image(file: str, reduce: int = 1, *, channels: int = 3) -> Image:
    """Reads a BGR image uint8 [H,W,3], or for one channel a grey one [H,W], its sides divided by `reduce` (1, 2, 4, 8).

    JPEG is decoded at the smaller size directly, which costs less than decoding and resizing and does not alias.

    Raises:
        UserError: the file has gone or is broken since it was checked.
    """
    try:
        image = _decoded(file, _REDUCED.get(reduce, cv2.IMREAD_COLOR))
    except (OSError, cv2.error):
        image = None
    if image is None:
        raise UserError(f"Cannot read image {file!r}: it was removed or damaged while in use.")
    return with_channels(image, channels)


def decode_image(content: NDArray[np.uint8]) -> Image:
    """The BGR image uint8 [H,W,3] in the bytes of a file, turned as its EXIF data say.

    Grey, 16-bit, CMYK and palette images become 8-bit BGR; transparency is left out.

    Raises:
        ImageError: the bytes are no image, or one larger than OpenCV allows.
    """
    if not len(content):
        raise ImageError("the file is empty (zero bytes)")
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error:
        raise ImageError("is too large") from None
    if image is None:
        raise ImageError("is not an image or is damaged")
    return np.asarray(image, np.uint8)


def _decoded(file: str, flag: int) -> Image | None:
    """The image of a file; None if it is none.

    The bytes are read here: OpenCV's own reading of a file ends the process where its name is not UTF-8.

    Raises:
        OSError, cv2.error: the file cannot be read, or the image is larger than OpenCV allows.
    """
    content = np.fromfile(file, np.uint8)
    if not len(content):
        return None
    image = cv2.imdecode(content, flag)
    return None if image is None else np.asarray(image, np.uint8)


def check_image(file: str) -> tuple[int, int, str]:
    """Decodes an image once and returns its (height, width) as displayed, and a remark or "".

    Raises:
        ImageError: it cannot be decoded or is smaller than 10 pixels.
    """
    try:
        if os.stat(file).st_size == 0:  # noqa: PTH116
            raise ImageError("the file is empty (zero bytes)")
        # Decoding grey only checks every coded block at about half the cost of colour.
        image = _decoded(file, cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error) as error:
        raise ImageError(f"cannot be read ({error.strerror if isinstance(error, OSError) else 'too large'})") from None
    if image is None:
        raise ImageError("is not an image or is damaged")
    height, width = image.shape[:2]
    if min(height, width) < 10:
        raise ImageError(f"is only {width} x {height} pixels; 10 are the least")
    remark = ""
    if file.lower().endswith((".jpg", ".jpeg", ".jfif")) and _is_cut_short(file):
        remark = "the JPEG is cut short; used as far as it decodes"
    return height, width, remark


def _is_cut_short(file: str) -> bool:
    """Whether a JPEG lacks its end marker (some cameras write a few bytes after it)."""
    with Path(file).open("rb") as stream:
        if stream.read(2) != b"\xff\xd8":
            return False
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - 4096))
        return b"\xff\xd9" not in stream.read()


def list_images(sources: tuple[Path, ...], root: Path) -> list[str]:
    """Sorted image files of folders (searched to any depth, through links), `.txt` lists, patterns and single images.

    Raises:
        UserError: a source does not exist, is of another kind, or is a pattern that nothing matches.
    """
    files: list[str] = []
    for source in map(usable_path, sources):
        if source.is_dir():
            files += files_in(source)
        elif source.is_file() and source.suffix.lower() == ".txt":
            files += _listed(source, root)
        elif source.is_file() and source.suffix.lower() in SUFFIXES:
            files.append(str(source))
        elif not source.exists() and glob.has_magic(str(source)):
            files += files_matching(source)
        elif source.exists():
            raise UserError(f"{source} is neither a folder of images nor a .txt list of images.")
        else:
            raise UserError(f"Image folder or list {source} does not exist; correct the data.yaml.")
    return sorted(files)


def _is_one_of(name: str, suffixes: Collection[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes  # noqa: PTH122


def files_in(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[str]:
    """Files of a folder with one of the suffixes (those of images), at any depth, through links, each once."""
    files: list[str] = []
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back up would never end
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        files += [os.path.join(place, name) for name in names if _is_one_of(name, suffixes)]  # noqa: PTH118
    return files


def files_matching(pattern: Path, suffixes: Collection[str] = SUFFIXES) -> list[str]:
    """Files with one of the suffixes (those of images) that a pattern matches, and those in folders that it matches,
    each once; other files are passed over.

    Raises:
        UserError: nothing matches.
    """
    found = sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
    if not found:
        raise UserError(f"Nothing matches the pattern {pattern}.")
    files: set[str] = set()
    for name in found:
        if os.path.isdir(name):  # noqa: PTH112
            files.update(files_in(Path(name), suffixes))
        elif _is_one_of(name, suffixes):
            files.add(name)
    return list(files)


def _listed(file: Path, root: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the image list {file}: {error}.") from error
    files = []
    for line in (line.strip() for line in lines):
        if not line or not _is_one_of(line, SUFFIXES):
            continue
        if line.startswith("./"):
            path = file.parent / line
        else:
            path = root / line
            if not os.path.exists(path) and os.path.exists(file.parent / line):  # noqa: PTH110  (names too long too)
                path = file.parent / line
        files.append(os.path.normpath(path))
    return files
