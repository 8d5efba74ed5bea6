"""The final table of a run or a cut: one row per stage with accuracy, size, speed, and changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from secateur.files import write_text
from secateur.scores import judged_by_of

# Below this share, zeros are incidental (biases, underflow) and get no column.
FEW_ZEROS = 0.005
WIDE = 140  # characters per line if the output is not a terminal


@dataclass(frozen=True)
class TableRow:
    """One stage; None for values that were not measured.

    Attributes:
        stage: name of the stage.
        scores: values of its evaluation by name.
        judged_by: names of the metrics whose change is shown.
        parameters: number of parameters.
        gflops: 10^9 floating-point operations per image.
        file_mb: size of the stage's file in megabytes (10^6 bytes).
        latency_ms: median CPU latency at batch 1.
        sparsity: share of parameters that are zero.
        sizes: AP of small, medium and large objects by name.
    """

    stage: str
    scores: Mapping[str, float] = field(default_factory=dict)
    judged_by: tuple[str, ...] = ()
    parameters: int | None = None
    gflops: float | None = None
    file_mb: float | None = None
    latency_ms: float | None = None
    sparsity: float | None = None
    sizes: Mapping[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Mapping[str, Any], split: str = "metrics") -> TableRow:
        """The row of a stage's record, whose scores are under `split`: "metrics" (the val split) or "test"."""
        metrics, model = record.get(split) or {}, record["model"]
        return cls(
            stage=record["stage"],
            scores=metrics,
            judged_by=judged_by_of(metrics, record.get("judged_by")),
            parameters=model["parameters"],
            gflops=model["gflops"],
            file_mb=model["file_mb"],
            latency_ms=record.get("latency_ms"),
            sparsity=model.get("sparsity"),
            sizes=record.get("ap_by_size") or {} if split == "metrics" else {},
        )


@dataclass(frozen=True)
class Column:
    """A column of numbers. Changes are relative to the first row, the dense detector.

    Attributes:
        name: heading; a line break marks where a narrow table may break it.
        value: returns the number of a row, or None.
        digits: decimal places.
        change: whether to show the difference to the first row.
        least: the column is shown only if a number is at least this large.
    """

    name: str
    value: Callable[[TableRow], float | None]
    digits: int
    change: bool = False
    least: float = 0.0

    def texts(self, rows: Sequence[TableRow]) -> list[str]:
        """One text per row; "-" for missing values. Empty if no row has a number large enough to show."""
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


COSTS = (
    Column("Params\n(M)", lambda row: None if row.parameters is None else row.parameters / 1e6, 3),
    Column("GFLOPs", lambda row: row.gflops, 3),
    Column("File\n(MB)", lambda row: row.file_mb, 2),
    Column("CPU latency\n(ms)", lambda row: row.latency_ms, 1),
    Column("Zeros\n(%)", lambda row: None if row.sparsity is None else 100 * row.sparsity, 1, least=100 * FEW_ZEROS),
)


def score_columns(rows: Sequence[TableRow]) -> list[Column]:
    """One column per metric, each followed by its change if the metric is in `judged_by`."""
    columns, judged_by = [], {name for row in rows for name in row.judged_by}
    for name in dict.fromkeys(name for row in rows for name in row.scores):
        value = partial(_score, name=name)
        columns += [Column(name, value, 3)] + [Column("change", value, 3, change=True)] * (name in judged_by)
    return columns


def _score(row: TableRow, name: str) -> float | None:
    return row.scores.get(name)


def size_columns(rows: Sequence[TableRow]) -> list[Column]:
    """One column per object size."""
    names = dict.fromkeys(name for row in rows for name in row.sizes)
    return [Column(name.replace(" ", "\n"), partial(_size, name=name), 3) for name in names]


def _size(row: TableRow, name: str) -> float | None:
    return row.sizes.get(name)


def columns_of(rows: Sequence[TableRow], heading: str = "Stage", *, sizes: bool = True) -> list[list[str]]:
    """Columns of texts, each with its heading first: the stages, and the numbers that at least one row has.

    Args:
        rows: rows of the table.
        heading: heading of the stage column.
        sizes: whether to include the AP by object size.
    """
    found = [[heading, *(row.stage for row in rows)]]
    for column in (*score_columns(rows), *(size_columns(rows) if sizes else ()), *COSTS):
        texts = column.texts(rows)
        if texts:
            found.append([column.name, *texts])
    return found


def to_rich(rows: Sequence[TableRow], title: str | None = None, heading: str = "Stage", *, sizes: bool = True) -> Table:
    """The table for the terminal; see `columns_of`."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    columns = columns_of(rows, heading, sizes=sizes)
    for number, (name, *_) in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for cells in zip(*(texts for _, *texts in columns), strict=True):
        table.add_row(*cells)
    return table


def to_markdown(rows: Sequence[TableRow]) -> str:
    """The table as Markdown, with padded columns so that the source is readable too."""
    padded = []
    for number, texts in enumerate(columns_of(rows)):
        cells = [text.replace("\n", " ").replace("|", "\\|") for text in texts]
        width = max(map(len, cells))
        rule = "-" * (width - 1) + ":" if number else "-" * width
        lines = [cells[0], rule, *cells[1:]]
        padded.append([line.rjust(width) if number else line.ljust(width) for line in lines])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*padded, strict=True))


def print_table(records: Sequence[Mapping[str, Any]]) -> None:
    """Prints the table of the stages' records: for the val split, and for the test split if there is one."""
    console = console_for_tables()
    tested = any(record.get("test") for record in records)
    title = "Validation split" if tested else None
    console.print(fitting_table(console, [TableRow.of(record) for record in records], title))
    if tested:
        console.print(to_rich([TableRow.of(record, "test") for record in records], "Test split"))


def console_for_tables() -> Console:
    """A console for the terminal, with wide lines if the output is not a terminal."""
    return Console(width=None if Console().is_terminal else WIDE)


def fitting_table(
    console: Console, rows: Sequence[TableRow], title: str | None = None, heading: str = "Stage"
) -> Table:
    """The table, with the AP by object size if the line width allows it."""
    whole = to_rich(rows, title, heading)
    if console.measure(whole, options=console.options.update(width=1000)).maximum <= console.width:
        return whole
    return to_rich(rows, title, heading, sizes=False)


def write_markdown(file: Path, records: Sequence[Mapping[str, Any]], title: str) -> None:
    """Writes the same as Markdown, followed by the classes of the last record that is not only for comparison."""
    parts = [f"# {title}", "## Validation split", to_markdown([TableRow.of(record) for record in records])]
    if any(record.get("test") for record in records):
        parts += ["## Test split", to_markdown([TableRow.of(record, "test") for record in records])]
    last = [record for record in records if "beside" not in record][-1]
    classes = last.get("per_class") or []
    if classes:
        parts.append(f"## Classes ({last['stage']}, validation split)")
        parts.append(_class_table(classes, last["metrics"]))
    write_text(file, "\n\n".join(parts) + "\n")


def _class_table(rows: Sequence[Mapping[str, Any]], values: Collection[str]) -> str:
    """Class rows as Markdown. Entries that are neither a metric nor the class itself are counts."""
    counts = [key for key in rows[0] if key not in {"class", "name", *values}]
    keys = [*counts, *(key for key in values if key in rows[0])]
    titles = ["Class", *(key.capitalize() if key in counts else key for key in keys)]
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---:|" * len(keys)]
    for row in rows:
        cells = [str(row["name"]).replace("|", "\\|")]
        cells += [str(row[key]) if key in counts else f"{row[key]:.3f}" for key in keys]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
