"""The line that a command ends with: it can be pasted, and fits what the network's family can do."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from torch import nn

from secateur.data.config import load_data_config
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint, HistoryEntry
from secateur.runs.ending.next_line import (
    after_cut,
    after_run,
    after_sweep,
    after_training,
    looked_at,
    pasted,
    prediction,
)

FILE = Path("my runs/pruned.safetensors")


@pytest.fixture
def detector(tiny_weights: Path) -> Checkpoint:
    return load_checkpoint(tiny_weights)


@pytest.fixture
def plain() -> Checkpoint:
    return Checkpoint.of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval())


def test_a_shell_reads_the_words_as_they_are_meant() -> None:
    line = pasted("val", weights=FILE, latency_table="a'b.json", data="", seed=None, epochs=3)
    assert shlex.split(line) == [
        "secateur", "val", "--weights", str(FILE), "--latency-table", "a'b.json", "--epochs", "3",
    ]  # fmt: skip


def test_a_cut_is_followed_by_what_its_images_allow(detector: Checkpoint, plain: Checkpoint) -> None:
    quoted = shlex.quote(str(FILE))
    assert after_cut(FILE, detector, data="my data.yaml") == (
        f"secateur finetune --weights {quoted} --data 'my data.yaml' --epochs 30"
    )
    assert after_cut(FILE, detector, images="shots/*.jpg") == f"secateur heal --weights {quoted} --images 'shots/*.jpg'"
    entry = HistoryEntry(verb="heal", settings={}, metrics={}, cost={})
    healed = Checkpoint.of(detector.build(), like=detector, history=(*detector.history, entry))
    assert after_cut(FILE, healed, images="shots") == f"secateur predict --weights {quoted} --source shots"
    export = f"secateur export --weights {quoted}"
    assert after_cut(FILE, detector, data="d.yaml", zeroed=True) == export
    assert after_cut(FILE, plain, images="shots") == export


def test_trainings_runs_and_sweeps(detector: Checkpoint, plain: Checkpoint, tiny_data: Path) -> None:
    best, data = Path("best.safetensors"), load_data_config(tiny_data)
    images = tiny_data.parent / "images" / "val"
    assert looked_at(data) == str(images) and looked_at(None, "shots") == "shots" and looked_at() == ""
    assert after_training("train", best, detector, data) == f"secateur predict --weights {best} --source {images}"
    assert after_training("sparsify", best, detector, data).endswith(f"--data {tiny_data} --flops 0.5")
    assert after_training("finetune", best, detector, data) == f"secateur export --weights {best}"
    assert after_run(Path("r"), detector, data) == "secateur export --weights r/final.safetensors"
    assert after_run(Path("r"), detector, data, "final.onnx").startswith("secateur predict --weights r/final.onnx")
    assert after_sweep("w.pt", "d.yaml", 0.3) == "secateur prune --weights w.pt --data d.yaml --percent 0.3"
    assert after_sweep("w.pt", "d.yaml", None) == "secateur prune --weights w.pt --data d.yaml --flops 0.5"


def test_what_gives_no_boxes_is_exported_or_is_at_its_end(plain: Checkpoint) -> None:
    assert prediction(Path("a.safetensors"), plain, "shots") == "secateur export --weights a.safetensors"
    assert prediction(Path("a.onnx"), plain, "shots") == ""
