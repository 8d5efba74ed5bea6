"""Draws images on which two networks disagree: panels with the labelled objects and the boxes of each network."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

import cv2
import numpy as np
import torch
from torch import Tensor

from secateur.data.images import Image, read_image
from secateur.errors import UserError
from secateur.evaluation.matching import Boxes
from secateur.evaluation.record import DetectionRecord
from secateur.report.disagreement import Disagreement
from secateur.terminal import bar

LOG = logging.getLogger("secateur")
_SIDE = 640  # longest side of a panel, in px
_TITLE = 28  # height of the title above a panel, in px


def draw_disagreements(
    folder: Path,
    reference: tuple[str, DetectionRecord],
    other: tuple[str, DetectionRecord],
    rows: Sequence[Disagreement],
    confidence: float,
) -> int:
    """Writes one JPEG per row, largest disagreement first. Without the package supervision, writes none and logs a
    message.

    Args:
        folder: folder for the files NUMBER-IMAGE.jpg.
        reference, other: title and detections of each network.
        rows: images with their disagreement.
        confidence: confidence threshold of drawn boxes.

    Returns:
        number of files written; images that no longer exist are skipped.
    """
    if not rows:
        return 0
    if importlib.util.find_spec("supervision") is None:
        LOG.warning("Cannot draw images: supervision is not installed (pip install 'secateur[predict]').")
        return 0
    from secateur.prediction.drawing import Drawing
    from secateur.prediction.files import write_image
    from secateur.prediction.settings import DrawSettings

    record = reference[1]
    truths = Drawing(record.names, DrawSettings(hide_conf=True))
    found = Drawing(record.names, DrawSettings())
    written = 0
    with bar("drawing") as shown:
        for place, row in enumerate(shown.track(rows), 1):
            try:
                pixels = read_image(str(record.image_file(row.image)))
            except UserError:
                continue
            pixels, scale = _fitted(pixels)
            panels = [
                ("objects", truths.on(pixels, _rows(record.truths, row.image, scale))),
                *(
                    (name, found.on(pixels, _rows(one.detections, row.image, scale, confidence)))
                    for name, one in (reference, other)
                ),
            ]
            stem = re.sub(r"[^\w.-]", "_", PurePath(record.files[row.image]).stem)[:80]
            write_image(folder / f"{place:02d}-{stem}.jpg", np.concatenate([_titled(*one) for one in panels], axis=1))
            written += 1
    if written < len(rows):
        LOG.warning("%d images no longer exist under %s and are not drawn.", len(rows) - written, record.root or "/")
    return written


def _fitted(pixels: Image) -> tuple[Image, float]:
    """The image scaled so that its longer side is at most `_SIDE`, and the scale factor. Pixels are uint8 [H, W, 3]."""
    scale = min(1.0, _SIDE / max(pixels.shape[:2]))
    if scale == 1:
        return pixels, scale
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _rows(boxes: Boxes, image: int, scale: float, confidence: float = 0.0) -> Tensor:
    """Boxes float32 [n, 6] of one image, best first: x1, y1, x2, y2 in pixels, score, class."""
    mine = boxes.where((boxes.image == image) & (boxes.scores >= confidence))
    rows = np.concatenate((mine.corners * scale, mine.scores[:, None], mine.classes[:, None]), axis=1)
    return torch.from_numpy(rows[np.argsort(-mine.scores, kind="stable")].astype(np.float32))


def _titled(title: str, pixels: Image) -> Image:
    """The image, uint8 [H, W, 3], with a title line above it. Long titles keep their end."""
    line = np.full((_TITLE, pixels.shape[1], 3), 255, np.uint8)
    most = max(4, pixels.shape[1] // 9)
    text = title if len(title) <= most else f"...{title[3 - most :]}"
    cv2.putText(line, text, (4, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate((line, pixels), axis=0)
