"""Label files as people have them: what is read all the same, what is repaired and counted, what is refused."""

from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np
import pytest

from secateur.data.labels import LabelError, Labels, find_class_line, read_labels
from secateur.errors import UserError

ROW = "1 0.5 0.4 0.25 0.125"
BOX = [1, 0.5, 0.4, 0.25, 0.125]


@pytest.fixture
def read(tmp_path: Path):
    def reader(content: str | bytes, key_points: tuple[int, int] | None = None) -> Labels:
        file = tmp_path / "a.txt"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_labels(str(file), key_points)

    return reader


@pytest.mark.parametrize(
    "content",
    [
        ROW,
        f"{ROW}\n",
        f"{ROW}\r\n",
        f"{ROW}\r",
        f"\n\n  \n{ROW}\n\t\n",
        f"  {ROW}  \n",
        ROW.replace(" ", "\t"),
        ROW.replace(" ", "   "),
        "1.0 0.5 0.4 0.25 0.125",
        "1 .5 .4 .25 .125",
        "1 5e-1 4.0E-01 2.5e-1 1.25e-01",
        "+1 +0.5 +0.4 +0.25 +0.125",
        "1 0.500000000000000000000001 0.4 0.25 0.125",
        codecs.BOM_UTF8 + ROW.encode(),
        f"{ROW}\x0c\n",
        "1 0.375 0.3375 0.625 0.3375 0.625 0.4625 0.375 0.4625",  # its outline
    ],
)
def test_ways_to_write_one_box(read, content: str | bytes) -> None:
    labels = read(content)
    np.testing.assert_allclose(labels.rows, [BOX], atol=1e-6)
    assert labels.rows.dtype == np.float32
    assert (labels.duplicates, labels.clipped, labels.flat) == (0, 0, ())


@pytest.mark.parametrize("content", ["", "\n", " \t\r\n\n", codecs.BOM_UTF8])
def test_a_file_without_rows_has_no_objects(read, content: str | bytes) -> None:
    labels = read(content)
    assert labels.rows.shape == (0, 5)
    assert not labels.has_rows


def test_order_stays_and_rows_that_are_there_twice_go(read) -> None:
    labels = read(f"2 0.1 0.1 0.1 0.1\n{ROW}\n2.0 0.1 0.1 0.1 0.10\n{ROW}\n0 0.1 0.1 0.1 0.1\n")
    assert labels.rows[:, 0].tolist() == [2, 1, 0]
    assert labels.duplicates == 2


def test_many_rows(read) -> None:
    rows = "".join(f"{i % 80} {(i % 977) / 977} {(i % 991) / 991} 0.01 0.02\n" for i in range(20_000))
    assert read(rows).rows.shape == (20_000, 5)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("1 0.5 0.4 0.25", "line 1 has 4 values; expected class x y width height"),
        (f"{ROW}\n{ROW} 0.9", "line 2 has 6 values"),
        (f"{ROW} 0.9\n{ROW}", "line 1 has 6 values"),
        (f"{ROW} 1.5", "line 1 has 6 values"),
        (f"{ROW} 0.3 0.4 2", "line 1 has 8 values; .*key points need kpt_shape in data.yaml"),
        (f"{ROW} 0.3 0.4 2 0.5 0.4 2", "line 1 is not normalised .*if the row holds key points, add kpt_shape"),
        ("1 0.5 nan 0.25 0.125", "line 1 holds a value that is not finite"),
        ("1 0.5 inf 0.25 0.125", "line 1 holds a value that is not finite"),
        ("inf 0.5 0.4 0.25 0.125", "line 1 holds a value that is not finite"),
        ("1.5 0.5 0.4 0.25 0.125", "line 1 has class id 1.5, which is not a whole number"),
        ("dog 0.5 0.4 0.25 0.125", "line 1 is not a row of numbers"),
        ("1,0.5,0.4,0.25,0.125", "line 1 is not a row of numbers"),
        ("1 0,5 0,4 0,25 0,125", "line 1 is not a row of numbers"),
        ("# class x y w h", "line 1 is not a row of numbers"),
        (f"\n\n{ROW}\n1 320 240 100 80", r"line 4 is not normalised to 0\.\.1 \(320\)"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(read, content: str, told: str) -> None:
    with pytest.raises(LabelError, match=told):
        read(content)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_refused(read, encoding: str) -> None:
    with pytest.raises(UserError, match=r"a\.txt is not text"):
        read(f"{ROW}\n".encode(encoding))


@pytest.mark.parametrize(
    ("row", "box", "clipped"),
    [
        ("1 1.01 0.4 0.25 0.125", [1, 1, 0.4, 0.25, 0.125], 1),
        ("1 0.5 -0.01 0.25 0.125", [1, 0.5, 0, 0.25, 0.125], 1),
        ("1 1.000001 -1e-7 1.0000002 1.001", [1, 1, 0, 1, 1], 4),
        ("1 -0.005 0.2 0.6 0.2 0.6 1.005", [1, 0.3, 0.6, 0.6, 0.8], 2),
    ],
)
def test_coordinates_just_outside_are_clipped_and_counted(read, row: str, box: list[float], clipped: int) -> None:
    labels = read(f"0 0.1 0.1 0.1 0.1\n{row}\n")
    np.testing.assert_allclose(labels.rows[1], box, atol=1e-6)
    assert labels.clipped == clipped
    assert all((outline >= 0).all() and (outline <= 1).all() for outline in labels.outlines)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("1 1.011 0.4 0.25 0.125", r"line 2 is not normalised to 0\.\.1 \(1.011\)"),
        ("1 0.5 -0.011 0.25 0.125", r"line 2 has a negative coordinate \(-0.011\)"),
    ],
)
def test_coordinates_further_outside_are_refused(read, row: str, told: str) -> None:
    with pytest.raises(LabelError, match=told):
        read(f"{ROW}\n{row}\n")


@pytest.mark.parametrize(
    "row",
    [
        "1 0.5 0.4 0 0.125",
        "1 0.5 0.4 0.25 0.0",
        "1 0.5 0.4 -0.001 0.125",
        "1 0.5 0.4 1e-60 0.125",
        "1 0.2 0.2 0.2 0.6 0.2 0.8",  # an outline that is a line
    ],
)
def test_a_box_of_zero_size_is_no_object(read, row: str) -> None:
    labels = read(f"{ROW}\n{row}\n0 0.1 0.1 0.1 0.1\n")
    assert labels.rows[:, 0].tolist() == [1, 0]
    assert labels.flat == (2,)
    assert len(labels.outlines) == 2


def test_of_key_points_the_box_is_read(read) -> None:
    labels = read(f"{ROW} 0.45 0.38 2 0 0 0 1.2 -3 1\n{ROW.replace('1', '2', 1)}\n", (3, 3))
    np.testing.assert_allclose(labels.rows, [BOX, [2, *BOX[1:]]])
    assert [len(outline) for outline in labels.outlines] == [0, 0]
    np.testing.assert_allclose(read(f"{ROW} 0.45 0.38 0.5 0.4", (2, 2)).rows, [BOX])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (f"{ROW} 0.45 0.38", r"line 1 has 7 values; kpt_shape \[2, 2\] needs 9, or 5 without key points"),
        (f"{ROW} 0.9", "line 1 has 6 values"),
        (f"{ROW} 0.45 0.38 nan 0.4", "not finite"),
    ],
)
def test_rows_that_do_not_fit_the_key_points_are_refused(read, row: str, told: str) -> None:
    with pytest.raises(LabelError, match=told):
        read(row, (2, 2))


def test_six_columns_may_be_confidences(read) -> None:
    labels = read(f"{ROW} 0.875\n0 0.2 0.2 0.1 0.1 1\n")
    np.testing.assert_allclose(labels.rows, [BOX, [0, 0.2, 0.2, 0.1, 0.1]])
    assert labels.six.startswith("line 1 has 6 values")
    assert not read(ROW).six


def test_the_line_of_a_class_that_has_no_name(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(codecs.BOM_UTF8 + f"\r\n{ROW}\r\n7.0 0.5 0.5 0.1 0.1\r\n".encode())
    assert find_class_line(str(file), 3) == (3, 7)
