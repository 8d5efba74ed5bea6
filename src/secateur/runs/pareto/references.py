"""Reads reference points for the plot of a curve: label, milliseconds and accuracy of other networks."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateur.errors import UserError, told
from secateur.files import read_json, usable_path
from secateur.ranges import shortened

LABEL, MS = ("label", "name", "model"), ("ms", "latency_ms", "median_ms")
FINE, COARSE = ("map50_95", "map", "accuracy"), ("map50",)
SHAPE = "each point needs a label, ms, and mAP or mAP50"


def references(file: str) -> list[dict[str, Any]]:
    """The points in a JSON or CSV file, as plain data in the format of `pareto.json`.

    Args:
        file: a CSV file with column names in the first line, or a JSON file with a list of objects or with such a list
            under "points"; "" returns no points. mAP is the one at IoU .50 to .95.

    Raises:
        UserError: the file is missing or invalid, or a point lacks its label, milliseconds or accuracy; the message
            names the file and the point.
    """
    if not file:
        return []
    path = usable_path(file)
    rows = _csv(path) if path.suffix.lower() == ".csv" else _json(path)
    if not rows:
        raise UserError(f"--reference {file} has no points: {SHAPE}.")
    return [_point(row, f"{file}, {where}") for where, row in rows]


def _csv(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            return [(f"line {reader.line_num}", row) for row in reader]
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file ({told(error)}).") from error


def _json(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    data = read_json(path)
    rows = data.get("points") if isinstance(data, dict) else data
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f'{path} is neither a list of points nor an object with such a list under "points": {SHAPE}.')
    return [(f"point {number}", row) for number, row in enumerate(rows, 1)]


def _point(row: Mapping[Any, Any], where: str) -> dict[str, Any]:
    values = {str(name).strip().lower().replace("-", "_"): value for name, value in row.items()}
    label = next((str(values[name]).strip() for name in LABEL if values.get(name)), "")
    ms, fine, coarse = (_number(values, names, where) for names in (MS, FINE, COARSE))
    if not label or ms is None or (fine is None and coarse is None):
        raise UserError(f"{where}: the label, ms or accuracy is missing; {SHAPE}.")
    if ms <= 0:
        raise UserError(f"{where}: ms is {ms:g}; it must be positive.")
    return {"label": label, "ms": ms, "mAP50": coarse, "mAP50_95": fine}


def _number(values: Mapping[str, Any], names: tuple[str, ...], where: str) -> float | None:
    name = next((name for name in names if values.get(name) not in (None, "")), None)
    if name is None:
        return None
    try:
        number = float(values[name])
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise UserError(f"{where}: {name} is {shortened(values[name])}; it must be a number of 0 or more.")
    return number
