"""Converts Pascal VOC annotations to a YOLO data set."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secateur.data.convert.frames import Annotated, Box
from secateur.data.convert.writing import Converted, Placing, is_file, leads_out, write_data, write_split
from secateur.data.images import SUFFIXES
from secateur.errors import UserError, told
from secateur.files import atomic_folder


def voc_to_yolo(
    folder: str | Path,
    out: str | Path,
    *,
    names: Sequence[str] | None = None,
    keep_difficult: bool = True,
    placing: Placing = "link",
) -> Converted:
    """Converts a Pascal VOC folder: Annotations/*.xml, JPEGImages/ and, if present,
    ImageSets/Main/{train,val,test}.txt.

    XML files next to their images are supported too; without image sets, all images are used for train and val. Class
    names are those found, sorted, unless `names` is set; objects of other classes are then skipped. Boxes refer to the
    image after its EXIF orientation is applied; differing image sizes in the annotation are reported.

    Raises:
        UserError: `out` exists, there are no XML files, one is invalid, two have the same name, an image is missing, or
            a class name is a duplicate.
    """
    folder = Path(folder)
    place = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    files = sorted(place.rglob("*.xml"))
    if not files:
        raise UserError(f"{folder} has no VOC annotations (*.xml, or Annotations/*.xml).")
    parsed: dict[str, _VocFile] = {}
    for file in files:
        if file.stem in parsed:
            raise UserError(
                f"{parsed[file.stem].file} and {file} have the same name. Rename one of them and its image."
            )
        parsed[file.stem] = _voc(file)
    found = sorted({name for entry in parsed.values() for name, *_ in entry.objects})
    classes = tuple(names) if names else tuple(found)
    if not classes:
        raise UserError(f"The VOC annotations in {folder} have no objects, so class names are unknown. Set names.")
    twice = next((name for name in classes if classes.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"The class name {twice!r} is a duplicate. Use a different name for each class.")
    problems = [f"objects of class {name} are skipped" for name in found if name not in classes]
    totals = [0, 0]
    splits = _voc_splits(folder, list(parsed))
    with atomic_folder(out) as made:
        for split, stems in splits.items():
            annotated = []
            for stem in stems:
                if stem not in parsed:
                    raise UserError(f"{folder}/ImageSets/Main/{split}.txt names {stem}, which has no annotation file.")
                entry = parsed[stem]
                source, name = _voc_image(folder, entry)
                annotated.append(Annotated(source, name, entry.size, _boxes(entry, classes, keep_difficult)))
            written, remarks = write_split(annotated, made, split, placing)
            problems += remarks
            totals[0] += len(annotated)
            totals[1] += written
        write_data(made, list(splits), classes)
    return Converted(Path(out) / "data.yaml", totals[0], totals[1], classes, tuple(problems))


_VocObject = tuple[str, bool, float, float, float, float]  # name, difficult, x0, y0, x1, y1 (counted from 1)


@dataclass(frozen=True)
class _VocFile:
    file: Path
    image: str
    size: tuple[int, int]  # width, height
    objects: tuple[_VocObject, ...]


def _voc(file: Path) -> _VocFile:
    try:
        root = ET.parse(file).getroot()
        size = int(float(_text(root, "size/width"))), int(float(_text(root, "size/height")))
        objects = tuple(_voc_object(item) for item in root.iter("object"))
    except (ET.ParseError, ValueError, OverflowError, LookupError, OSError) as error:
        raise UserError(f"{file} is not a valid VOC annotation ({told(error)}).") from error
    if not 0 < min(size) <= max(size) < 1e6:
        raise UserError(f"{file} has the image size {told(size[0], 20)} x {told(size[1], 20)}. Correct <size>.")
    image = (root.findtext("filename") or "").strip()
    usable = image if image and not leads_out(image) else f"{file.stem}.jpg"
    return _VocFile(file, usable, size, objects)


def _voc_object(item: ET.Element) -> _VocObject:
    box = [float(_text(item, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    if not all(map(math.isfinite, box)):
        raise ValueError("a box that is not finite")
    difficult = (item.findtext("difficult") or "0").strip() == "1"
    name = _text(item, "name").strip()
    if not name:
        raise ValueError("<name> is empty")
    return name, difficult, box[0], box[1], box[2], box[3]


def _text(element: ET.Element, path: str) -> str:
    text = element.findtext(path)
    if not text:
        raise ValueError(f"<{path}> is missing")
    return text


def _voc_splits(folder: Path, stems: list[str]) -> dict[str, list[str]]:
    lists = {split: folder / "ImageSets" / "Main" / f"{split}.txt" for split in ("train", "val", "test")}
    splits = {split: _stems(file) for split, file in lists.items() if file.is_file()}
    return splits or {"train": stems}


def _stems(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the image set {file} ({told(error)}). Save it as UTF-8 text.") from error
    return [line.split()[0] for line in lines if line.strip()]


def _boxes(entry: _VocFile, classes: Sequence[str], keep_difficult: bool) -> tuple[Box, ...]:
    # VOC counts pixels from 1, and the last pixel is part of the box.
    return tuple(
        Box(classes.index(name), (x0 - 1, y0 - 1, x1, y1), f"{entry.file}: a {name}")
        for name, difficult, x0, y0, x1, y1 in entry.objects
        if name in classes and (keep_difficult or not difficult)
    )


def _voc_image(folder: Path, entry: _VocFile) -> tuple[Path, str]:
    """The image of an annotation, and its name in its folder."""
    stem = Path(entry.image).stem
    for place in (folder / "JPEGImages", folder / "images", entry.file.parent):
        # <filename> often has a wrong suffix or names another file; then the name of the annotation file is used.
        for name in (
            entry.image,
            *(f"{base}{suffix}" for base in (stem, entry.file.stem) for suffix in sorted(SUFFIXES)),
        ):
            if is_file(place / name):
                return place / name, name
    raise UserError(
        f"The image of {entry.file} ({told(entry.image)}) is not in {folder}/JPEGImages or next to the annotation."
    )
