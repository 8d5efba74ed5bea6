"""Reads image files with OpenCV (EXIF orientation applied), and finds image files of a folder, a list or a pattern."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from secateur.data.image_lists import read_list
from secateur.errors import UserError, told
from secateur.files import usable_path

logger = logging.getLogger("secateur")

Image = NDArray[np.uint8]
SUFFIXES = frozenset({".bmp", ".dng", ".jpeg", ".jpg", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".pfm"})
OTHER_SUFFIXES = frozenset({
    ".arw", ".avif", ".cr2", ".cr3", ".exr", ".gif", ".hdr", ".heic", ".heif", ".ico", ".j2k", ".jif", ".jp2", ".jpe",
    ".jpx", ".jxl", ".nef", ".orf", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".raf", ".ras", ".raw", ".rw2", ".svg",
    ".tga",
})  # fmt: skip
"""Suffixes of unsupported image formats; such files in a folder are reported."""
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


class ImageError(Exception):
    """An unusable image, with the reason."""


def check_image_channels(channels: int) -> None:
    """Checks that image files exist for this number of channels.

    Raises:
        UserError: the network takes neither grey nor colour images.
    """
    if channels not in (1, 3):
        raise UserError(
            f"The network takes images of {channels} channels, but Secateur reads only images of 1 (grey) or 3 "
            "(colour). Use a network with 'ch: 1' or 'ch: 3' in its model YAML."
        )


def with_channels(image: Image, channels: int) -> Image:
    """Converts a BGR image, uint8 [H, W, 3], for a network with this number of channels: 3: unchanged; 1: grey [H, W].

    Grey is .299 red + .587 green + .114 blue of the decoded image, for files, videos and arrays alike. Grey values from
    decoders differ slightly, depending on the format.
    """
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8) if channels == 1 else image


def read_image(file: str, reduce: int = 1, *, channels: int = 3) -> Image:
    """Reads a BGR image, uint8 [H, W, 3], or a grey image [H, W] for one channel, with sides divided by `reduce` (1, 2,
    4, 8).

    JPEG is decoded at the smaller size directly, which is faster than decoding and resizing and does not alias.

    Raises:
        UserError: the file was removed or damaged since it was checked.
    """
    try:
        image = _decoded(file, _REDUCED.get(reduce, cv2.IMREAD_COLOR))
    except (OSError, cv2.error):
        image = None
    if image is None:
        raise UserError(f"Cannot read image {file!r}: it was removed or damaged while in use.")
    return with_channels(image, channels)


def decode_image(content: NDArray[np.uint8]) -> Image:
    """The BGR image, uint8 [H, W, 3], in the bytes of a file, uint8 [n], with EXIF orientation applied.

    Grey, 16-bit, CMYK and palette images are converted to 8-bit BGR; transparency is ignored.

    Raises:
        ImageError: the bytes are not an image, or the image is larger than OpenCV supports.
    """
    if not len(content):
        raise ImageError("the file is empty (zero bytes)")
    try:
        image = _decode(content, cv2.IMREAD_COLOR, checked=True)[0]
    except cv2.error:
        raise ImageError("is too large") from None
    if image is None:
        raise ImageError("is not an image or is damaged")
    return image


def _decode(content: NDArray[np.uint8], flag: int, *, checked: bool = False) -> tuple[Image | None, str]:
    """The 8-bit image in the bytes of a file (None if they are not an image), and a note or "".

    Args:
        content: at least one byte.
        flag: flag of OpenCV for colours and size.
        checked: make sure that a JPEG without its end marker is otherwise complete.

    Raises:
        ImageError: with `checked`, the JPEG is incomplete.
        cv2.error: the image is larger than OpenCV supports.
    """
    image, remark = cv2.imdecode(content, flag | cv2.IMREAD_ANYDEPTH), ""
    # OpenCV 5 rejects a JPEG without its end marker; earlier versions silently fill missing parts.
    if _is_jpeg(content) and (image is None or (checked and _END not in content[-4096:].tobytes())):
        if image is None or _END not in content.tobytes():  # cameras may append a video after the marker
            remark = "the JPEG lacks its end marker; it is read anyway"
        image = cv2.imdecode(_with_end(content), flag)
        if checked and image is not None and not _is_complete(content):
            raise ImageError("the JPEG is truncated")
    if image is not None and image.dtype == np.uint16:
        return _shallow(np.asarray(image, np.uint16), content, flag)
    if image is not None and image.dtype != np.uint8:
        image = cv2.imdecode(content, flag)
    return (None, "") if image is None else (np.asarray(image, np.uint8), remark)


def _shallow(image: NDArray[np.uint16], content: NDArray[np.uint8], flag: int) -> tuple[Image | None, str]:
    """Converts a 16-bit image to 8 bits, with a note if its values use fewer than 16 bits.

    Cameras and converters store values of 8, 10 and 12 bits in 16 bits without scaling or marking them. Read as 16
    bits, they would be nearly black: below 1/16 of the range.
    """
    # Averaging lowers the maximum, so the image in full colour and full size is checked.
    whole = image if flag == cv2.IMREAD_COLOR else cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    largest = int(np.asarray(whole).max()) if whole is not None else 0
    bits = next((bits for bits in (8, 10, 12) if largest < 1 << bits), 16)
    if whole is None or bits == 16:  # as read by OpenCV, which rounds differently depending on the format
        plain = cv2.imdecode(content, flag)
        return (None if plain is None else np.asarray(plain, np.uint8)), ""
    deep = np.asarray(image if flag == cv2.IMREAD_GRAYSCALE else whole, np.uint16)
    result, size = np.right_shift(deep, bits - 8).astype(np.uint8), image.shape[1::-1]
    if result.shape[1::-1] != size:
        result = np.asarray(cv2.resize(result, size, interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)
    return result, f"{_DEEP} below {1 << bits}, read as {bits} bits"


_DEEP = "has 16-bit values"
_END = b"\xff\xd9"
_FILLING = b"\xa5\x5a\x3c\x71\x0e\xd2\x96\x18" * 16


def _is_jpeg(content: NDArray[np.uint8]) -> bool:
    return content[:2].tobytes() == b"\xff\xd8"


def _with_end(content: NDArray[np.uint8], filling: bytes = b"") -> NDArray[np.uint8]:
    """The bytes of a JPEG with an end marker, whose first byte may be in the file."""
    rest = content[:-1] if content[-1] == _END[0] else content
    return np.concatenate([rest, np.frombuffer(filling + _END, np.uint8)])


def _is_complete(content: NDArray[np.uint8]) -> bool:
    """Whether a JPEG is complete except for its end marker.

    If image data are missing, a decoder interprets the bytes that follow as image data; otherwise it ignores them.
    """
    ended = cv2.imdecode(_with_end(content), cv2.IMREAD_COLOR)
    filled = cv2.imdecode(_with_end(content, _FILLING), cv2.IMREAD_COLOR)
    return ended is not None and filled is not None and bool((ended == filled).all())


def _decoded(file: str, flag: int) -> Image | None:
    """The image of a file; None if it is not an image.

    The bytes are read here, because OpenCV terminates the process if the file name is not UTF-8.

    Raises:
        OSError, cv2.error: the file cannot be read, or the image is larger than OpenCV supports.
    """
    content = np.fromfile(file, np.uint8)
    return _decode(content, flag)[0] if len(content) else None


def check_image(file: str) -> tuple[int, int, str]:
    """Decodes an image and returns its (height, width) as displayed, and a note or "".

    Raises:
        ImageError: it cannot be decoded, is a truncated JPEG, or is smaller than 10 pixels.
    """
    try:
        content = np.fromfile(file, np.uint8)
        if not len(content):
            raise ImageError("the file is empty (zero bytes)")
        # Decoding as grey checks every coded block in about half the time of colour.
        image, remark = _decode(content, cv2.IMREAD_GRAYSCALE, checked=True)
    except (OSError, cv2.error) as error:
        raise ImageError(f"cannot be read ({error.strerror if isinstance(error, OSError) else 'too large'})") from None
    if image is None:
        raise ImageError("is not an image or is damaged")
    height, width = image.shape[:2]
    if min(height, width) < 10:
        raise ImageError(f"is only {width} x {height} pixels; the minimum is 10")
    return height, width, remark


def fold_remarks(problems: Iterable[str]) -> tuple[str, ...]:
    """Problems in order; the note on 16-bit values, which all images of a camera share, is only given once."""
    kept: dict[str, str] = {}
    count: Counter[str] = Counter()
    for problem in problems:
        remark = problem.rpartition(": ")[2]
        key = remark if remark.startswith(_DEEP) else problem
        count[key] += 1
        kept.setdefault(key, problem)
    return tuple(
        f"{text} (also {count[key] - 1} more images)" if key != text and count[key] > 1 else text
        for key, text in kept.items()
    )


def list_images(sources: tuple[Path, ...], root: Path) -> list[str]:
    """Sorted image files of folders (at any depth, including links), `.txt` lists, patterns and single images.

    Raises:
        UserError: a source does not exist or is not supported, a pattern matches nothing, or a line of a list is not an
            image.
    """
    files: list[str] = []
    for source in map(usable_path, sources):
        if source.is_dir():
            files += files_in(source)
        elif source.is_file() and source.suffix.lower() == ".txt":
            files += read_list(source, root, SUFFIXES)
        elif source.is_file() and source.suffix.lower() in SUFFIXES:
            files.append(str(source))
        elif not source.exists() and glob.has_magic(str(source)):
            files += files_matching(source)
        elif source.exists() and source.suffix.lower() in OTHER_SUFFIXES:
            raise UserError(f"{source} has an unsupported image format. Convert it to .jpg or .png.")
        elif source.exists():
            raise UserError(f"{source} is neither a folder of images nor a .txt list of images.")
        else:
            raise UserError(f"Image folder or list {source} does not exist. Correct the data.yaml.")
    return sorted(files)


def _is_one_of(name: str, suffixes: Collection[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes  # noqa: PTH122


def files_in(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[str]:
    """Files of a folder with one of the suffixes (default: images), at any depth, including links, without duplicates.

    The number of images with unsupported suffixes is logged.
    """
    files, others = _walk(folder, suffixes)
    _log_others(others, str(folder))
    return files


def _walk(folder: Path, suffixes: Collection[str]) -> tuple[list[str], list[str]]:
    """Files of a folder with one of the suffixes, and unsupported images."""
    files: list[str] = []
    others: list[str] = []
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:  # avoids infinite loops through links
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in names:
            if _is_one_of(name, suffixes):
                files.append(os.path.join(place, name))  # noqa: PTH118
            elif _is_one_of(name, OTHER_SUFFIXES):
                others.append(os.path.join(place, name))  # noqa: PTH118
    return files, others


def files_matching(pattern: Path, suffixes: Collection[str] = SUFFIXES) -> list[str]:
    """Files with one of the suffixes (default: images) that match a pattern or are in matching folders, without
    duplicates. Other files are ignored; the number of unsupported images is logged.

    Raises:
        UserError: nothing matches.
    """
    found = sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
    if not found:
        raise UserError(f"Nothing matches the pattern {pattern}.")
    files: set[str] = set()
    others: set[str] = set()
    for name in found:
        if os.path.isdir(name):  # noqa: PTH112
            inside = _walk(Path(name), suffixes)
            files.update(inside[0])
            others.update(inside[1])
        elif _is_one_of(name, suffixes):
            files.add(name)
        elif _is_one_of(name, OTHER_SUFFIXES):
            others.add(name)
    _log_others(others, str(pattern))
    return list(files)


def _log_others(files: Collection[str], place: str) -> None:
    """Logs how many images have unsupported formats, and which."""
    if not files:
        return
    kinds = Counter(os.path.splitext(file)[1].lower() for file in files)  # noqa: PTH122
    listed = ", ".join(f"{count} {suffix}" for suffix, count in sorted(kinds.items()))
    first = told(os.fsencode(min(files)).decode(errors="backslashreplace"))
    logger.warning(
        "%s: images of unsupported formats are skipped (%s; for example %s). Convert them to .jpg or .png.",
        place, listed, first,
    )  # fmt: skip
