"""What a pruning ends with: accuracy or agreement, and sizes, against the dense network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from secateur.data.config import unlabelled_images
from secateur.families.context import Context
from secateur.networks.checkpoint import Checkpoint
from secateur.runs.ending.change import Agreement, accuracy_words, change_table


def row(parameters: int, metrics: dict[str, float] | None) -> dict[str, Any]:
    model = {"parameters": parameters, "gflops": parameters / 1e6, "file_mb": 2 * parameters / 1e6}
    return {"stage": "a", "model": model, "metrics": metrics, "judged_by": ["mAP50"] if metrics else []}


def test_with_labels_it_is_accuracy() -> None:
    table = change_table([row(2_000_000, {"mAP50": 0.9}), row(1_000_000, {"mAP50": 0.8})], None, "pruned")
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["dense", "pruned", "change"] and lines[1] == ["mAP50", "0.900", "0.800", "-0.100"]
    assert lines[2] == ["parameters", "(M)", "2.000", "1.000", "-50%"]
    assert [line[0] for line in lines[3:]] == ["GFLOPs", "MB"]


def test_without_labels_it_is_agreement_and_says_so() -> None:
    found = Agreement({"mAP50": 0.7, "mAP50-95": 0.5, "P": 1.0}, ("mAP50", "mAP50-95"), 48)
    table = change_table([row(2_000_000, None), row(1_000_000, None)], found, "healed")
    assert "agreement, mAP50-95" in table and "0.700" in table and "P " not in table.split("\n", 1)[1].split("par")[0]
    assert "on 48 of the given images" in accuracy_words(found, Path("p.safetensors"))


def test_without_images_it_says_how_to_measure() -> None:
    said = accuracy_words(None, Path("my runs/p.safetensors"))
    assert said.startswith("Accuracy was not measured, because no images were given")
    assert said.endswith("secateur val --weights 'my runs/p.safetensors' --data data.yaml")


def test_a_network_that_gives_no_answers_of_a_task_has_a_reason(tiny_data: Path) -> None:
    plain = Checkpoint.of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval())
    images = unlabelled_images(tiny_data.parent / "images" / "train", {})
    found = Agreement.of(plain, plain, Context(64, unlabelled=images))
    assert not found.values and "family 'module'" in found.reason
    assert found.reason in accuracy_words(found, Path("p"))
    assert Agreement(**found.to_dict()).reason == found.reason
