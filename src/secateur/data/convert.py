"""Turns COCO-json and VOC-xml annotations into a YOLO data set: images, labels and a data.yaml."""

from __future__ import annotations

import math
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

from secateur.data.images import SUFFIXES
from secateur.errors import UserError, shown, told
from secateur.files import atomic_folder, read_json, write_text

Placing = Literal["link", "copy"]
Row = tuple[int, float, float, float, float]  # class, xywh normalised


@dataclass(frozen=True)
class Converted:
    """What a conversion gave: its data.yaml, how many images and boxes it holds, and what was left out and why."""

    data: Path
    images: int
    boxes: int
    names: tuple[str, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        left_out = f", {len(self.problems)} things left out, first {self.problems[0]}" if self.problems else ""
        return f"{self.data} ({self.images} images, {self.boxes} boxes, {len(self.names)} classes{left_out})"


def coco_to_yolo(
    annotations: Mapping[str, str | Path] | str | Path,
    out: str | Path,
    images: str | Path | None = None,
    *,
    placing: Placing = "link",
) -> Converted:
    """Converts COCO instance annotations.

    annotations: one JSON file (it becomes the split train, and val too), or a file for each split. images: folder that
    the files' `file_name` is relative to (default: the JSON's folder, or images/ beside it). Category ids become 0..n-1
    in ascending order of id; crowd regions and boxes without area are left out; images without objects are kept.

    Raises:
        UserError: `out` exists, a file is missing or no COCO annotation, an image is missing or outside its folder,
            splits name other categories.
    """
    files = {"train": annotations} if isinstance(annotations, str | Path) else dict(annotations)
    names: tuple[str, ...] = ()
    totals, problems = [0, 0], []
    with atomic_folder(out) as folder:
        for split, file in files.items():
            data = _coco(Path(file))
            category = {entry["id"]: entry["name"] for entry in data["categories"]}
            here = tuple(category[key] for key in sorted(category))
            if names and here != names:
                raise UserError(f"{file} has other categories than the first file; all splits need the same.")
            names = here
            rows, left_out = _coco_rows(data, {key: number for number, key in enumerate(sorted(category))}, file)
            problems += left_out
            for entry in data["images"]:
                source = _find_image(entry["file_name"], Path(file), images)
                _place(source, folder, split, entry["file_name"], rows[entry["id"]], placing)
                totals[0] += 1
                totals[1] += len(rows[entry["id"]])
        _write_data(folder, list(files), names)
    return Converted(Path(out) / "data.yaml", totals[0], totals[1], names, tuple(problems))


def voc_to_yolo(
    folder: str | Path,
    out: str | Path,
    *,
    names: Sequence[str] | None = None,
    keep_difficult: bool = True,
    placing: Placing = "link",
) -> Converted:
    """Converts a Pascal VOC folder: Annotations/*.xml, JPEGImages/ and, if there, ImageSets/Main/{train,val,test}.txt.

    XML files beside their images work as well; without image sets all images become the split train (and val). Class
    names are those found, sorted, unless given; objects of other classes are then left out.

    Raises:
        UserError: `out` exists, no XML files, a broken one, an image is missing.
    """
    folder = Path(folder)
    place = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    files = sorted(place.rglob("*.xml"))
    if not files:
        raise UserError(f"{folder} has no VOC annotations (*.xml, or Annotations/*.xml).")
    parsed = {file.stem: _voc(file) for file in files}
    found = sorted({name for entry in parsed.values() for name, *_ in entry.objects})
    classes = tuple(names) if names else tuple(found)
    if not classes:
        raise UserError(f"The VOC annotations in {folder} hold no object, so there are no class names; give them.")
    problems = [f"objects of class {name} are left out" for name in found if name not in classes]
    totals = [0, 0]
    splits = _voc_splits(folder, list(parsed))
    with atomic_folder(out) as made:
        for split, stems in splits.items():
            for stem in stems:
                if stem not in parsed:
                    raise UserError(f"{folder}/ImageSets/Main/{split}.txt names {stem}, which has no annotation file.")
                entry = parsed[stem]
                rows, left_out = _voc_rows(entry, classes, keep_difficult)
                problems += left_out
                source, name = _voc_image(folder, entry)
                _place(source, made, split, name, rows, placing)
                totals[0] += 1
                totals[1] += len(rows)
        _write_data(made, list(splits), classes)
    return Converted(Path(out) / "data.yaml", totals[0], totals[1], classes, tuple(problems))


def _coco(file: Path) -> dict[str, Any]:
    data = read_json(file)
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "categories")):
        raise UserError(f"{file} is no COCO annotation file; it needs the lists images, annotations and categories.")
    if not isinstance(data.get("annotations"), list):
        raise UserError(f"{file} has no annotations (is it an image_info file of a test set?).")
    for key, needed in _COCO_ENTRIES.items():
        for number, entry in enumerate(data[key]):
            if not isinstance(entry, dict):
                raise UserError(f"{file}: entry {number} of {key} is no object with {', '.join(needed)}.")
            for name, (kind, what) in needed.items():
                value = entry.get(name)
                if not isinstance(value, kind) or isinstance(value, bool) or (what == "a size" and not 0 < value < 1e6):
                    raise UserError(f"{file}: entry {number} of {key} has no {name} that is {what}; correct it.")
    return data


_COCO_ENTRIES: dict[str, dict[str, tuple[Any, str]]] = {
    "images": {
        "id": (int | str, "a number or a word"),
        "file_name": (str, "a text"),
        "width": (int | float, "a size"),
        "height": (int | float, "a size"),
    },
    "categories": {"id": (int, "a whole number"), "name": (str, "a text")},
}


def _coco_rows(
    data: Mapping[str, Any], class_of: Mapping[int, int], file: str | Path
) -> tuple[dict[Any, list[Row]], list[str]]:
    sizes = {entry["id"]: (entry["width"], entry["height"]) for entry in data["images"]}
    rows: dict[Any, list[Row]] = {key: [] for key in sizes}
    problems = []
    for number, entry in enumerate(data["annotations"]):
        try:
            if entry.get("iscrowd"):
                continue
            width, height = sizes[entry["image_id"]]
            x, y, w, h = (float(value) for value in entry["bbox"])
            row = _row(class_of[int(entry["category_id"])], x, y, x + w, y + h, width, height)
            if not math.isfinite(sum(row[1:]) if row else 0.0):
                raise ValueError("not finite")
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{file}: annotation {number} is broken ({type(error).__name__}: {told(error)}); it needs image_id, "
                "category_id and a bbox of 4 numbers, and both ids must exist."
            ) from error
        if row is None:
            problems.append(f"{file}: annotation {number} has no area inside its image; left out")
        elif row not in rows[entry["image_id"]]:
            rows[entry["image_id"]].append(row)
    return rows, problems


def _find_image(name: str, file: Path, images: str | Path | None) -> Path:
    folders = (
        [Path(images)] if images is not None else [file.parent, file.parent / "images", file.parent.parent / "images"]
    )
    if _leads_out(name):
        raise UserError(f"{file} names the image {shown(name)}, which is outside its folder; make such names relative.")
    for folder in folders:
        if _is_file(folder / name):
            return folder / name
    raise UserError(
        f"Image {told(name)} of {file} is not in {' or '.join(map(str, folders))}; give the folder of the images."
    )


def _leads_out(name: str) -> bool:
    """Whether a name in a file of annotations is more than a name in the folder of the images."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or name[1:2] == ":"  # a drive


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than the system allows, or with a NUL
        return False


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
        raise UserError(f"{file} is no VOC annotation ({told(error)}).") from error
    if not 0 < min(size) <= max(size) < 1e6:
        raise UserError(f"{file} gives the image size {told(size[0], 20)} x {told(size[1], 20)}; correct <size>.")
    image = (root.findtext("filename") or "").strip()
    usable = image if image and not _leads_out(image) else f"{file.stem}.jpg"
    return _VocFile(file, usable, size, objects)


def _voc_object(item: ET.Element) -> _VocObject:
    box = [float(_text(item, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    if not all(map(math.isfinite, box)):
        raise ValueError("a box that is not finite")
    difficult = (item.findtext("difficult") or "0").strip() == "1"
    return _text(item, "name").strip(), difficult, box[0], box[1], box[2], box[3]


def _text(element: ET.Element, path: str) -> str:
    text = element.findtext(path)
    if not text:
        raise ValueError(f"<{path}> is missing")
    return text


def _voc_splits(folder: Path, stems: list[str]) -> dict[str, list[str]]:
    lists = {split: folder / "ImageSets" / "Main" / f"{split}.txt" for split in ("train", "val", "test")}
    splits = {
        split: [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        for split, file in lists.items()
        if file.is_file()
    }
    return splits or {"train": stems}


def _voc_rows(entry: _VocFile, classes: Sequence[str], keep_difficult: bool) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    problems = []
    for name, difficult, x0, y0, x1, y1 in entry.objects:
        if name not in classes or (difficult and not keep_difficult):
            continue
        # VOC counts pixels from 1, and its last pixel belongs to the box.
        row = _row(classes.index(name), x0 - 1, y0 - 1, x1, y1, *entry.size)
        if row is None:
            problems.append(f"{entry.file}: a {name} has no area inside the image; left out")
        elif row not in rows:
            rows.append(row)
    return rows, problems


def _voc_image(folder: Path, entry: _VocFile) -> tuple[Path, str]:
    """The image of an annotation, and its name in its folder."""
    stem = Path(entry.image).stem
    for place in (folder / "JPEGImages", folder / "images", entry.file.parent):
        # <filename> often has a wrong suffix, or is another file altogether; the annotation's own name decides then.
        for name in (
            entry.image,
            *(f"{base}{suffix}" for base in (stem, entry.file.stem) for suffix in sorted(SUFFIXES)),
        ):
            if _is_file(place / name):
                return place / name, name
    raise UserError(
        f"The image of {entry.file} ({told(entry.image)}) is not in {folder}/JPEGImages or beside the annotation."
    )


def _row(number: int, x0: float, y0: float, x1: float, y1: float, width: float, height: float) -> Row | None:
    """Pixel corners, clipped to the image, as a label row; None if nothing is left."""
    x0, x1 = (min(max(x, 0.0), width) / width for x in (x0, x1))
    y0, y1 = (min(max(y, 0.0), height) / height for y in (y0, y1))
    if x1 <= x0 or y1 <= y0:
        return None
    return number, (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def _place(source: Path, out: Path, split: str, name: str, rows: Iterable[Row], placing: Placing) -> None:
    """Puts an image (as a link or a copy) and its label file into the new data set."""
    relative = Path(name).with_suffix(source.suffix)
    image = out / "images" / split / relative
    label = (out / "labels" / split / relative).with_suffix(".txt")
    if label.exists():
        raise UserError(f"Two images would have the labels {split}/{relative.with_suffix('.txt')}; rename one of them.")
    try:
        image.parent.mkdir(parents=True, exist_ok=True)
        label.parent.mkdir(parents=True, exist_ok=True)
        if placing == "copy":
            shutil.copyfile(source, image)
        else:
            image.symlink_to(os.path.relpath(source.resolve(), image.parent.resolve()))
        label.write_text("".join(f"{row[0]} {' '.join(f'{value:.6f}' for value in row[1:])}\n" for row in rows))
    except OSError as error:
        raise UserError(f"Cannot write {image}: {error.strerror or error}; choose another folder.") from error


def _write_data(out: Path, splits: Sequence[str], names: Sequence[str]) -> None:
    entries = {split: f"images/{split}" for split in splits}
    entries.setdefault("val", entries["train"] if "train" in entries else next(iter(entries.values())))
    content = {"path": ".", **entries, "names": dict(enumerate(names))}
    write_text(out / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
