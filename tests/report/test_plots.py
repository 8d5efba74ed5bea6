"""Every image is written, for few and many classes and for the empty cases."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from secateur.errors import UserError
from secateur.evaluation.curves import Curves
from secateur.evaluation.matching import Boxes
from secateur.evaluation.metrics import measure
from secateur.report import figures
from secateur.report.curve_plots import plot_evaluation
from secateur.report.data_plots import plot_batch, plot_labels
from secateur.report.figures import plots_available
from secateur.report.run_folder_plots import draw_results, plot_cliff, plot_results, plot_sizes, read_results
from secateur.sparsity.channels.distribution import as_csv, distribution

pytest.importorskip("matplotlib")

RESULTS = "               epoch,      train/box_loss,     metrics/mAP_0.5,metrics/mAP_0.5:0.95\n"


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None and image.std() > 1, f"{path} is blank"
    return image


def labels(count: int, classes: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.05, 0.3, (count, 2))
    centres = sides / 2 + rng.random((count, 2)) * (1 - sides)
    return np.column_stack([rng.integers(0, classes, count), centres, sides]).astype(np.float32)


def curves(classes: int, objects: int) -> Curves:
    rows = labels(objects, classes).astype(float)
    corners = np.concatenate((rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2), axis=1) * 100
    rng = np.random.default_rng(1)
    ids, images = rows[:, 0].astype(np.int64), np.arange(objects) % 5
    truths = Boxes(images, corners, ids, np.ones(objects))
    found = Boxes(images, corners + rng.normal(0, 2, corners.shape), ids, rng.random(objects))
    names = {i: f"a class with a long name {i}" for i in range(classes)}
    metrics = measure(truths, found, np.full((5, 2), 100), names, curves=True)
    assert metrics.curves is not None
    return metrics.curves


@pytest.mark.parametrize("classes", [1, 3, 80])
def test_evaluation(tmp_path, classes) -> None:
    paths = plot_evaluation(curves(classes, 5 * classes), tmp_path)
    names = {"PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png", "confusion_matrix.png"}
    assert {path.name for path in paths} == names == {path.name for path in tmp_path.iterdir()}
    for path in paths:
        picture(path)


def test_evaluation_without_objects(tmp_path) -> None:
    assert len(plot_evaluation(curves(2, 0), tmp_path)) == 5


@pytest.mark.parametrize(("count", "classes"), [(0, 3), (200, 3), (2000, 80)])
def test_labels(tmp_path, count, classes) -> None:
    picture(plot_labels(labels(count, classes), {i: f"class {i}" for i in range(classes)}, tmp_path / "labels.png"))


def test_batch_draws_each_box_where_it_lies(tmp_path) -> None:
    images = np.zeros((2, 3, 128, 128), np.uint8)
    targets = np.asarray([[1, 0, 0.5, 0.5, 0.5, 0.5]], np.float32)
    image = picture(plot_batch(images, targets, {0: "cell"}, tmp_path / "batch.png"))
    height, width = image.shape[:2]
    assert height * 2 == width
    left, right = image[:, : width // 2], image[:, width // 2 :]
    assert left[4:-6, 4:-6].max() == 0  # the first image has no box
    coloured = (right.max(axis=2).astype(int) - right.min(axis=2)) > 60
    rows, columns = coloured.nonzero()
    assert abs(columns.min() - width / 8) <= 3 and abs(rows.max() - height * 3 / 4) <= 3


def test_results_and_their_reader(tmp_path) -> None:
    file = tmp_path / "results.csv"
    file.write_text(RESULTS + "   0, 0.5, 0.1, 0.05\n   1, 0.4, nan, \n   2, 0.3, 0.3, 0.2\n")
    columns = read_results(file)
    assert columns["epoch"].tolist() == [0, 1, 2] and np.isnan(columns["metrics/mAP_0.5:0.95"][1])
    plain = picture(plot_results(file, tmp_path / "results.png"))
    assert not np.array_equal(plain, picture(plot_results(file, tmp_path / "best.png", best_epoch=2)))
    file.write_text(RESULTS)
    with pytest.raises(UserError, match="no epochs"):
        plot_results(file, tmp_path / "results.png")
    with pytest.raises(UserError, match="Cannot read"):
        plot_results(tmp_path / "missing.csv", tmp_path / "results.png")


def test_cliff(tmp_path) -> None:
    ratios, accuracy = [0.0, 0.2, 0.4, 0.6], [0.8, 0.78, 0.5, 0.1]
    curves = {"top-1": accuracy, "top-5": [0.6 * a for a in accuracy]}
    both = plot_cliff(ratios, curves, tmp_path / "a.png", chosen=0.5, knee=0.3)
    plain = plot_cliff(ratios, curves, tmp_path / "b.png")
    assert not np.array_equal(picture(both), picture(plain))
    picture(plot_cliff([0.0], {"top-1": [0.0]}, tmp_path / "c.png", chosen=0.3))


def sizes_csv(epochs: int) -> str:
    """A file as the penalties write it: scales that shrink."""
    rng, rows = np.random.default_rng(0), []
    for epoch in range(epochs):
        row: dict[str, float] = {"epoch": epoch, "rate": 0.5 - 0.1 * epoch}
        for name in ("model", "ema"):
            values = torch.from_numpy(np.abs(rng.normal(0, 1 / (1 + epoch), 500)))
            row |= {f"{name}/{key}": value for key, value in distribution(values).items()}
        rows.append(row)
    return as_csv(rows)


def test_a_sparse_training_leaves_pictures_of_what_it_shrank(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("secateur.report.run_folder_plots.plots_available", plots_available)
    (tmp_path / "gamma.csv").write_text(sizes_csv(3))
    (tmp_path / "filters.csv").write_text(sizes_csv(1))
    draw_results(tmp_path)
    assert {file.name for file in tmp_path.glob("*.png")} == {"gamma.png", "filters.png"}
    assert not np.array_equal(picture(tmp_path / "gamma.png"), picture(tmp_path / "filters.png"))
    (tmp_path / "gamma.csv").write_text(sizes_csv(1).splitlines()[0])
    with pytest.raises(UserError, match="no epochs"):
        plot_sizes(tmp_path / "gamma.csv", tmp_path / "gamma.png", what="|gamma|")


def test_without_matplotlib_there_is_one_notice_and_one_sentence(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    figures._tell_once.cache_clear()
    assert not plots_available() and not plots_available()
    assert caplog.text.count("secateur[plots]") == 1
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"secateur\[plots\]"):
        plot_labels(labels(3, 1), {0: "cell"}, tmp_path / "labels.png")


def test_a_batch_of_grey_images_is_drawn_in_grey(tmp_path) -> None:
    images = np.full((2, 1, 128, 128), 90, np.uint8)
    images[1] = 200
    image = picture(plot_batch(images, np.zeros((0, 6), np.float32), {0: "cell"}, tmp_path / "batch.png"))
    width = image.shape[1]
    left, right = image[4:-6, 4 : width // 2 - 6], image[4:-6, width // 2 + 4 : -6]
    assert (left == 90).all() and (right == 200).all()
