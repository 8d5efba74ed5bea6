"""Post-training quantisation: calibration images, and the accuracy cost per class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from secateur.data.index import Index
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.source import Judge
from secateur.errors import UserError
from secateur.evaluation.predictor import Predictor
from secateur.evaluation.settings import ValSettings
from secateur.evaluation.validate import validate
from secateur.families.detection.split import DetectionSplit
from secateur.families.family import predictor_of
from secateur.families.reading import Reading, Split, evenly
from secateur.scores import Scores
from secateur.sizes import ImageSize

_WORST = 5
"""Number of classes with the largest loss that the table lists."""
CALIBRATION = 128
"""Number of calibration images."""


def int8_costs(network: nn.Module, files: Mapping[str, Path], index: Index, size: ImageSize) -> dict[str, Any]:
    """Evaluates a detector and its exported files on images of their input size, and prints the tables.

    Args:
        network: the detector.
        files: exported files by their names in the result.
        index: labelled images.
        size: input size in pixels.
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
    """Returns a function that evaluates a predictor on the images of an index by the main metric (higher is better),
    without a progress bar.
    """

    def judge(predictor: Predictor) -> float:
        scores = validate(predictor, index, _settings(size), progress=False)
        return scores.merit(scores.figure)

    return judge


def cost_table(before: Scores, after: Scores, precision: str) -> str:
    """A table of both results: the main metric, and the classes with the largest loss."""
    lines = [f"{before.figure:>22}{'fp32':>9}{precision:>9}{'change':>9}"]
    lines.append(_row("all", before.value, after.value))
    for name, old, new in _losses(before, after)[:_WORST]:
        lines.append(_row(name, old, new))
    return "\n".join(lines)


def cost_rows(before: Scores, after: Scores) -> dict[str, Any]:
    """The same as plain data, with every class."""
    classes = [
        {"name": name, "before": old, "after": new, "change": new - old} for name, old, new in _losses(before, after)
    ]
    return {"before": before.to_dict(), "after": after.to_dict(), "classes": classes}


def _losses(before: Scores, after: Scores) -> list[tuple[str, float, float]]:
    """Name, value before and value after for every class in both results, largest loss first."""
    figure, sign = before.figure, 1 if before.higher_is_better else -1
    kept = {row["class"]: row[figure] for row in after.rows if figure in row}
    rows = [(str(row["name"]), row[figure], kept[row["class"]]) for row in before.rows if row["class"] in kept]
    return sorted(rows, key=lambda row: sign * (row[2] - row[1]))


def _settings(size: ImageSize) -> ValSettings:
    return ValSettings(image_size=size, workers=0, rectangular=False)


def _row(name: str, old: float, new: float) -> str:
    return f"{name[:22]:>22}{old:>9.3f}{new:>9.3f}{new - old:>+9.3f}"


def calibration_images(
    split: Split, size: tuple[int, int], count: int = CALIBRATION, *, channels: int = 3
) -> list[Tensor]:
    """Calibration images from a split, letterboxed as in a validation: uint8 [C, H, W] of the given height and width.

    Raises:
        UserError: the split has no images.
    """
    if not len(split):
        raise UserError("int8 calibration needs images, and none were found. Give others with --data or --images.")
    some = split.select(covering(split.index, count)) if isinstance(split, DetectionSplit) else evenly(split, count)
    reading = Reading(size[0] if size[0] == size[1] else size, 1, channels=channels)
    return [image.contiguous() for batch in some.ordered(reading) for image in batch.images]


def covering(index: Index, count: int) -> list[int]:
    """Indices of `count` images that cover rare classes as well as possible, in ascending order.

    Images are chosen greedily: each next image has the classes that were covered least so far. Images without labels
    are chosen evenly over the index.
    """
    total = len(index)
    if total <= count:
        return list(range(total))
    if not len(index.labels):
        return np.unique(np.linspace(0, total - 1, count).round().astype(int)).tolist()
    classes = int(index.labels[:, 0].max()) + 1
    present = np.zeros((total, classes), bool)
    rows = np.repeat(np.arange(total), np.diff(index.offsets))
    present[rows, index.labels[:, 0].astype(int)] = True
    seen, free, chosen = np.zeros(classes), np.ones(total, bool), []
    for _ in range(count):
        gain = (present / (1 + seen) ** 2).sum(axis=1)
        best = int(np.where(free, gain, -1).argmax())
        chosen.append(best)
        free[best] = False
        seen += present[best]
    return sorted(chosen)
