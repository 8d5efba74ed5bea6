"""Whole commands on a fused checkpoint, whose batch norms are folded into its convolutions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from commands_run import pruning, sentence
from secateur.cli import main
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def fused(tiny_weights: Path, tmp_path: Path) -> Path:
    """The detector of the other tests, fused."""
    save_checkpoint(Checkpoint.of(load_checkpoint(tiny_weights).build().fused()), tmp_path / "fused.safetensors")
    return tmp_path / "fused.safetensors"


def is_fused(weights: str) -> bool:
    return not any(name.endswith("running_var") for name in load_checkpoint(weights).tensors)


def test_it_is_validated_as_the_unfused_one(
    fused: Path, tiny_weights: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = []
    for weights in (fused, tiny_weights):
        main(["val", "--weights", str(weights), "--data", str(tiny_data), "--img", "64", "--workers", "0", "--json"])
        figures.append(json.loads(capsys.readouterr().out)["metrics"])
    assert figures[0].keys() == figures[1].keys()
    for key, value in figures[0].items():
        if isinstance(value, float) and key.startswith(("P", "R", "mAP")):
            assert value == pytest.approx(figures[1][key], abs=1e-3), key


@pytest.mark.parametrize("criterion", ["l1", "l2", "fisher", "gamma"])
def test_it_is_pruned(criterion: str, fused: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*pruning(fused, tiny_data, "--params", "0.7"), "--criterion", criterion, "--rounds", "2", "--json"])
    summary = json.loads(capsys.readouterr().out)
    small, whole = (sum(t.numel() for t in load_checkpoint(w).tensors.values()) for w in (summary["weights"], fused))
    assert is_fused(summary["weights"]) and 0.6 < small / whole <= 0.71


@pytest.mark.parametrize("words", ["finetune", "train", "sparsify --penalty conv"])
def test_it_is_trained(words: str, fused: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = [*words.split(), "--weights", str(fused), "--data", str(tiny_data), "--img", "64"]
    main([*start, "--epochs", "1", "--workers", "0", "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert is_fused(summary["weights"])
    old, new = load_checkpoint(fused).tensors, load_checkpoint(summary["weights"]).tensors
    assert old.keys() == new.keys() and not torch.equal(old["model.0.conv.weight"], new["model.0.conv.weight"])


@pytest.mark.parametrize("rate", ["0", "0.001"])
def test_sparse_training_of_scales_says_that_there_are_none(
    rate: str, fused: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sparsify", "--weights", str(fused), "--data", str(tiny_data), "--img", "64", "--epochs", "1"]
    said = sentence(capsys, *words, "--workers", "0", "--rate", rate)
    assert "--penalty gamma acts on the scales of batch norms, but the checkpoint is fused" in said
    assert "--rate" not in said


def test_layers_are_scored_by_what_works(fused: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = pruning(fused, tiny_data, "--layers", "1")
    said = sentence(capsys, *words, "--layer-score", "gamma")
    assert "The checkpoint is fused" in said and "or --layer-score contribution" in said
    main([*words, "--layer-score", "contribution", "--json"])
    assert is_fused(json.loads(capsys.readouterr().out)["weights"])
