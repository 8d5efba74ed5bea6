"""Writes what was found as text: label files in YOLO's format, lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.files import atomic_write
from secateur.prediction.predicting import Prediction


def write_labels(folder: Path, prediction: Prediction, *, confidence: bool) -> None:
    """Writes `<stem>.txt`, of a frame `<stem>_<number>.txt`; nothing where nothing was found.

    Args:
        folder: of the label files.
        prediction: of one image.
        confidence: add it as a sixth column.
    """
    if not len(prediction.boxes):
        return
    height, width = prediction.frame.pixels.shape[:2]
    lines = []
    for x1, y1, x2, y2, score, number in prediction.boxes.tolist():
        place = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        row = (*place, score) if confidence else place
        lines.append(" ".join([str(int(number)), *(f"{value:.6g}" for value in row)]))
    with atomic_write(folder / f"{prediction.frame.stem}.txt", durable=False) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def json_line(prediction: Prediction, names: Mapping[int, str]) -> str:
    """File, frame of a video, size in pixels and detections, boxes as x1, y1, x2, y2 in pixels; without a newline."""
    frame = prediction.frame
    row: dict[str, Any] = {"file": str(frame.medium)}
    if frame.number is not None:
        row["frame"] = frame.number
    row["height"], row["width"] = frame.pixels.shape[:2]
    row["detections"] = [
        {
            "class": int(number),
            "name": names.get(int(number), str(int(number))),
            "confidence": round(score, 5),
            "box": [round(value, 2) for value in box],
        }
        for *box, score, number in prediction.boxes.tolist()
    ]
    return json.dumps(row, ensure_ascii=False, allow_nan=False)
