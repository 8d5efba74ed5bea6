"""Determines the pixel frame of annotated boxes: the image after its EXIF rotation, as stored, or another size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from secateur.data.images import ImageError, check_image
from secateur.machine import granted_cpus
from secateur.terminal import counted

Corners = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels, counted from 0
Size = tuple[float, float]  # width, height
_SLACK = 0.01
"""Share of a side by which boxes may exceed their images, because of rounding or inaccurate annotation."""


@dataclass(frozen=True)
class Box:
    """An object of an annotation.

    Attributes:
        number: class number.
        corners: in pixels of the annotation.
        origin: source for messages: "a.json: annotation 3".
    """

    number: int
    corners: Corners
    origin: str


@dataclass(frozen=True)
class Annotated:
    """An image and its annotation.

    Attributes:
        source: its file.
        name: name of the file in the new data set.
        size: size in the annotation.
        boxes: in the order of the annotation.
    """

    source: Path
    name: str
    size: Size
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class LabelledImage:
    """The image that the boxes refer to.

    Attributes:
        width, height: in pixels.
        orientation: EXIF orientation that converts this image to the one that is read.
    """

    width: float
    height: float
    orientation: int = 1

    def turned(self, x0: float, y0: float, x1: float, y1: float) -> Corners:
        """Converts corners in 0..1 of this image to corners in the image that is read."""
        turn = _TURNS.get(self.orientation)
        if turn is None:
            return x0, y0, x1, y1
        (a0, b0), (a1, b1) = turn(x0, y0), turn(x1, y1)
        return min(a0, a1), min(b0, b1), max(a0, a1), max(b0, b1)


_TURNS: dict[int, Callable[[float, float], tuple[float, float]]] = {
    2: lambda x, y: (1 - x, y),
    3: lambda x, y: (1 - x, 1 - y),
    4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x),
    6: lambda x, y: (1 - y, x),
    7: lambda x, y: (1 - y, 1 - x),
    8: lambda x, y: (y, 1 - x),
}
"""Maps a point of the stored image to the image that is read, by EXIF orientation."""
_EXCHANGED = (5, 6, 7, 8)
"""Orientations that exchange width and height."""


@dataclass(frozen=True)
class _Read:
    """Size of an image as read, and the EXIF orientation that was applied."""

    size: Size
    orientation: int


def find_frames(images: Sequence[Annotated]) -> tuple[list[LabelledImage], list[str]]:
    """The frame of each image, and a note for every size in the annotation that differs from the image as read.

    Boxes refer to the image as read, with two exceptions. If the size in the annotation is that of the image before its
    EXIF rotation, the boxes are rotated too, unless some boxes of the split exceed the stored images and none exceed
    the rotated ones. If sizes differ otherwise, and some boxes of the split exceed the images but none exceed the sizes
    in the annotation, the images were scaled later and the sizes in the annotation apply. For rotations that do not
    change the size, the other images of the split decide; if there are none, boxes refer to the image as read, and a
    note is added.
    """
    read, problems = _read_all(images)
    frames = [LabelledImage(*(known.size if known else image.size)) for image, known in zip(images, read, strict=True)]
    known = [(i, image, found) for i, (image, found) in enumerate(zip(images, read, strict=True)) if found]
    differing = [(i, image, found) for i, image, found in known if image.size != found.size]
    turned = [entry for entry in differing if _is_turned(entry[1], entry[2])]
    scaled = [entry for entry in differing if not _is_turned(entry[1], entry[2])]
    as_stored = not _prefer_first([(image, found.size, image.size) for _, image, found in turned])
    for i, image, found in turned:
        if as_stored:
            frames[i] = LabelledImage(*image.size, found.orientation)
        what = "rotated with it" if as_stored else "already those of the rotated image"
        problems.append(
            f"{image.source}: the annotation has the size {_told(image.size)}, but after its EXIF rotation the image "
            f"has {_told(found.size)}; its boxes are {what}"
        )
    as_stated = _prefer_first([(image, image.size, found.size) for _, image, found in scaled])
    for i, image, found in scaled:
        if as_stated:
            frames[i] = LabelledImage(*image.size)
        what = "size in the annotation, because some exceed the images" if as_stated else "image"
        problems.append(
            f"{image.source}: the annotation has the size {_told(image.size)}, but the image has {_told(found.size)}; "
            f"its boxes are treated as pixels of the {what}"
        )
    # Half a turn, mirroring and the rotation of a square keep the size, so the other images of the split decide.
    hidden = [entry for entry in known if entry[1].size == entry[2].size and entry[2].orientation in _TURNS]
    shown = [entry for entry in hidden if entry[2].orientation in _EXCHANGED and entry[2].size[0] != entry[2].size[1]]
    for i, image, found in hidden if not shown and (as_stored or not turned) else ():
        if turned:
            frames[i] = LabelledImage(*image.size, found.orientation)
        what = "rotated with it, like those of other images" if turned else "treated as those of the rotated image"
        problems.append(f"{image.source}: its EXIF data rotate it without changing the size; its boxes are {what}")
    return frames, problems


def _is_turned(image: Annotated, found: _Read) -> bool:
    """Whether the size in the annotation is that of the image before an EXIF rotation."""
    return image.size == found.size[::-1] and found.orientation in _EXCHANGED


def _read_all(images: Sequence[Annotated]) -> tuple[list[_Read | None], list[str]]:
    """All images with boxes (None for the others, and for unreadable ones), and the unreadable ones."""
    with ThreadPoolExecutor(min(32, granted_cpus() + 1)) as pool:
        results = pool.map(_read, images)
        read = list(counted(results, "reading images", len(images)))
    problems = [
        f"{image.source}: {found}; the size in the annotation is used"
        for image, found in zip(images, read, strict=True)
        if isinstance(found, str)
    ]
    return [None if isinstance(found, str) else found for found in read], problems


def _read(image: Annotated) -> _Read | str | None:
    if not image.boxes:
        return None
    try:
        height, width, _ = check_image(str(image.source))
        return _Read((width, height), _orientation(image.source.read_bytes()))
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _prefer_first(sizes: Sequence[tuple[Annotated, Size, Size]]) -> bool:
    """Whether boxes of some images exceed the second of two sizes, and none exceed the first."""
    first = any(_reaches_out(box.corners, size) for image, size, _ in sizes for box in image.boxes)
    return not first and any(_reaches_out(box.corners, size) for image, _, size in sizes for box in image.boxes)


def _reaches_out(corners: Corners, size: Size) -> bool:
    return any(corner > side + max(1.0, _SLACK * side) for corner, side in zip(corners[2:], size, strict=True))


def _told(size: Size) -> str:
    return f"{size[0]:g} x {size[1]:g}"


def _orientation(content: bytes) -> int:
    """EXIF orientation that was applied when the image in the bytes of a file was read.

    Orientations that exchange width and height are visible in the size; of the others, all versions of OpenCV only
    apply those of JPEG files.
    """
    is_jpeg = content[:2] == b"\xff\xd8"
    for mark, ahead in ((b"Exif\0\0", 6), (b"eXIf", 4), (b"EXIF", 8), (content[:2], 0)):
        place = content.find(mark)
        table = content[place + ahead :] if place >= 0 else b""
        if table[:4] not in (b"II*\0", b"MM\0*"):
            continue
        order: Literal["little", "big"] = "little" if table[:1] == b"I" else "big"
        first = int.from_bytes(table[4:8], order)
        count = int.from_bytes(table[first : first + 2], order)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            if int.from_bytes(table[entry : entry + 2], order) == _ORIENTATION:
                found = int.from_bytes(table[entry + 8 : entry + 10], order)
                return found if is_jpeg or found in _EXCHANGED else 1
    return 1


_ORIENTATION = 0x112
"""Tag number in EXIF and TIFF."""
