"""The cache of a checked split is trusted until something changes; the signature of its content tells what is there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import GOOD, MakeData, scanned

import secateur.data.index as index_module
from secateur.data.index import content_signature


def test_cache_is_used_until_a_file_changes(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_data([GOOD, GOOD])
    first = scanned(file)
    cache = file.parent / "labels" / "train.train.secateur.npz"
    assert cache.is_file()
    calls = []
    check = index_module._check
    monkeypatch.setattr(index_module, "_check", lambda *a: calls.append(1) or check(*a))
    again = scanned(file)
    assert not calls
    assert again.files == first.files
    np.testing.assert_array_equal(again.labels, first.labels)
    (file.parent / "labels/train/001.txt").write_text(GOOD + "1 0.5 0.5 0.1 0.1")
    assert len(scanned(file).labels) == 3
    cache.write_bytes(b"no cache at all")
    assert len(scanned(file).labels) == 3
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("offsets", np.array([0, 1, 99])),
        ("offsets", np.array([0, 1.5, 2])),
        ("labels", np.full((2, 5), np.nan, np.float32)),
        ("labels", np.zeros((2, 4), np.float32)),
        ("labels", np.full((2, 5), 7, np.float32)),
        ("labels", np.full((2, 5), 0.5, np.float32)),
        ("labels", np.array([[0, 0.5, 0.5, 1.5, 0.5]] * 2, np.float32)),
        ("shapes", np.zeros((1, 2), np.int32)),
        ("point_offsets", np.array([0, 1, 2])),
        ("text", np.frombuffer(b'{"files": ["/etc/passwd", "b"], "counts": {}, "problems": []}', np.uint8)),
    ],
)
def test_a_cache_that_came_with_the_data_and_says_what_cannot_be_is_made_anew(
    make_data: MakeData, name: str, value: object
) -> None:
    file = make_data([GOOD, GOOD])
    first = scanned(file)
    cache = file.parent / "labels" / "train.train.secateur.npz"
    with np.load(cache) as data:
        arrays = dict(data)
    np.savez(cache, **arrays | {name: value})
    again = scanned(file)
    assert again.files == first.files
    np.testing.assert_array_equal(again.labels, first.labels)
    np.savez_compressed(cache, **arrays | {"more": np.zeros(1_000_000)})
    assert scanned(file).files == first.files
    with np.load(cache) as data:
        assert "more" not in data


def test_read_only_data_set_is_cached_at_home(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_data([GOOD])
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may write anywhere
    scanned(file)
    assert not list(file.parent.rglob("*.npz"))
    assert len(list((tmp_path / "cache-home").rglob("*.npz"))) == 1


def test_content_signature_is_of_what_is_there_and_not_of_when_or_where(make_data: MakeData, tmp_path: Path) -> None:
    file = make_data([GOOD, "1 0.2 0.2 0.6 0.2 0.6 0.8\n", None])
    first = scanned(file)
    for image in (file.parent / "images/train").iterdir():
        os.utime(image, (1, 1))
    shutil.copytree(file.parent, tmp_path / "moved")
    for again in (scanned(file), scanned(tmp_path / "moved" / "data.yaml")):
        assert again.signature != first.signature
        assert content_signature(again) == content_signature(first)


@pytest.mark.parametrize("change", ["class", "box", "outline", "label for background", "image", "name", "fewer"])
def test_content_signature_changes_with_the_content(make_data: MakeData, change: str) -> None:
    file = make_data([GOOD, "1 0.2 0.2 0.6 0.2 0.6 0.8\n", None])
    images, labels = file.parent / "images/train", file.parent / "labels/train"
    before = content_signature(scanned(file))
    if change == "class":
        (labels / "000.txt").write_text("1" + GOOD[1:])
    elif change == "box":
        (labels / "000.txt").write_text(GOOD.replace("0.25", "0.26", 1))
    elif change == "outline":  # of the same box
        (labels / "001.txt").write_text("1 0.2 0.2 0.6 0.2 0.6 0.8 0.2 0.8\n")
    elif change == "label for background":
        (labels / "002.txt").write_text(GOOD)
    elif change == "image":
        cv2.imwrite(str(images / "000.png"), np.zeros((48, 64, 3), np.uint8))
    elif change == "name":
        (images / "002.png").rename(images / "003.png")
    else:
        (images / "002.png").unlink()
    assert content_signature(scanned(file)) != before
