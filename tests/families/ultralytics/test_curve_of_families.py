"""`secateur pareto` of a network of the package next to one of YOLOv5, and its fine-tuning by the package's trainer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ultralytics.nn")

from ultralytics_subjects import SIZE, fresh, save

from secateur.cli import main
from secateur.families.loading import load_checkpoint


def _by_cost(checkpoints: Mapping[str, Any], *_: Any, **__: Any) -> dict[str, float]:
    return {name: sum(t.numel() for t in one.tensors.values()) / 1000 for name, one in checkpoints.items()}


def test_two_families_in_one_curve(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secateur.deploy.speed.latency.latencies", _by_cost)
    theirs = save(fresh("yolov8n"), tmp_path / "yolov8n.pt")
    words = ["pareto", "--weights", str(tiny_weights), str(theirs), "--data", str(tiny_data), "--device", "cpu"]
    words += ["--budgets", "0.8", "0.6", "--img", str(SIZE), "--batch", "8", "--workers", "0"]
    main([*words, "--criterion", "l2", "--round-to", "1", "--correction-images", "4", "--finetune", "1"])
    record = json.loads((tmp_path / "runs/pareto/exp/pareto.json").read_text())
    labels = [point["label"] for point in record["points"]]
    cuts = [f"-{share}{stage}" for share in (80, 60) for stage in ("", "-finetuned")]
    assert labels == [f"{name}{ending}" for name in ("tiny", "yolov8n") for ending in ("", *cuts)]
    points = tmp_path / "runs/pareto/exp/points"
    # A checkpoint that the package itself reads is written too.
    ours, own = (load_checkpoint(points / f"yolov8n-60-finetuned{suffix}") for suffix in (".safetensors", ".pt"))
    assert [entry.verb for entry in ours.history] == ["prune", "finetune"]
    assert {name: tensor.shape for name, tensor in own.tensors.items()} == {
        name: tensor.shape for name, tensor in ours.tensors.items()
    }
    by_label = {point["label"]: point for point in record["points"]}
    assert by_label["yolov8n-60"]["gflops"] <= 0.6 * by_label["yolov8n"]["gflops"]
    assert any("yolov8n" in answer and "tiny" in answer for answer in record["answers"])
