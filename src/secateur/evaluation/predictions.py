"""Detections as a COCO results file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from secateur.evaluation.matching import Boxes
from secateur.files import atomic_write

# COCO's own ids of the 80 classes: its numbering runs to 90 and has ten gaps.
_COCO91_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO91 = dict(enumerate(n for n in range(1, 91) if n not in _COCO91_GAPS))


def save_predictions(
    path: str | Path, detections: Boxes, files: Sequence[str], categories: Mapping[int, int] | None = None
) -> None:
    """Writes detections as COCO results: a list of image_id, category_id, bbox (x, y, width, height), score.

    Args:
        path: the JSON file.
        detections: boxes in pixels of the original images.
        files: image file of each image number; `image_id` is the file's stem, as a number when it is one.
        categories: category id of each class id (`COCO91` for COCO's own numbering); class ids stay without it.

    Raises:
        UserError: the file cannot be written.
    """
    stems = [Path(file).stem for file in files]
    ids = [int(stem) if stem.isascii() and stem.isdecimal() else stem for stem in stems]
    rows = [
        {
            "image_id": ids[image],
            "category_id": categories.get(label, label) if categories else label,
            "bbox": [round(x1, 3), round(y1, 3), round(x2 - x1, 3), round(y2 - y1, 3)],
            "score": round(score, 5),
        }
        for image, label, (x1, y1, x2, y2), score in zip(
            detections.image.tolist(),
            detections.classes.tolist(),
            detections.corners.tolist(),
            detections.scores.tolist(),
            strict=True,
        )
    ]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(rows, allow_nan=False), encoding="utf-8")
