"""The table of a pipeline."""

from __future__ import annotations

import io
import json

from rich.console import Console

from secateur.report.table import COLUMNS, Row, cells, to_markdown, to_rich

ROWS = [
    Row("dense", 0.8, 0.85, 0.8361, 0.505, 1_772_695, 4.2, 3.9, 12.34),
    Row("cut | no repair", mAP50=0.0, parameters=800_000),
]


def test_cells_round_and_show_what_is_missing() -> None:
    assert cells(ROWS[0]) == ["dense", "0.800", "0.850", "0.836", "0.505", "1.773", "4.20", "3.90", "12.3"]
    assert cells(ROWS[1]) == ["cut | no repair", "-", "-", "0.000", "-", "0.800", "-", "-", "-"]


def test_markdown_has_a_line_a_row_and_aligned_columns() -> None:
    lines = to_markdown(ROWS).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == list(COLUMNS)
    assert "cut \\| no repair" in lines[3]
    assert lines[1].count("-:") == len(COLUMNS) - 1


def test_terminal_table_shows_everything() -> None:
    out = io.StringIO()
    Console(file=out, width=140).print(to_rich(ROWS, "Result"))
    text = out.getvalue()
    assert all(word in text for word in (*COLUMNS, "Result", "0.836", "cut | no repair"))


def test_rows_survive_json() -> None:
    data = json.loads(json.dumps([row.to_dict() for row in ROWS]))
    assert "mAP50-95" in data[0]
    assert [Row.from_dict(row) for row in data] == ROWS
