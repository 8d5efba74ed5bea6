"""What `secateur data check` shows of a split: images, objects by class, box sizes."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.data.index import Counts, Index
from secateur.report.data_table import box_sides, print_data


def index_of(rows: list[list[float]], **counts: int) -> Index:
    """Two images of 200 x 100 pixels, the first with all objects."""
    return Index(
        files=("a", "b"),
        shapes=np.array([[100, 200]] * 2, np.int32),
        labels=np.array(rows, np.float32).reshape(-1, 5),
        offsets=np.array([0, len(rows), len(rows)]),
        counts=Counts(**counts),
        problems=(),
        signature="",
        label_folders=(("/data/labels", 1),),
    )


ROWS = [[0, 0.5, 0.5, 0.1, 0.2], [2, 0.5, 0.5, 0.3, 0.4], [2, 0.5, 0.5, 0.5, 1.0]]


def test_box_sides_are_pixels_of_the_image() -> None:
    np.testing.assert_allclose(box_sides(index_of(ROWS)), [[20, 20], [60, 40], [100, 100]], rtol=1e-6)


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    splits = {"train": index_of(ROWS, found=1, missing=1, corrupt=3, unused=4), "val": index_of([], empty=2)}
    print_data(splits, {0: "[red] cat", 1: "dog", 2: ":car:"})
    cells = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "2", "3", "1", "0", "3", "4"] in cells
    assert ["val", "2", "0", "0", "2", "0", "0"] in cells
    assert ["train", "1", "1", "1", "60", "x", "40", "30.0", "x", "40.0"] in cells
    assert ["val", "-", "-", "-", "-", "-"] in cells
    assert [line for line in cells if line[:1] in (["0"], ["1"], ["2"])] == [
        ["0", "[red]", "cat", "1", "0"],
        ["1", "dog", "0", "0"],
        ["2", ":car:", "2", "0"],
    ]
    assert ["train:", "labels", "of", "1", "images", "in", "/data/labels"] in cells
