"""Where the time of a file goes: which layers are named and what they compute, never how long they take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateur.deploy.exporters import export
from secateur.deploy.profiling import PROFILERS, LayerTime, profiler_of
from secateur.deploy.settings import ExportSettings
from secateur.evaluation.cost import layer_work
from secateur.families.loading import load_checkpoint
from secateur.terminal import silenced

SIDES = (64, 64)


@pytest.fixture
def exported(tiny_weights: Path, tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "tiny.onnx"
    export(load_checkpoint(tiny_weights).build(), file, SIDES)
    return file


def profile(file: Path, batch: int = 1) -> list[LayerTime]:
    profiler = profiler_of(file)
    assert profiler is not None
    opened = profiler.open(file, (batch, 3, *SIDES), 1)
    opened.turn()
    layers = opened.layers()
    assert opened.milliseconds() == [pytest.approx(sum(layer.ms for layer in layers))]
    return layers


def test_all_layers_of_a_checkpoint_are_timed(tiny_weights: Path) -> None:
    expected = layer_work(load_checkpoint(tiny_weights).build(), SIDES)
    assert PROFILERS[".safetensors"].work(tiny_weights, SIDES) == expected
    threads = torch.get_num_threads()
    layers = profile(tiny_weights, batch=2)
    assert {layer.name: layer.work for layer in layers if layer.work} == expected
    assert all(layer.ms > 0 for layer in layers if layer.work) and torch.get_num_threads() == threads
    others = {(layer.name, layer.kind) for layer in layers if not layer.work}
    assert ("(outputs)", "decode") in others and ("(between the layers)", "call") in others
    assert ("model.9", "concat") in others
    assert not any("act" in name or "bn" in name for name, _ in others), "activations belong to their convolutions"


def test_all_layers_of_an_onnx_file_are_timed(exported: Path, tiny_weights: Path) -> None:
    expected = layer_work(load_checkpoint(tiny_weights).build(), SIDES)
    assert PROFILERS[".onnx"].work(exported, SIDES) == expected
    layers = profile(exported)
    assert {layer.name: layer.work for layer in layers if layer.work} == expected
    kinds = {layer.kind for layer in layers if not layer.work}
    assert {"concat", "decode", "call"} <= kinds and not {"sigmoid", "quickgelu"} & kinds
    assert len({(layer.name, layer.kind) for layer in layers}) == len(layers)


def test_a_batch_that_is_left_open(tiny_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "open.onnx"
    export(load_checkpoint(tiny_weights).build(), file, SIDES, ExportSettings(dynamic=True))
    assert PROFILERS[".onnx"].work(file, SIDES) == layer_work(load_checkpoint(tiny_weights).build(), SIDES)
    assert sum(layer.ms for layer in profile(file, batch=3)) > 0


def test_layers_of_all_kinds_in_an_onnx_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1, groups=1),
        torch.nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        torch.nn.Hardswish(),
        torch.nn.ConvTranspose2d(8, 4, 2, 2),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 64 * 64, 5),
    )
    file = tmp_path / "plain.onnx"
    with silenced():
        torch.onnx.export(network.eval(), (torch.zeros(1, 3, *SIDES),), str(file), dynamo=False)
    work = PROFILERS[".onnx"].work(file, SIDES)
    assert [(w.kind, w.reads, w.emits, w.map, w.flops) for w in work.values()] == [
        ("conv 3x3/2", 3, 8, (32, 32), 2 * 27 * 8 * 32 * 32),
        ("grouped 3x3", 8, 8, (32, 32), 2 * 9 * 8 * 32 * 32),
        ("transposed 2x2/2", 8, 4, (64, 64), 2 * 8 * 4 * 4 * 32 * 32),
        ("linear", 4 * 64 * 64, 5, (1, 1), 2 * 4 * 64 * 64 * 5),
    ]
    assert list(work) == ["0", "1", "3", "5"]


def test_files_that_nobody_looks_into(tmp_path: Path) -> None:
    assert profiler_of(tmp_path / "tiny.unknown") is None
