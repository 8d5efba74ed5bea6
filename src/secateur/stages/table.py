"""The table that a run or a cut ends with, from the rows of its stages, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from secateur.files import write_text
from secateur.report.table import Row, to_markdown, to_rich


def table_rows(rows: Sequence[dict[str, Any]], split: str = "metrics") -> list[Row]:
    """Table rows of the stages' records; `split` is "metrics" (val) or "test"."""
    result = []
    for record in rows:
        metrics, model = record.get(split) or {}, record["model"]
        result.append(
            Row(
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
        )
    return result


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the table of the val split, and that of the test split where the data set has one."""
    console = Console(width=None if Console().is_terminal else 120)
    tested = any(row.get("test") for row in rows)
    console.print(to_rich(table_rows(rows), "Validation split" if tested else None))
    if tested:
        console.print(to_rich(table_rows(rows, "test"), "Test split"))


def write_markdown(file: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """Writes the same as Markdown, followed by the classes of the last row."""
    parts = [f"# {title}", "## Validation split", to_markdown(table_rows(rows))]
    if any(row.get("test") for row in rows):
        parts += ["## Test split", to_markdown(table_rows(rows, "test"))]
    classes = rows[-1].get("per_class") or []
    if classes:
        parts.append(f"## Classes ({rows[-1]['stage']}, validation split)")
        lines = ["| Class | Images | Instances | P | R | mAP50 | mAP50-95 |", "|---|---:|---:|---:|---:|---:|---:|"]
        for row in classes:
            name = str(row["name"]).replace("|", "\\|")
            figures = " | ".join(f"{row[key]:.3f}" for key in ("P", "R", "mAP50", "mAP50-95"))
            lines.append(f"| {name} | {row['images']} | {row['instances']} | {figures} |")
        parts.append("\n".join(lines))
    write_text(file, "\n\n".join(parts) + "\n")
