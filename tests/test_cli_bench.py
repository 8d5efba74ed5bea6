"""`secateur bench` as it is typed: what is timed beside what, what the table says, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from commands_run import sentence
from secateur.cli import main
from secateur.deploy.exporters import EXPORTERS, export
from secateur.deploy.settings import ExportSettings
from secateur.deploy.speed import comparison
from secateur.deploy.speed.timed import BenchSettings
from secateur.errors import UserError
from secateur.evaluation import latency
from secateur.evaluation.cost import count
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint, HistoryEntry, save_checkpoint
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.graph import trace
from secateur.pruning.importance import score
from secateur.pruning.settings import Guards
from secateur.pruning.statistics import collect
from secateur.pruning.surgery import cut

pytestmark = pytest.mark.usefixtures("own_folder")
SHORT = ("--rounds", "2", "--img", "64", "--threads", "1", "--json")


@pytest.fixture(scope="module")
def small_weights(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny detector at half its FLOPs, with an accuracy in its history."""
    detector = load_checkpoint(tiny_weights).build()
    graph = trace(detector)
    plan = allocate(graph, score("l2", graph, collect(detector, graph)), Budget("flops", 0.5), Guards(round_to=1))
    history = (HistoryEntry(verb="finetune", metrics={"mAP50-95": 0.5}),)
    file = tmp_path_factory.mktemp("small") / "small.safetensors"
    save_checkpoint(dataclasses.replace(Checkpoint.of(cut(detector, graph, plan)), history=history), file)
    return file


@pytest.fixture(scope="module")
def exported(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    file = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    export(load_checkpoint(tiny_weights).build(), file, 64)
    return file


def bench(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    """The summary; what is printed for people is then on stderr."""
    main(["bench", *map(str, words), *SHORT])
    return json.loads(capsys.readouterr().out)


def test_files_on_several_runtimes(
    capsys: pytest.CaptureFixture[str], tiny_weights: Path, small_weights: Path, exported: Path
) -> None:
    summary = bench(capsys, tiny_weights, small_weights, exported, "--runtime", "onnx", "torch")
    rows = summary["table"]
    dense, small, file = str(tiny_weights), str(small_weights), str(exported)
    onnx, torch_ = "ONNX Runtime", "PyTorch"
    assert [(row["file"], row["runtime"]) for row in rows] == [
        (dense, onnx), (dense, torch_), (small, onnx), (small, torch_), (file, onnx)
    ]  # fmt: skip
    assert [row["ratio"] for row in rows[:2]] == [1, 1], "the first file is the baseline of each runtime"
    flops = [count(load_checkpoint(name).build(), 64).flops for name in (tiny_weights, small_weights)]
    assert [row["flops_ratio"] for row in rows] == pytest.approx([1, 1, flops[0] / flops[1], flops[0] / flops[1], 1])
    assert [row["accuracy"] for row in rows] == [None, None, 0.5, 0.5, None]
    assert rows[4]["parameters"] is None and rows[4]["gflops"] == pytest.approx(flops[0] / 1e9)
    assert rows[4]["file_mb"] == pytest.approx(exported.stat().st_size / 1e6)
    assert summary["runtimes"] == ["onnx", "torch"] and summary["runtime"] == "onnx" and summary["image_size"] == 64
    assert summary["model"] == rows[0]["model"] and set(summary["model"]) == {
        "parameters", "gflops", "sparsity", "file_mb"
    }  # fmt: skip
    assert summary["speed_ms"][dense] == rows[0]["median_ms"] and len(summary["speed_ms"]) == 5
    assert json.loads((Path(summary["folder"]) / "summary.json").read_text()) == summary


def test_several_batches(capsys: pytest.CaptureFixture[str], tiny_weights: Path, exported: Path) -> None:
    main(["bench", str(tiny_weights), str(exported), "--batch-size", "1", "2", *SHORT])
    captured = capsys.readouterr()
    rows = json.loads(captured.out)["table"]
    assert [(row["batch"], row["images"], row["note"]) for row in rows] == [
        (1, 1, ""), (1, 1, ""), (2, 2, ""), (2, 1, "fixed batch of 1")
    ]  # fmt: skip
    assert all(row["images_per_second"] == pytest.approx(1000 * row["images"] / row["median_ms"]) for row in rows)
    assert captured.err.count("batch 2, 64 px, fp32") == 1 and captured.err.count("parameters") == 2


def test_layers_of_two_files(capsys: pytest.CaptureFixture[str], tiny_weights: Path, small_weights: Path) -> None:
    words = ["bench", str(tiny_weights), str(small_weights), "--runtime", "torch", "--layers", *SHORT]
    main(words)
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert f"1: {tiny_weights}, 2: {small_weights}, on PyTorch" in captured.err and "GFLOP/s 2" in captured.err
    first, second = summary["layers"]
    assert (first["file"], second["file"], first["runtime"]) == (str(tiny_weights), str(small_weights), "PyTorch")
    named = {layer["layer"] for layer in first["layers"]}
    assert {"model.0.conv", "model.10.m.0"} <= named and named == {layer["layer"] for layer in second["layers"]}


def test_layers_of_one_file(capsys: pytest.CaptureFixture[str], exported: Path) -> None:
    main(["bench", str(exported), "--layers", *SHORT])
    captured = capsys.readouterr()
    assert f"{exported} on ONNX Runtime\nlayer" in captured.err
    assert len(json.loads(captured.out)["layers"]) == 1


def test_the_reason_is_named(
    capsys: pytest.CaptureFixture[str], tiny_weights: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the times are: at equal speed half the FLOPs want a reason."""
    real = latency.compare

    def equal(*arguments: Any, **options: Any) -> latency.Comparison:
        measured = real(*arguments, **options)
        return dataclasses.replace(measured, ratios=dict.fromkeys(measured.ratios, 1.0))

    monkeypatch.setattr(comparison, "compare", equal)
    (reason,) = bench(capsys, tiny_weights, small_weights, "--runtime", "torch")["reasons"]
    assert reason.startswith(f"{small_weights} on PyTorch has 2.0")
    assert "x fewer FLOPs and is 1.00x as fast (" in reason and "of its time is outside convolutions" in reason


def test_the_process_may_go_anywhere_afterwards(capsys: pytest.CaptureFixture[str], tiny_weights: Path) -> None:
    threads = torch.get_num_threads()
    bench(capsys, tiny_weights, "--runtime", "torch", "--threads", "1")
    assert torch.get_num_threads() == threads


def test_the_size_is_that_of_exported_files(
    capsys: pytest.CaptureFixture[str], tiny_weights: Path, exported: Path
) -> None:
    text = sentence(capsys, "bench", str(exported), "--img", "96")
    assert f"{exported} requires images of 64 px, not 96. Remove --img, or export it for that size." in text
    other = exported.with_name("other.onnx")
    export(load_checkpoint(tiny_weights).build(), other, 96, ExportSettings())
    text = sentence(capsys, "bench", str(exported), str(other))
    assert "tiny.onnx requires images of 64 px and" in text and "other.onnx of 96 px" in text
    main(["bench", str(tiny_weights), str(exported), "--rounds", "1", "--threads", "1", "--json"])
    assert json.loads(capsys.readouterr().out)["image_size"] == 64


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "secateur bench needs at least one file"),
        (["{}", "--runtime", "tflight"], "--runtime tflight is unknown; choose among "),
        (["{}", "--runtime", "yolov5"], "--runtime yolov5 is unknown"),
        (["{}", "--batch-size", "0"], "--batch-size is 0; it must be from 1 to"),
        (["{}", "--batch-size", "1", "-2"], "--batch-size is -2"),
        (["{}", "--threads", "-1"], "--threads is -1"),
        (["{}", "--rounds", "0"], "--rounds is 0"),
        (["{}", "--precision", "fp8", "--runtime", "torch"], "'fp8'"),
        (
            ["{}", "--precision", "bf16", "--runtime", "torch", "onnx"],
            "--precision bf16 applies to checkpoints in PyTorch",
        ),
        (["{}", "--half", "--runtime", "torch"], "--precision fp16 needs a GPU"),
        (["{}", "--layers", "--precision", "bf16", "--runtime", "torch"], "--layers profiles in fp32"),
        (["nothing.safetensors"], "nothing.safetensors"),
        (["nothing.onnx"], "There is no file nothing.onnx"),
        (["table.xlsx"], "Cannot open table.xlsx: no runtime"),
        (["{}", "--device", "gpu"], "Unknown device 'gpu'"),
    ],
)
def test_what_is_refused(capsys: pytest.CaptureFixture[str], tiny_weights: Path, words: list[str], told: str) -> None:
    assert told in sentence(capsys, "bench", *(word.format(tiny_weights) for word in words))


def test_a_runtime_that_is_not_installed(
    capsys: pytest.CaptureFixture[str], tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = dataclasses.replace(EXPORTERS["onnx"], packages=("no_such_package",))
    monkeypatch.setitem(EXPORTERS._methods, "onnx", absent)
    text = sentence(capsys, "bench", str(tiny_weights), "--runtime", "onnx")
    assert "no_such_package" in text and "pip install 'secateur[onnx]'" in text
    assert bench(capsys, tiny_weights)["runtime"] == "torch", "what is not installed is no default"


def test_devices_that_are_not_timed() -> None:
    with pytest.raises(UserError, match=r"does not support the device mps. Use --device cpu or cuda"):
        comparison.compare_files(["any.pt"], BenchSettings(device=torch.device("mps")))
    with pytest.raises(UserError, match="--layers profiles on the CPU"):
        comparison.compare_files(["any.pt"], BenchSettings(device=torch.device("cuda")), layers=True)


def test_a_runtime_without_the_device(
    capsys: pytest.CaptureFixture[str], exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secateur.machine.pick_device", lambda text: torch.device("cuda"))
    text = sentence(capsys, "bench", str(exported), "--device", "cuda")
    assert "ONNX Runtime does not support cuda here. Use --device cpu" in text
