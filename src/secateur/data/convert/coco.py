"""Converts COCO annotations to a YOLO data set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.data.convert.frames import Annotated, Box
from secateur.data.convert.writing import Converted, Placing, is_file, leads_out, write_data, write_split
from secateur.errors import UserError, shown, told
from secateur.files import atomic_folder, read_json


def coco_to_yolo(
    annotations: Mapping[str, str | Path] | str | Path,
    out: str | Path,
    images: str | Path | None = None,
    *,
    placing: Placing = "link",
) -> Converted:
    """Converts COCO instance annotations.

    Category ids become 0..n-1 in ascending order, without the grouping category of Roboflow exports. Crowd regions and
    boxes without area are skipped; images without objects are kept. Boxes refer to the image after its EXIF orientation
    is applied; differing image sizes in the annotation are reported.

    Args:
        annotations: one JSON file (used for the splits train and val), or one file per split.
        images: folder that `file_name` is relative to (default: the folder of the JSON file, or images/ in or next to
            it).

    Raises:
        UserError: `out` exists, a file is missing or not a COCO annotation, an image is missing or outside its folder,
            the splits have different categories, or ids or names are duplicates.
    """
    files = {"train": annotations} if isinstance(annotations, str | Path) else dict(annotations)
    loaded = {split: _coco(Path(file)) for split, file in files.items()}
    grouping = _grouping(list(loaded.values()))
    names: tuple[str, ...] = ()
    totals, problems = [0, 0], [f"category {told(name)} only groups others; skipped" for name in grouping.values()]
    with atomic_folder(out) as folder:
        for split, data in loaded.items():
            file = Path(files[split])
            category = {entry["id"]: entry["name"] for entry in data["categories"] if entry["id"] not in grouping}
            here = tuple(category[key] for key in sorted(category))
            if names and here != names:
                raise UserError(
                    f"{file} has different categories than the first file. All splits need the same categories."
                )
            names = here
            boxes = _boxes(data, {key: number for number, key in enumerate(sorted(category))}, file)
            annotated = [
                Annotated(
                    _find_image(entry["file_name"], file, images),
                    entry["file_name"],
                    (entry["width"], entry["height"]),
                    tuple(boxes[entry["id"]]),
                )
                for entry in data["images"]
            ]
            written, remarks = write_split(annotated, folder, split, placing)
            problems += remarks
            totals[0] += len(annotated)
            totals[1] += written
        write_data(folder, list(files), names)
    return Converted(Path(out) / "data.yaml", totals[0], totals[1], names, tuple(problems))


def _grouping(files: list[dict[str, Any]]) -> dict[int, str]:
    """The category (id -> name) that only groups the others, as in Roboflow exports.

    It has the id 0, is the only one with the supercategory "none", and is not used by any annotation of any split.
    """
    categories = files[0]["categories"] if files else []
    group = next((entry for entry in categories if entry["id"] == 0 and entry.get("supercategory") == "none"), None)
    others = [entry for entry in categories if entry is not group]
    if group is None or not others or any(entry.get("supercategory") == "none" for entry in others):
        return {}
    annotations = (entry for data in files for entry in data["annotations"] if isinstance(entry, dict))
    return {} if any(entry.get("category_id") in (0, "0") for entry in annotations) else {0: group["name"]}


def _coco(file: Path) -> dict[str, Any]:
    data = read_json(file)
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("images", "categories")):
        raise UserError(f"{file} is not a COCO annotation file. It needs the lists images, annotations and categories.")
    if not isinstance(data.get("annotations"), list):
        raise UserError(f"{file} has no annotations (is it an image_info file of a test set?).")
    for key, needed in _COCO_ENTRIES.items():
        for number, entry in enumerate(data[key]):
            if not isinstance(entry, dict):
                raise UserError(f"{file}: entry {number} of {key} is not an object with {', '.join(needed)}.")
            for name, (kind, what) in needed.items():
                value = entry.get(name)
                if not isinstance(value, kind) or isinstance(value, bool) or not _makes_sense(value, what):
                    raise UserError(f"{file}: entry {number} of {key} has no {name} that is {what}. Correct it.")
    for key, name in (("images", "id"), ("categories", "id"), ("categories", "name")):
        seen: set[Any] = set()
        for number, entry in enumerate(data[key]):
            if entry[name] in seen:
                raise UserError(
                    f"{file}: entry {number} of {key} has the {name} {shown(entry[name])}, which is a duplicate. Use a "
                    "different one for each entry."
                )
            seen.add(entry[name])
    return data


def _makes_sense(value: Any, what: str) -> bool:
    return bool(0 < value < 1e6 if what == "a size" else value.strip() if what == "a text" else True)


_COCO_ENTRIES: dict[str, dict[str, tuple[Any, str]]] = {
    "images": {
        "id": (int | str, "a number or a word"),
        "file_name": (str, "a text"),
        "width": (int | float, "a size"),
        "height": (int | float, "a size"),
    },
    "categories": {"id": (int, "a whole number"), "name": (str, "a text")},
}


def _boxes(data: Mapping[str, Any], class_of: Mapping[int, int], file: Path) -> dict[Any, list[Box]]:
    """Boxes of each image, by image id."""
    boxes: dict[Any, list[Box]] = {entry["id"]: [] for entry in data["images"]}
    for number, entry in enumerate(data["annotations"]):
        try:
            if entry.get("iscrowd"):
                continue
            x, y, w, h = (float(value) for value in entry["bbox"])
            box = Box(class_of[int(entry["category_id"])], (x, y, x + w, y + h), f"{file}: annotation {number}")
            if not all(map(math.isfinite, box.corners)):
                raise ValueError("not finite")
            boxes[entry["image_id"]].append(box)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{file}: annotation {number} is invalid ({type(error).__name__}: {told(error)}). It needs image_id, "
                "category_id and a bbox of 4 numbers, and both ids must exist."
            ) from error
    return boxes


def _find_image(name: str, file: Path, images: str | Path | None) -> Path:
    folders = (
        [Path(images)] if images is not None else [file.parent, file.parent / "images", file.parent.parent / "images"]
    )
    if leads_out(name):
        raise UserError(f"{file} names the image {shown(name)}, which is outside its folder. Use relative names.")
    for folder in folders:
        if is_file(folder / name):
            return folder / name
    raise UserError(
        f"Image {told(name)} of {file} is not in {' or '.join(map(str, folders))}. Set the folder of the images."
    )
