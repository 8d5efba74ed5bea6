"""In which pixels the boxes of an annotation are: those of the image as it is read, or as it is stored, or others."""

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
"""Share of a side by which boxes reach out of images that they belong to: rounding, and careless hands."""


@dataclass(frozen=True)
class Box:
    """An object of an annotation.

    Attributes:
        number: of its class.
        corners: in the pixels of the annotation.
        origin: where it comes from, for sentences: "a.json: annotation 3".
    """

    number: int
    corners: Corners
    origin: str


@dataclass(frozen=True)
class Annotated:
    """An image and what an annotation says of it.

    Attributes:
        source: its file.
        name: of the file within the new data set.
        size: as the annotation states it.
        boxes: in the order of the annotation.
    """

    source: Path
    name: str
    size: Size
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class LabelledImage:
    """The image that boxes are in the pixels of.

    Attributes:
        width, height: in pixels.
        orientation: as EXIF counts it, what turns this image into the one that is read.
    """

    width: float
    height: float
    orientation: int = 1

    def turned(self, x0: float, y0: float, x1: float, y1: float) -> Corners:
        """Corners in 0..1 of this image as corners of the image that is read."""
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
"""Where a point of the stored image is in the one that is read, by EXIF orientation."""
_EXCHANGED = (5, 6, 7, 8)
"""Orientations that exchange width and height."""


@dataclass(frozen=True)
class _Read:
    """An image as it is read: its size, and by which EXIF orientation it was turned."""

    size: Size
    orientation: int


def find_frames(images: Sequence[Annotated]) -> tuple[list[LabelledImage], list[str]]:
    """The frame of each image, and a remark for every stated size that is not that of the image as it is read.

    Boxes count in the pixels of the image as it is read, but for two cases. Where the stated size is that of the
    image before its EXIF turn, the boxes were drawn there too and are turned; unless some boxes of the split reach out
    of the stored images and none out of the turned ones. Where the sizes differ otherwise, and some boxes of the split
    reach out of the images but none out of the stated sizes, the images were scaled afterwards and the stated sizes
    hold. Turns that keep the size are decided by the images of the split whose turn shows in their sizes; where there
    are none, boxes count in the image as it is read, with a remark.
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
        what = "turned with it" if as_stored else "already those of the turned image"
        problems.append(
            f"{image.source}: {_told(image.size)} is stated, and {_told(found.size)} after its EXIF turn; its boxes "
            f"are {what}"
        )
    as_stated = _prefer_first([(image, image.size, found.size) for _, image, found in scaled])
    for i, image, found in scaled:
        if as_stated:
            frames[i] = LabelledImage(*image.size)
        what = "stated size, as some reach out of the images" if as_stated else "image"
        problems.append(
            f"{image.source}: {_told(image.size)} is stated, and the image has {_told(found.size)}; its boxes are "
            f"taken in pixels of the {what}"
        )
    # Half a turn, a mirror image and a turned square keep the size: what the others of the split are decides.
    hidden = [entry for entry in known if entry[1].size == entry[2].size and entry[2].orientation in _TURNS]
    shown = [entry for entry in hidden if entry[2].orientation in _EXCHANGED and entry[2].size[0] != entry[2].size[1]]
    for i, image, found in hidden if not shown and (as_stored or not turned) else ():
        if turned:
            frames[i] = LabelledImage(*image.size, found.orientation)
        what = "turned with it, like those of other images" if turned else "taken for those of the turned image"
        problems.append(f"{image.source}: its EXIF data turn it, which its size does not show; its boxes are {what}")
    return frames, problems


def _is_turned(image: Annotated, found: _Read) -> bool:
    """Whether the stated size is that of the image before an EXIF turn."""
    return image.size == found.size[::-1] and found.orientation in _EXCHANGED


def _read_all(images: Sequence[Annotated]) -> tuple[list[_Read | None], list[str]]:
    """Every image with boxes (None for the others, and where it cannot be read), and what cannot be read."""
    with ThreadPoolExecutor(min(32, granted_cpus() + 1)) as pool:
        results = pool.map(_read, images)
        read = list(counted(results, "reading images", len(images)))
    problems = [
        f"{image.source}: {found}; the stated size is taken"
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
    """Whether boxes of some images reach out of the second of two sizes, and none out of the first."""
    first = any(_reaches_out(box.corners, size) for image, size, _ in sizes for box in image.boxes)
    return not first and any(_reaches_out(box.corners, size) for image, _, size in sizes for box in image.boxes)


def _reaches_out(corners: Corners, size: Size) -> bool:
    return any(corner > side + max(1.0, _SLACK * side) for corner, side in zip(corners[2:], size, strict=True))


def _told(size: Size) -> str:
    return f"{size[0]:g} x {size[1]:g}"


def _orientation(content: bytes) -> int:
    """The EXIF orientation by which the image in the bytes of a file was turned when it was read.

    Those that exchange width and height show in the size; of the others only a JPEG's is applied by every OpenCV.
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
"""The tag of EXIF and TIFF."""
