"""Validation images with objects and the boxes of the dense and pruned networks, largest differences first."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import cv2
import numpy as np

from secateur.data.images import Image, read_image
from secateur.evaluation.record import DetectionRecord
from secateur.report.figures import class_colour
from secateur.report.page import wording as say
from secateur.report.page.blocks import Block, Heading, Paragraph, Section
from secateur.report.page.detections import Counted, compared_records, counted, disagreement, signature_of
from secateur.report.page.model import RunData

CONFIDENCE = 0.25
MOST_IMAGES = 18
MOST_BYTES = 1_600_000
"""Maximum size of all thumbnails of a page in characters."""
_SIDE = 400
"""px of the longer side of a thumbnail, and the units of that side for drawing boxes."""
_SHOWN = 6
"""Number of images shown before the rest is unfolded."""
_LETTER, _LINE = 7.9, 16.0
"""Width of a letter and height of a line of a box label, in drawing units."""
_MOST_BOXES = 150
"""Maximum number of boxes per panel, most confident first."""
_MOST_NETWORKS = 3


@dataclass(frozen=True)
class DrawnBox:
    """A rectangle in drawing units.

    Attributes:
        x, y, width, height: position and size.
        words: label text.
        colour: colour of its class.
        look: "hit", "spurious" or "missed".
        label: position of the label (left, baseline); None if there is no space for it.
    """

    x: float
    y: float
    width: float
    height: float
    words: str
    colour: str
    look: str
    label: tuple[float, float] | None = None


@dataclass(frozen=True)
class Panel:
    """One drawing of an image: the network, a description, and its boxes."""

    title: str
    words: str
    boxes: Sequence[DrawnBox]


@dataclass(frozen=True)
class ComparedImage:
    """An image of the gallery: name, thumbnail as a data URI, width and height of the drawing, and panels."""

    name: str
    uri: str
    width: int
    height: int
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Gallery:
    """Images with their boxes; `key` is the prefix of their ids on the page."""

    kind: ClassVar[str] = "gallery"
    key: str
    images: Sequence[ComparedImage]
    shown: int = _SHOWN


def gallery(runs: Sequence[RunData]) -> Section:
    """One gallery for runs with the same evaluated images, otherwise one per run."""
    groups = _groups(runs)
    if not groups:
        return Section("gallery", "Images", absent="No run kept its detections (detections.npz).")
    blocks: list[Block] = []
    for place, (label, records) in enumerate(groups, 1):
        images, sentence = _chosen(records, MOST_IMAGES // len(groups) or 1, MOST_BYTES // len(groups))
        blocks += [Heading(label)] if len(groups) > 1 else []
        blocks += [Paragraph(sentence)] + ([Gallery(f"images-{place}", images)] if images else [])
    lead = (
        f"Boxes with a confidence of at least {CONFIDENCE:g}, after the same class-wise suppression as in the "
        "evaluation. Solid "
    )
    lead += "boxes match an object at IoU 0.5, dashed boxes match none, dotted white boxes are missed objects."
    return Section("gallery", "Images", lead, blocks)


def _groups(runs: Sequence[RunData]) -> list[tuple[str, list[tuple[str, DetectionRecord]]]]:
    """Networks evaluated on the same images, by the names of their runs."""
    found: dict[str, tuple[list[str], list[tuple[str, DetectionRecord]]]] = {}
    for run in runs:
        records = compared_records(run)
        if not records:
            continue
        labels, known = found.setdefault(signature_of(run), ([], []))
        labels.append(run.label)
        # The dense network of further runs on the same images is omitted.
        for title, record in records if not known else records[1:] or records:
            known.append((f"{run.label}: {title}" if len(runs) > 1 else title, record))
    return [(say.joined(labels), records[:_MOST_NETWORKS]) for labels, records in found.values()]


def _chosen(records: Sequence[tuple[str, DetectionRecord]], most: int, budget: int) -> tuple[list[ComparedImage], str]:
    """The images with the largest differences between the first and the last network, and a sentence about them."""
    first, last = records[0][1], records[-1][1]
    if len(records) > 1:
        score = disagreement(first, last, CONFIDENCE)
    else:  # a single network: the images with most missed objects and false boxes
        found = counted(first, CONFIDENCE)
        score = np.bincount(first.truths.image[~found.found], minlength=len(first))
        score = score + np.bincount(first.detections.image[found.shown & ~found.hit], minlength=len(first))
    order = np.argsort(-score, kind="stable")
    matches = [counted(record, CONFIDENCE) for _, record in records]
    images: list[ComparedImage] = []
    unread = used = 0
    for number in order.tolist():
        if len(images) == most or used >= budget or unread > most:
            break
        image = _read(first, number)
        if image is None:
            unread += 1
            continue
        images.append(_compared(records, matches, number, image))
        used += len(images[-1].uri)
    return images, _sentence(records, score, len(images), first)


def _read(record: DetectionRecord, number: int) -> Image | None:
    """The image as it was evaluated (BGR uint8 [H, W, 3]); None if it no longer exists or has changed."""
    file = record.image_file(number)
    if not file.is_file():
        return None
    try:
        image = read_image(str(file))
    except Exception:  # decoders raise many types; the page is written without the image
        return None
    return image if image.shape[:2] == tuple(record.shapes[number].tolist()) else None


def _sentence(
    records: Sequence[tuple[str, DetectionRecord]], score: np.ndarray[tuple[int], np.dtype[np.int64]], shown: int,
    first: DetectionRecord,
) -> str:  # fmt: skip
    if not shown:
        return f"The images are no longer in {first.root or 'their folder'}, so none is shown."
    count = int((score > 0).sum())
    if len(records) == 1 and not count:
        return f"{records[0][0]} detects all objects without false boxes; {shown} images are shown."
    if len(records) == 1:
        return (f"{records[0][0]} has missed objects or false boxes on {count:,} of "
            f"{say.counted(len(first), 'image')}; the {shown} with most of them are shown.")  # fmt: skip
    names = f"{records[0][0]} and {records[-1][0]}"
    if not count:
        return f"{names} agree on all {say.counted(len(first), 'image')}; {shown} of them are shown."
    return (
        f"{names} disagree on {count:,} of {say.counted(len(first), 'image')}; the {shown} with the largest "
        "differences are shown."
    )


def _compared(
    records: Sequence[tuple[str, DetectionRecord]], matches: Sequence[Counted], number: int, image: Image
) -> ComparedImage:
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    panels = [_truth_panel(records[0][1], number, scale)]
    panels += [
        _network_panel(title, record, match, number, scale)
        for (title, record), match in zip(records, matches, strict=True)
    ]
    panels = [replace(panel, boxes=_labelled(panel.boxes, size)) for panel in panels]
    return ComparedImage(records[0][1].files[number], data_uri(np.asarray(small, np.uint8)), *size, panels)


def data_uri(image: Image) -> str:
    """A BGR uint8 [H, W, 3] image as a data URI in WebP, or in JPEG if OpenCV lacks WebP."""
    for suffix, kind, flag in ((".webp", "webp", cv2.IMWRITE_WEBP_QUALITY), (".jpg", "jpeg", cv2.IMWRITE_JPEG_QUALITY)):
        try:
            done, content = cv2.imencode(suffix, image, [flag, 72])
        except cv2.error:
            continue
        if done:
            return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode('ascii')}"
    raise ValueError("OpenCV supports neither WebP nor JPEG")


def _truth_panel(record: DetectionRecord, number: int, scale: float) -> Panel:
    truths = record.truths
    places = range(record.truth_offsets[number], record.truth_offsets[number + 1])
    boxes = [
        _box(truths.corners[i], scale, _name(record, truths.classes[i]), class_colour(int(truths.classes[i])), "hit")
        for i in places
    ]
    return Panel("labels", say.counted(len(places), "object"), boxes[:_MOST_BOXES])


def _network_panel(title: str, record: DetectionRecord, match: Counted, number: int, scale: float) -> Panel:
    found, truths = record.detections, record.truths
    mine = range(record.detection_offsets[number], record.detection_offsets[number + 1])
    shown = sorted((i for i in mine if match.shown[i]), key=lambda i: -found.scores[i])
    objects = range(record.truth_offsets[number], record.truth_offsets[number + 1])
    missed = [i for i in objects if not match.found[i]]
    boxes = [_box(truths.corners[i], scale, "", "#ffffff", "missed") for i in missed]
    boxes += [
        _box(
            found.corners[i],
            scale,
            f"{_name(record, found.classes[i])} {found.scores[i]:.2f}",
            class_colour(int(found.classes[i])),
            "hit" if match.hit[i] else "spurious",
        )
        for i in shown[:_MOST_BOXES]
    ]
    spurious = sum(not match.hit[i] for i in shown)
    words = f"{len(objects) - len(missed)} of {len(objects)} found"
    words += f", {spurious} spurious" if spurious else ""
    return Panel(title, words, boxes)


def _box(
    corners: np.ndarray[tuple[int], np.dtype[np.float64]], scale: float, words: str, colour: str, look: str
) -> DrawnBox:
    x1, y1, x2, y2 = (round(float(value) * scale, 1) for value in corners)
    return DrawnBox(x1, y1, round(max(x2 - x1, 0.5), 1), round(max(y2 - y1, 0.5), 1), words, colour, look)


def _labelled(boxes: Sequence[DrawnBox], size: tuple[int, int]) -> list[DrawnBox]:
    """The boxes with positions for their labels: above, below or inside, without overlapping earlier labels."""
    taken: list[tuple[float, float, float]] = []
    placed = []
    for box in boxes:
        wide = _LETTER * len(box.words)
        x = max(1.0, min(box.x + 1, size[0] - wide - 1))
        lines = (box.y - 3, box.y + box.height + _LINE - 3, box.y + _LINE - 2)
        label = next((
            (round(x, 1), round(y, 1)) for y in lines if _LINE - 3 <= y <= size[1] - 2 and not any(
                abs(y - other) < _LINE and x < right and left < x + wide for left, right, other in taken)
        ), None)  # fmt: skip
        if label is not None and box.words:
            taken.append((x, x + wide, label[1]))
        placed.append(replace(box, label=label if box.words else None))
    return placed


def _name(record: DetectionRecord, number: int) -> str:
    name = record.names.get(int(number), str(number))
    return name if len(name) <= 18 else f"{name[:17]}…"
