"""The table that a run or a cut ends with: a row a stage, accuracy beside size and speed, and what changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from secateur.files import write_text

# Below this share zeros are chance (biases, underflow) and not worth a column.
FEW_ZEROS = 0.005
WIDE = 140  # characters of a line where nobody's window limits it


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

    @classmethod
    def of(cls, record: Mapping[str, Any], split: str = "metrics") -> Row:
        """The row of a stage's record, whose accuracy is under `split`: "metrics" (the val split) or "test"."""
        metrics, model = record.get(split) or {}, record["model"]
        return cls(
            stage=record["stage"],
            P=metrics.get("P"),
            R=metrics.get("R"),
            mAP50=metrics.get("mAP50"),
            mAP50_95=metrics.get("mAP50-95"),
            parameters=model["parameters"],
            gflops=model["gflops"],
            file_mb=model["file_mb"],
            latency_ms=record.get("latency_ms"),
            sparsity=model.get("sparsity"),
        )


@dataclass(frozen=True)
class Column:
    """A column of figures; changes are against the first row, the dense detector.

    Attributes:
        name: heading; a line break where a narrow table may break it.
        value: figure of a row, None where there is none.
        digits: behind the point.
        change: whether the figure is the row's minus the first row's.
        least: the column is worth showing from this size of a figure on.
    """

    name: str
    value: Callable[[Row], float | None]
    digits: int
    change: bool = False
    least: float = 0.0

    def texts(self, rows: Sequence[Row]) -> list[str]:
        """A text a row; "-" stands for what is missing. Empty when no row has a figure worth showing."""
        values = [self.value(row) for row in rows]
        if self.change:
            first = values[0]
            known = [None if value is None or first is None else value - first for value in values[1:]]
            if all(value is None for value in known):
                return []
            return ["", *("-" if value is None else f"{value:+.{self.digits}f}" for value in known)]
        if all(value is None or value < self.least for value in values):
            return []
        return ["-" if value is None else f"{value:.{self.digits}f}" for value in values]


COLUMNS = (
    Column("P", lambda row: row.P, 3),
    Column("R", lambda row: row.R, 3),
    Column("mAP50", lambda row: row.mAP50, 3),
    Column("change", lambda row: row.mAP50, 3, change=True),
    Column("mAP50-95", lambda row: row.mAP50_95, 3),
    Column("change", lambda row: row.mAP50_95, 3, change=True),
    Column("Params\n(M)", lambda row: None if row.parameters is None else row.parameters / 1e6, 3),
    Column("GFLOPs", lambda row: row.gflops, 3),
    Column("File\n(MB)", lambda row: row.file_mb, 2),
    Column("CPU latency\n(ms)", lambda row: row.latency_ms, 1),
    Column("Zeros\n(%)", lambda row: None if row.sparsity is None else 100 * row.sparsity, 1, least=100 * FEW_ZEROS),
)


def columns_of(rows: Sequence[Row]) -> list[list[str]]:
    """Columns of texts, each with its heading on top: the stages, and the figures that at least one row has."""
    found = [["Stage", *(row.stage for row in rows)]]
    for column in COLUMNS:
        texts = column.texts(rows)
        if texts:
            found.append([column.name, *texts])
    return found


def to_rich(rows: Sequence[Row], title: str | None = None) -> Table:
    """The table for the terminal."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    columns = columns_of(rows)
    for number, (name, *_) in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for cells in zip(*(texts for _, *texts in columns), strict=True):
        table.add_row(*cells)
    return table


def to_markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown, its columns padded so that the source reads well too."""
    padded = []
    for number, texts in enumerate(columns_of(rows)):
        cells = [text.replace("\n", " ").replace("|", "\\|") for text in texts]
        width = max(map(len, cells))
        rule = "-" * (width - 1) + ":" if number else "-" * width
        lines = [cells[0], rule, *cells[1:]]
        padded.append([line.rjust(width) if number else line.ljust(width) for line in lines])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*padded, strict=True))


def print_table(records: Sequence[Mapping[str, Any]]) -> None:
    """Prints the table of the stages' records: of the val split, and of the test split where there is one."""
    console = Console(width=None if Console().is_terminal else WIDE)
    tested = any(record.get("test") for record in records)
    console.print(to_rich([Row.of(record) for record in records], "Validation split" if tested else None))
    if tested:
        console.print(to_rich([Row.of(record, "test") for record in records], "Test split"))


def write_markdown(file: Path, records: Sequence[Mapping[str, Any]], title: str) -> None:
    """Writes the same as Markdown, followed by the classes of the last record that stands beside no other."""
    parts = [f"# {title}", "## Validation split", to_markdown([Row.of(record) for record in records])]
    if any(record.get("test") for record in records):
        parts += ["## Test split", to_markdown([Row.of(record, "test") for record in records])]
    last = [record for record in records if "beside" not in record][-1]
    classes = last.get("per_class") or []
    if classes:
        parts.append(f"## Classes ({last['stage']}, validation split)")
        lines = ["| Class | Images | Instances | P | R | mAP50 | mAP50-95 |", "|---|---:|---:|---:|---:|---:|---:|"]
        for row in classes:
            name = str(row["name"]).replace("|", "\\|")
            figures = " | ".join(f"{row[key]:.3f}" for key in ("P", "R", "mAP50", "mAP50-95"))
            lines.append(f"| {name} | {row['images']} | {row['instances']} | {figures} |")
        parts.append("\n".join(lines))
    write_text(file, "\n\n".join(parts) + "\n")
