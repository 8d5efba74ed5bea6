"""int8: images of every class, a float tail, and what it costs."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from commands_run import sentence
from export_formats import answered
from secateur.cli import main
from secateur.data.config import load_data_config
from secateur.data.index import Counts, Index, scan
from secateur.deploy.exporters import export
from secateur.deploy.formats.onnx.int8 import tail_of
from secateur.deploy.int8 import calibration_images, cost_rows, cost_table, covering
from secateur.deploy.profiling import PROFILERS
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.evaluation.metrics import ClassMetrics, Metrics
from secateur.families.detection.split import DetectionSplit

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("onnxruntime")


def labelled(classes: list[list[int]]) -> Index:
    """An index of images that have these classes in them."""
    rows = [[label, 0.5, 0.5, 0.1, 0.1] for labels in classes for label in labels]
    offsets = np.cumsum([0, *(len(labels) for labels in classes)])
    files = tuple(f"{number}.jpg" for number in range(len(classes)))
    shapes = np.full((len(classes), 2), 64, np.int32)
    counts = Counts(*[0] * len(fields(Counts)))
    return Index(files, shapes, np.array(rows, np.float32).reshape(-1, 5), offsets, counts, (), "")


def test_rare_classes_are_seen() -> None:
    classes = [[0]] * 50 + [[0, 1]] + [[0]] * 20 + [[2]]
    chosen = covering(labelled(classes), 4)
    assert len(chosen) == 4 and {50, 71} < set(chosen) and chosen == sorted(chosen)


def test_pictures_without_labels_are_taken_evenly() -> None:
    assert covering(labelled([[]] * 100), 5) == [0, 25, 50, 74, 99]


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=30), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_every_class_is_seen_where_there_is_room(classes: list[list[int]], count: int) -> None:
    chosen = covering(labelled(classes), count)
    assert len(set(chosen)) == len(chosen) == min(count, len(classes))
    seen = {label for number in chosen for label in classes[number]}
    known = {label for labels in classes for label in labels}
    if len(known) <= count:
        assert seen == known


def test_pictures_are_those_of_a_validation(tiny_data: Path) -> None:
    index = scan(load_data_config(tiny_data), "train", progress=False)
    pictures = calibration_images(DetectionSplit(index), (64, 64), 3)
    assert [picture.shape for picture in pictures] == [(3, 64, 64)] * 3
    assert all(picture.dtype == torch.uint8 and picture.max() > picture.min() for picture in pictures)
    with pytest.raises(UserError, match="none were found"):
        calibration_images(DetectionSplit(index.select([])), (64, 64))


def test_the_tail_stays_in_float_and_scores_survive(detector, tiny_data: Path, tmp_path: Path) -> None:
    pictures = calibration_images(DetectionSplit.of(load_data_config(tiny_data), "train"), (64, 64), 8)
    whole = export(detector, tmp_path / "a.onnx", 64)
    small = export(detector, tmp_path / "b.onnx", 64, ExportSettings(precision="int8"), images=pictures)
    assert small.precision == "int8" and small.file_mb < 0.55 * whole.file_mb and small.max_error < 0.15
    graph = onnx.load(str(small.path))
    makers = {output: node for node in graph.graph.node for output in node.output}
    kinds = [node.op_type for node in graph.graph.node if node.name in tail_of(graph, heads=True)]
    assert kinds.count("Conv") == 3 and "QuantizeLinear" not in kinds and "Sigmoid" in kinds
    # Everything before it is in int8: what other convolutions read comes out of a DequantizeLinear.
    others = [n for n in graph.graph.node if n.op_type == "Conv" and n.name not in tail_of(graph, heads=True)]
    assert len(others) > 50 and all(makers[node.input[0]].op_type == "DequantizeLinear" for node in others)
    assert PROFILERS[".onnx"].work(small.path, (64, 64)) == PROFILERS[".onnx"].work(whole.path, (64, 64)) != {}
    image = pictures[0][None].float() / 255
    found, expected = (answered(open_predictor(file.path), image)[0] for file in (small, whole))
    assert np.corrcoef(found[:, 4], expected[:, 4])[0, 1] > 0.9


def test_opsets_that_cannot_be_quantised_are_said(detector, tiny_data: Path, tmp_path: Path) -> None:
    pictures = calibration_images(DetectionSplit.of(load_data_config(tiny_data), "train"), (64, 64), 2)
    with pytest.raises(UserError, match="opset of at most 20, not 21"):
        export(detector, tmp_path / "a.onnx", 64, ExportSettings(precision="int8", opset=21), images=pictures)
    assert list(tmp_path.iterdir()) == []


def metrics(values: dict[str, float]) -> Metrics:
    rows = tuple(ClassMetrics(i, name, 1, 1, 0, 0, 0, value) for i, (name, value) in enumerate(values.items()))
    return Metrics.of(rows, images=1, instances=1)


def test_the_cost_is_told_class_by_class() -> None:
    before, after = metrics({"cat": 0.5, "dog": 0.4, "cow": 0.3}), metrics({"cat": 0.5, "dog": 0.2, "cow": 0.35})
    lines = [line.split() for line in cost_table(before, after, "int8").splitlines()]
    assert lines[0] == ["mAP50-95", "fp32", "int8", "change"]
    assert lines[1:3] == [["all", "0.400", "0.350", "-0.050"], ["dog", "0.400", "0.200", "-0.200"]]
    assert [row["name"] for row in cost_rows(before, after)["classes"]] == ["dog", "cat", "cow"]


def test_the_command_measures_what_it_costs(tiny_weights: Path, tiny_data: Path, tmp_path: Path, capsys) -> None:
    words = ["export", "--weights", str(tiny_weights), "--img", "64", "--int8", "--project", str(tmp_path / "runs")]
    main([*words, "--data", str(tiny_data), "--include", "onnx", "--calibration", "4", "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["export"]["precision"] == "int8"
    assert set(summary["export"]["accuracy"]) == {"before", "after", "classes"}


def test_unmeasured_it_needs_no_val_split(tiny_weights: Path, tiny_data: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "data.yaml").write_text(f"path: {tiny_data.parent}\ntrain: images/train\nnames: [a, b, c]\n")
    words = ["export", "--weights", str(tiny_weights), "--img", "64", "--int8", "--data", str(tmp_path / "data.yaml")]
    main([*words, "--no-measure", "--calibration", "2", "--project", str(tmp_path / "runs"), "--json"])
    assert "accuracy" not in json.loads(capsys.readouterr().out)["export"]


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "Give --data data.yaml or --images"), (["--images", "nowhere"], "does not exist"),
     (["--images", ".", "--calibration", "0"], "--calibration is 0")],
)  # fmt: skip
def test_calibration_needs_pictures(tiny_weights: Path, tmp_path: Path, capsys, words: list[str], message: str) -> None:
    start = ["export", "--weights", str(tiny_weights), "--int8", "--project", str(tmp_path / "runs")]
    assert message in sentence(capsys, *start, *words) and not (tmp_path / "runs").exists()
