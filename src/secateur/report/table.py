"""The table of a pipeline: a row a stage, accuracy beside size and speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One stage; None where a value was not measured.

    Attributes:
        stage: name of the stage.
        P, R, mAP50, mAP50_95: accuracy, 0 to 1.
        parameters: number of parameters.
        gflops: 10^9 floating-point operations of one image.
        file_mb: size of the stage's file in megabytes (10^6 bytes).
        latency_ms: median CPU latency at batch 1.
        sparsity: share of parameters that are zero.
    """

    stage: str
    P: float | None = None
    R: float | None = None
    mAP50: float | None = None  # noqa: N815
    mAP50_95: float | None = None  # noqa: N815
    parameters: int | None = None
    gflops: float | None = None
    file_mb: float | None = None
    latency_ms: float | None = None
    sparsity: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, mAP50_95 under its usual name."""
        return {name.replace("_95", "-95"): value for name, value in asdict(self).items()}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Row:
        """The row that `to_dict` described."""
        return Row(**{name.replace("-95", "_95"): value for name, value in data.items()})


COLUMNS = ("Stage", "P", "R", "mAP50", "mAP50-95", "Params (M)", "GFLOPs", "File (MB)", "CPU latency (ms)")
ZEROS = "Zeros (%)"
# Below this share zeros are chance (biases, underflow) and not worth a column.
FEW_ZEROS = 0.005


def columns(rows: Sequence[Row]) -> tuple[str, ...]:
    """Names of the columns: that of the zeros only where a row has some."""
    return (*COLUMNS, ZEROS) if any((row.sparsity or 0) > FEW_ZEROS for row in rows) else COLUMNS


def cells(row: Row, names: Sequence[str] = COLUMNS) -> list[str]:
    """The texts of a row, one a column; "-" stands for what is missing."""
    millions = None if row.parameters is None else row.parameters / 1e6
    zeros = None if row.sparsity is None else 100 * row.sparsity
    accuracy = [_text(value, 3) for value in (row.P, row.R, row.mAP50, row.mAP50_95)]
    sizes = [_text(millions, 3), _text(row.gflops, 2), _text(row.file_mb, 2), _text(row.latency_ms, 1)]
    return [row.stage, *accuracy, *sizes, _text(zeros, 1)][: len(names)]


def to_rich(rows: Sequence[Row], title: str | None = None) -> Table:
    """The table for the terminal."""
    table = Table(title=title, title_justify="left")
    names = columns(rows)
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row, names))
    return table


def to_markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown, its columns padded so that the source reads well too."""
    names = list(columns(rows))
    body = [[cell.replace("|", "\\|") for cell in cells(row, names)] for row in rows]
    widths = [max(len(line[i]) for line in [names, *body]) for i in range(len(names))]
    rule = [("-" * (width - 1) + ":") if number else "-" * width for number, width in enumerate(widths)]
    lines = [names, rule, *body]
    return "\n".join(
        "| " + " | ".join(_pad(line[i], widths[i], i > 0) for i in range(len(widths))) + " |" for line in lines
    )


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
