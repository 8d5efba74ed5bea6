"""What a smaller precision costs: metrics of the detector and of its file, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from secateur.data.index import Index
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.source import Judge
from secateur.evaluation.metrics import Metrics
from secateur.evaluation.settings import ValSettings
from secateur.evaluation.validate import validate
from secateur.families.family import predictor_of
from secateur.sizes import ImageSize

_WORST = 5
"""Classes that the table names, those that lose most."""


def int8_costs(network: nn.Module, files: Mapping[str, Path], index: Index, size: ImageSize) -> dict[str, Any]:
    """Measures a detector and its files on images of the one size that the files take, and prints the tables.

    Args:
        files: by the names that the result has.
    """
    settings = _settings(size)
    before, found = validate(predictor_of(network), index, settings), {}
    for name, file in files.items():
        after = validate(open_predictor(file), index, settings)
        print(f"{file.name} on {len(index)} images:")
        print(cost_table(before, after, "int8"))
        found[name] = cost_rows(before, after)
    return found


def judge_on(index: Index, size: ImageSize) -> Judge:
    """mAP50-95 of predictors on the images of an index, without a bar."""
    return lambda predictor: validate(predictor, index, _settings(size), progress=False).mAP50_95


def cost_table(before: Metrics, after: Metrics, precision: str) -> str:
    """Both, and the classes that lose most."""
    lines = [f"{'mAP50-95':>22}{'fp32':>9}{precision:>9}{'change':>9}"]
    lines.append(_row("all", before.mAP50_95, after.mAP50_95))
    for name, old, new in _losses(before, after)[:_WORST]:
        lines.append(_row(name, old, new))
    return "\n".join(lines)


def cost_rows(before: Metrics, after: Metrics) -> dict[str, Any]:
    """The same as plain data, with every class."""
    classes = [
        {"name": name, "before": old, "after": new, "change": new - old} for name, old, new in _losses(before, after)
    ]
    return {"before": before.to_dict(), "after": after.to_dict(), "classes": classes}


def _losses(before: Metrics, after: Metrics) -> list[tuple[str, float, float]]:
    """Name and mAP50-95 before and after of every class that has objects, the greatest loss first."""
    kept = {row.class_id: row.mAP50_95 for row in after.per_class}
    rows = [(row.name, row.mAP50_95, kept.get(row.class_id, 0.0)) for row in before.per_class]
    return sorted(rows, key=lambda row: row[2] - row[1])


def _settings(size: ImageSize) -> ValSettings:
    return ValSettings(image_size=size, workers=0, rectangular=False)


def _row(name: str, old: float, new: float) -> str:
    return f"{name[:22]:>22}{old:>9.3f}{new:>9.3f}{new - old:>+9.3f}"
