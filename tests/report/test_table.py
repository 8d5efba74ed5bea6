"""The table of a pipeline."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from secateur.report.table import (
    WIDE,
    TableRow,
    columns_of,
    fitting_table,
    print_table,
    to_markdown,
    to_rich,
    write_markdown,
)

JUDGED_BY = ("mAP50", "mAP50-95")


def detection(*values: float) -> dict[str, float]:
    return dict(zip(("P", "R", *JUDGED_BY), values, strict=True))


ROWS = [
    TableRow("dense", detection(0.8, 0.85, 0.8361, 0.505), JUDGED_BY, 1_772_695, 4.2, 3.9, 12.34),
    TableRow("cut | no repair", {"mAP50": 0.0}, JUDGED_BY, 800_000),
    TableRow("finetuned", detection(0.8, 0.85, 0.8412, 0.495), JUDGED_BY, 800_000, 2.1, 1.9, 7.0, sparsity=0.5),
]
RECORDS: list[dict[str, Any]] = [
    {
        "stage": "dense",
        "metrics": {"P": 0.8, "R": 0.85, "mAP50": 0.836, "mAP50-95": 0.505},
        "model": {"parameters": 1_772_695, "gflops": 4.2, "file_mb": 3.9, "sparsity": 0.0},
        "latency_ms": 12.34,
    },
    {
        "stage": "cut",
        "metrics": {"P": 0.7, "R": 0.8, "mAP50": 0.7, "mAP50-95": 0.4},
        "model": {"parameters": 800_000, "gflops": 2.1, "file_mb": None},
        "per_class": [{"name": "a|b", "images": 3, "instances": 5, "P": 0.7, "R": 0.8, "mAP50": 0.7, "mAP50-95": 0.4}],
    },
]


def test_columns_round_show_what_is_missing_and_the_change_against_the_first_row() -> None:
    columns = {" ".join(name.split()): texts for name, *texts in columns_of(ROWS) if name != "change"}
    assert columns["Params (M)"] == ["1.773", "0.800", "0.800"] and columns["P"] == ["0.800", "-", "0.800"]
    assert columns["CPU latency (ms)"] == ["12.3", "-", "7.0"] and columns["Zeros (%)"] == ["-", "-", "50.0"]
    names = [name for name, *_ in columns_of(ROWS)]
    first, second = (texts for name, *texts in columns_of(ROWS) if name == "change")
    assert names.index("change") == names.index("mAP50") + 1
    assert first == ["", "-0.836", "+0.005"] and second == ["", "-", "-0.010"]


def test_columns_without_figures_are_left_out() -> None:
    names = [name for name, *_ in columns_of(ROWS[:1])]
    assert "change" not in names and "Zeros\n(%)" not in names and "P" in names
    assert [name for name, *_ in columns_of([TableRow("cut", parameters=1, sparsity=0.001)])] == [
        "Stage",
        "Params\n(M)",
    ]


def test_markdown_has_a_line_a_row_and_aligned_columns() -> None:
    lines = to_markdown(ROWS).splitlines()
    assert len(lines) == 5 and len({len(line) for line in lines}) == 1
    assert "cut \\| no repair" in lines[3]
    assert lines[1].count("-:") == len(columns_of(ROWS)) - 1


def test_terminal_table_shows_everything_in_120_characters() -> None:
    out = io.StringIO()
    Console(file=out, width=120).print(to_rich(ROWS, "Result"))
    text = out.getvalue()
    assert all(word in text for word in ("Result", "CPU latency", "(ms)", "mAP50-95", "0.836", "cut | no repair"))
    assert "…" not in text


def test_tables_from_records_and_both_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(RECORDS)
    text = capsys.readouterr().out
    assert "Test split" not in text and "-0.136" in text
    tested = [record | {"test": {"mAP50": 0.5 - 0.1 * i}} for i, record in enumerate(RECORDS)]
    print_table(tested)
    assert "Test split" in (text := capsys.readouterr().out) and "-0.100" in text
    write_markdown(tmp_path / "table.md", tested, "Run")
    written = (tmp_path / "table.md").read_text()
    assert all(part in written for part in ("# Run", "## Validation split", "## Test split", "a\\|b | 3 | 5 | 0.700"))
    assert written.splitlines()[-3:] == [
        "| Class | Images | Instances | P | R | mAP50 | mAP50-95 |",
        "|---|---:|---:|---:|---:|---:|---:|",
        "| a\\|b | 3 | 5 | 0.700 | 0.800 | 0.700 | 0.400 |",
    ]


def test_rows_of_version_0_2_and_new_ones_give_the_same_table() -> None:
    new = [record | {"judged_by": list(JUDGED_BY)} for record in RECORDS]
    assert columns_of([TableRow.of(record) for record in RECORDS]) == columns_of(
        [TableRow.of(record) for record in new]
    )
    names = [name for name, *_ in columns_of([TableRow.of(record) for record in RECORDS])]
    assert names[:7] == ["Stage", "P", "R", "mAP50", "change", "mAP50-95", "change"]


def test_sizes_of_objects_have_columns_where_there_is_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sized = [record | {"ap_by_size": {"AP small": 0.125, "AP large": None}} for record in RECORDS]
    print_table(sized)
    out = capsys.readouterr().out
    assert "small" in out and out.count("0.125") == 2 and "…" not in out
    assert "large" not in out, "no row has a figure of it"
    rows = [TableRow.of(record) for record in sized]
    room = WIDE - Console(width=1000).measure(to_rich(rows, sizes=False)).maximum
    long = [record | {"stage": "s" * (len("dense") + room)} for record in sized]
    print_table(long)
    assert "small" not in (out := capsys.readouterr().out) and "…" not in out
    write_markdown(tmp_path / "table.md", long, "Run")
    assert "AP small" in (tmp_path / "table.md").read_text()
    narrow = Console(file=io.StringIO(), width=100)
    assert len(fitting_table(narrow, rows).columns) == len(columns_of(rows, sizes=False))


def test_a_table_of_a_classifier(tmp_path: Path) -> None:
    classes = [{"class": 0, "name": "cat", "images": 4, "top-1": 0.75}]
    records: list[dict[str, Any]] = [
        {
            "stage": stage, "metrics": {"top-1": value, "top-5": 1.0}, "judged_by": ["top-1"], "per_class": classes,
            "model": {"parameters": 1_000_000, "gflops": 1.0, "file_mb": 2.0},
        }
        for stage, value in (("dense", 0.9), ("cut", 0.6))
    ]  # fmt: skip
    columns = columns_of([TableRow.of(record) for record in records])
    assert columns[1:4] == [["top-1", "0.900", "0.600"], ["change", "", "-0.300"], ["top-5", "1.000", "1.000"]]
    write_markdown(tmp_path / "table.md", records, "Run")
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[-3:] == ["| Class | Images | top-1 |", "|---|---:|---:|", "| cat | 4 | 0.750 |"]
