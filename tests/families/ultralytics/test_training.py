"""Training is the package's own, in a run folder of Secateur: widths and zeros stay, a killed training resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ultralytics.nn")

from ultralytics_subjects import NAMES, SIZE, fresh, save, subject_named

from secateur.cli import main
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.surgery import cut
from secateur.training.state import read_state


def run(*arguments: str) -> None:
    main([*arguments, "--device", "cpu"])


def pruned(name: str, folder: Path) -> Checkpoint:
    """A cut network, in pruned.safetensors."""
    subject = subject_named(name)
    checkpoint = Checkpoint.of(cut(subject.network, subject.graph, subject.plan(3)), image_size=SIZE)
    save_checkpoint(checkpoint, folder / "pruned.safetensors")
    return checkpoint


def shapes(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: tensor.shape for name, tensor in checkpoint.tensors.items()}


@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_widths_stay(name: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = pruned(name, tmp_path)
    files = {file.name for file in tiny_data.parent.rglob("*")}
    run("finetune", "--weights", "pruned.safetensors", "--data", str(tiny_data), "--epochs", "2", "--batch", "8")
    folder = tmp_path / "runs/finetune/exp"
    best = load_checkpoint(folder / "weights/best.safetensors")
    assert shapes(best) == shapes(start) and best.history[-1].verb == "finetune" and best.names == NAMES
    assert best.architecture.numbers == start.architecture.numbers
    weight = "model.model.0.conv.weight"
    assert not torch.equal(best.tensors[weight].float(), start.tensors[weight].float())
    theirs = load_checkpoint(folder / "weights/best.pt")
    assert all(torch.equal(theirs.tensors[key].float(), best.tensors[key].float()) for key in best.tensors)
    assert read_state(folder)["finished"] and (folder / "results.csv").is_file() and (folder / "summary.json").is_file()
    # Only our own cache of labels may be new.
    assert not any(file.suffix == ".cache" for file in tiny_data.parent.rglob("*") if file.name not in files)
