"""Confidence interval of the change from the first to the last network of a run, from the detections of both."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from secateur.errors import UserError
from secateur.evaluation.bootstrap import FIGURES, RESAMPLES, Difference, differences
from secateur.evaluation.record import DetectionRecord, record_file
from secateur.runs.rows import RunRow, last_stage
from secateur.terminal import bar

LOG = logging.getLogger("secateur")


def resampled(
    records: Mapping[str, DetectionRecord], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, Difference]]:
    """The differences of all records to the first one, with a progress bar; see `bootstrap.differences`."""
    (_, reference), *others = records.items()
    classes = len(np.unique(reference.truths.classes))
    with bar("resampling") as shown:
        ticks = shown.add_task("", total=classes * len(records))
        return differences(
            reference,
            dict(others),
            resamples=resamples,
            seed=seed,
            done=lambda steps: shown.advance(ticks, steps),
        )


def first_to_last(folder: Path, rows: Sequence[RunRow]) -> dict[str, Any] | None:
    """The `difference` entry of a run's summary; None without the detections of two networks.

    Args:
        folder: folder of the run.
        rows: rows of its table.
    """
    first, last = rows[0], last_stage(rows)
    files = [record_file(folder / "evaluation" / row["name"]) for row in (first, last) if row.get("name")]
    if first is last or len(files) < 2 or not all(file.is_file() for file in files):
        return None
    try:
        reference, record = (DetectionRecord.load(file) for file in files)
        found = resampled({"first": reference, "last": record})["last"]
    except UserError as error:
        LOG.warning("No confidence interval of the difference: %s", error)
        return None
    values = {figure: of_figure.to_dict() for figure, of_figure in found.items()}
    return {"of": last["stage"], "against": first["stage"], "images": len(record), **values}


def difference_line(found: Mapping[str, Any] | None) -> str:
    """The difference as text; "" if there is none."""
    if found is None:
        return ""
    names = set(Difference.__dataclass_fields__)
    each = [
        f"{figure} {Difference(**{name: value for name, value in found[figure].items() if name in names}).line()}"
        for figure in FIGURES
    ]
    ends = f"95 % intervals from resampling the {found['images']} validation images"
    return f"{found['of']} against {found['against']}: {'; '.join(each)} ({ends})"
