"""Reference networks for the plot of accuracy against cost: from a user's file, or published figures on COCO."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.errors import UserError
from secateur.files import read_json, usable_path
from secateur.report.page.model import number

FIGURES = ("mAP50", "mAP50_95", "parameters", "gflops", "mb", "ms")
"""Names of a point's values, as in pareto.json."""


@dataclass(frozen=True)
class ReferencePoint:
    """One network: its label, the line to which it belongs ("YOLOv5"), and its known values by name."""

    label: str
    line: str
    figures: Mapping[str, float]


# Published for COCO val2017 at 640 px in the README files of YOLOv5 and of Ultralytics: mAP50-95 in per cent, mAP50 in
# per cent (0: not published), millions of parameters, 10^9 FLOPs. Milliseconds are omitted because they were measured
# on other machines.
_PUBLISHED = {
    "YOLOv5": (("n", 28.0, 45.7, 1.9, 4.5), ("s", 37.4, 56.8, 7.2, 16.5), ("m", 45.4, 64.1, 21.2, 49.0),
               ("l", 49.0, 67.3, 46.5, 109.1), ("x", 50.7, 68.9, 86.7, 205.7)),
    "YOLOv8": (("n", 37.3, 0, 3.2, 8.7), ("s", 44.9, 0, 11.2, 28.6), ("m", 50.2, 0, 25.9, 78.9),
               ("l", 52.9, 0, 43.7, 165.2), ("x", 53.9, 0, 68.2, 257.8)),
    "YOLO11": (("n", 39.5, 0, 2.6, 6.5), ("s", 47.0, 0, 9.4, 21.5), ("m", 51.5, 0, 20.1, 68.0),
               ("l", 53.4, 0, 25.3, 86.9), ("x", 54.7, 0, 56.9, 194.9)),
    "YOLO26": (("n", 40.9, 0, 2.4, 5.4), ("s", 48.6, 0, 9.5, 20.7), ("m", 53.1, 0, 20.4, 68.2),
               ("l", 55.0, 0, 24.8, 86.4), ("x", 57.5, 0, 55.7, 193.9)),
}  # fmt: skip


def published() -> list[ReferencePoint]:
    """The published figures on COCO."""
    points = []
    for line, rows in _PUBLISHED.items():
        for size, precise, coarse, parameters, gflops in rows:
            figures = {"mAP50_95": precise / 100, "parameters": 1e6 * parameters, "gflops": gflops}
            figures |= {"mAP50": coarse / 100} if coarse else {}
            points.append(ReferencePoint(f"{line}{size}", line, figures))
    return points


def read_reference(file: str | Path) -> list[ReferencePoint]:
    """Reads reference points from a user's file: CSV with a header, JSON rows, or a pareto.json.

    Columns are `label`, optionally `line` (points of one line are connected), and any of mAP50, mAP50_95 (also
    mAP50-95), parameters, gflops, mb and ms.

    Raises:
        UserError: the file cannot be read, or a row has no label or no accuracy.
    """
    path = usable_path(file)
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    points = []
    for place, row in enumerate(rows, 1):
        figures = {name: value for name in FIGURES if (value := _figure(row, name, path, place)) is not None}
        label = str(row.get("label") or "").strip()
        if not label or not {"mAP50", "mAP50_95"} & figures.keys():
            raise UserError(
                f"Row {place} of {path} has no {'label' if not label else 'mAP50 or mAP50-95'}; its columns are label, "
                f"line, {', '.join(FIGURES)}."
            )
        points.append(ReferencePoint(label, str(row.get("line") or path.stem), figures))
    if not points:
        raise UserError(f"{path} has no rows; its columns are label, line, {', '.join(FIGURES)}.")
    return points


def _csv_rows(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    return list(csv.DictReader(io.StringIO(text), skipinitialspace=True))


def _json_rows(path: Path) -> Sequence[Mapping[str, Any]]:
    found = read_json(path)
    rows = found.get("points") if isinstance(found, dict) else found
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(
            f'{path} is not a list of networks. Write [{{"label": "...", "mAP50_95": 0.3, "gflops": 4.5}}].'
        )
    return rows


def _figure(row: Mapping[str, Any], name: str, path: Path, place: int) -> float | None:
    value = row.get(name, row.get("mAP50-95") if name == "mAP50_95" else None)
    if value is None or value == "":
        return None
    try:
        read = number(float(value))
    except (TypeError, ValueError):
        read = None
    if read is None or read < 0:
        raise UserError(f"Row {place} of {path}: {name} is {str(value)[:40]!r}; it must be a number of 0 or more.")
    return read
