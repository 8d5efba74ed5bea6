"""The model summary: the same figures from a detector, a checkpoint and a file's header."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from secateur.detector.checkpoint import Checkpoint, read_header, save_checkpoint
from secateur.detector.model import Detector
from secateur.detector.summary import block_widths, summary
from secateur.evaluation.cost import layer_flops


def test_figures_and_rows(lively: Callable[..., Detector], tmp_path: Path) -> None:
    detector = lively("yolov5n", nc=80)
    detector.model[0].requires_grad_(False)
    detector.model[2].cv1.conv.weight.data.zero_()
    result = summary(detector, 640, layer_flops(detector, 640))
    assert (result.parameters, result.flops) == (1_872_157, 4_468_121_600)
    assert result.gradients == 1_872_157 - 1_760
    assert result.sparsity == pytest.approx(512 / 1_872_157, rel=1e-6)
    assert sum(row.parameters for row in result.rows) == result.parameters
    assert sum(row.flops or 0 for row in result.rows) == result.flops
    assert [row.channels for row in result.rows[:3]] == [16, 32, 32]
    assert "4.5 GFLOPs at 640 px" in result.line()
    assert len(result.table().splitlines()) == 26
    assert result.to_dict()["gflops"] == 4.4681

    checkpoint = Checkpoint.of(detector)
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    assert summary(checkpoint).sparsity == result.sparsity
    header = summary(read_header(tmp_path / "a.safetensors"))
    assert (header.parameters, header.layers, header.sparsity, header.flops) == (
        result.parameters,
        result.layers,
        None,
        None,
    )


def test_widths_of_odd_models(lively: Callable[..., Detector], odd_yaml: Path) -> None:
    detector = lively(odd_yaml)
    widths = block_widths(detector)
    assert widths[9] == widths[8] + widths[4]
    assert widths[-1] == detector.na * detector.no
    assert summary(detector).table().count("\n") == len(widths)
