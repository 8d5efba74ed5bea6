"""How sizes (|scale| of channels, mean |weight| of filters) are distributed: figures for a sparse training's logs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NEAR_ZERO = (1e-2, 1e-3)

Row = Mapping[str, float] | Mapping[str, float | str]


def distribution(values: Tensor) -> dict[str, float]:
    """Quantiles of sizes, float [n], and the shares of them that are nearly zero."""
    points = torch.quantile(values, torch.tensor(QUANTILES, dtype=values.dtype)).tolist()
    result = {f"q{round(q * 100):02d}": point for q, point in zip(QUANTILES, points, strict=True)}
    return result | {f"below_{limit:g}": float((values < limit).float().mean()) for limit in NEAR_ZERO}


def as_csv(rows: Sequence[Row]) -> str:
    """Rows with the same keys as CSV; six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()
