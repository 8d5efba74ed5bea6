"""Reads lists of images, one path per line, in the formats of YOLOv5, Darknet, CVAT and programs that quote names."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from secateur.errors import UserError, shown

logger = logging.getLogger("secateur")

_NUMBER = r"-?\d+(?:\.\d+)?"
_BOX = re.compile(rf"{_NUMBER}(?:,{_NUMBER}){{3,4}}")
"""A box after a path: x1,y1,x2,y2 or x1,y1,x2,y2,class."""
_ENDS_WITH_BOX = re.compile(r",\d[\d.]*$")


def read_list(file: Path, root: Path, suffixes: Collection[str]) -> list[str]:
    """The images of a list. Each line is a path, with or without quotes, empty, or a comment after `#`.

    A path is relative to `root` or to the folder of the list; a path with `./` to the folder of the list. If the file
    does not exist, it is also tried with `/` instead of `\\`, and without its first folder, as needed for CVAT exports;
    this is logged once. Boxes after a path (`a.jpg 10,20,30,40,0`) are ignored, which is logged too.

    Args:
        file: the list, UTF-8.
        root: folder of the data set.
        suffixes: suffixes of images, in lower case.

    Returns:
        Paths in the order of the list. The files need not exist.

    Raises:
        UserError: the list cannot be read, or a line is invalid; the message names the line.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"Cannot read the image list {file}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The image list {file} is not UTF-8 text. Save it as UTF-8.") from error
    files: list[str] = []
    changed: dict[str, tuple[str, str]] = {}
    folders = str(root), str(file.parent)
    boxed = 0
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, has_boxes = path_in(text)
        place, change = _find(name, folders)
        if not (_is_image(name, suffixes) and (place or _is_one(name, suffixes))):
            raise UserError(
                f"Image list {file}, line {number} is {shown(text)}, but must be the path of one image (.jpg, .png and "
                "others), or a comment after #."
            )
        files.append(os.path.normpath(place or os.path.join(folders[name.startswith("./")], name)))  # noqa: PTH118
        boxed += has_boxes
        if change:
            changed.setdefault(change, (name, files[-1]))
    for change, (name, place) in changed.items():
        logger.warning("Image list %s: paths are read %s (%s is %s).", file, change, name, place)
    if boxed:
        logger.warning(
            "Image list %s: the boxes after %d paths are ignored. Labels are read from label files.", file, boxed
        )
    return files


def path_in(text: str) -> tuple[str, bool]:
    """The path in a line of a list, without quotes, and whether boxes follow it."""
    boxes = 0
    if _ENDS_WITH_BOX.search(text):
        words = text.split()
        while boxes < len(words) - 1 and _BOX.fullmatch(words[-1 - boxes]):
            boxes += 1
    name = text.rsplit(maxsplit=boxes)[0] if boxes else text
    quoted = len(name) > 2 and name[0] == name[-1] and name[0] in "\"'"
    return name[1:-1] if quoted else name, boxes > 0


def _is_image(name: str, suffixes: Collection[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes  # noqa: PTH122


def _is_one(name: str, suffixes: Collection[str]) -> bool:
    """Whether no image suffix is followed by more words, which would not be part of the path."""
    return not any(suffix.lower() in suffixes for suffix in re.findall(r"""(\.\w+)["']?[\s,;]""", name))


def _find(name: str, folders: tuple[str, str]) -> tuple[str, str]:
    """The file for a line of a list ("" if it does not exist), and how the name was changed to find it.

    Args:
        name: result of `path_in`.
        folders: base folders: the first, then the second; the second first for names with `./`.
    """
    for changed, how in _variants(name):
        for base in folders[::-1] if changed.startswith("./") else folders:
            place = os.path.join(base, changed)  # noqa: PTH118
            if os.path.exists(place):  # noqa: PTH110  (names too long too)
                return place, how
    return "", ""


def _variants(name: str) -> Iterator[tuple[str, str]]:
    """A name as written, and as other systems would have written it."""
    yield name, ""
    slashed = name.replace("\\", "/")
    if slashed != name:
        yield slashed, "with / for \\"
    parts = PurePosixPath(slashed).parts
    if len(parts) > 1 and not slashed.startswith("/"):
        yield "/".join(parts[1:]), "without their first folder" + (" and with / for \\" if slashed != name else "")
