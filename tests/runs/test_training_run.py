"""Single trainings from the command line: killed at a random step and resumed, they end as if nothing had happened."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import yaml

from killing import killed_after
from secateur.cli import main
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.architecture import topology_of

METHODS = {
    "weights": ("train", "--target-sparsity 0.5 --pruning-pattern 4x1 --cooldown-epochs 1"),
    "two of four": ("train", "--target-sparsity 0.5 --pruning-pattern 2:4 --pruning-schedule cubic --progressive"),
    "group lasso": ("train", "--target-sparsity 0.4 --pruning-criterion magnitude --group-lasso 0.01"),
    "penalties": ("sparsify", "--schedule local --penalty both --soft-mask --mask-period 1 --beta 10"),
    "proximal": ("sparsify", "--schedule cosine --mode proximal --ramp 1"),
    "distillation": ("finetune", "--distill bce+features --distill-warmup 2"),
    "softer distillation": ("finetune", "--distill kl"),
}


@pytest.mark.parametrize("name", METHODS)
def test_resumed_in_the_middle(
    name: str, tiny_weights: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command, words = METHODS[name]
    start = [command, "--weights", str(tiny_weights), "--data", str(tiny_data), "--img", "64", "--workers", "0"]
    options = [*start, "--epochs", "3", "--batch", "8", "--amp", "off", "--save-every-steps", "2"]
    options += ["--teacher", str(tiny_weights)] if "--distill" in words else []
    options += ["--nominal-batch", "8", *words.split()]
    main([*options, "--project", "undisturbed"])
    # Three epochs of three batches each; at least one step is done, and one is left.
    with killed_after(random.Random(name).randrange(1, 9)):
        main([*options, "--project", "killed"])
    main([command, "--resume", "killed/exp"])
    for file in ("best", "last"):
        ours, theirs = (
            load_checkpoint(Path(place) / "exp" / "weights" / f"{file}.safetensors")
            for place in ("killed", "undisturbed")
        )
        assert ours.history == theirs.history
        for ours_of, theirs_of in ((ours.tensors, theirs.tensors), (ours.masks, theirs.masks)):
            assert ours_of.keys() == theirs_of.keys()
            assert all(torch.equal(ours_of[key], tensor) for key, tensor in theirs_of.items())


def test_anchors_that_are_to_be_computed_are_so_without_the_check_and_after_a_kill(
    tiny_cfg: Path, tiny_data: Path
) -> None:
    Path("open.yaml").write_text(yaml.safe_dump({**yaml.safe_load(tiny_cfg.read_text()), "anchors": 2}))
    words = ["train", "--cfg", "open.yaml", "--data", str(tiny_data), "--img", "64", "--workers", "0", "--epochs", "2"]
    main([*words, "--noautoanchor", "--project", "undisturbed"])
    with killed_after(2):
        main([*words, "--noautoanchor", "--project", "killed"])
    assert topology_of(load_checkpoint("killed/exp/start.safetensors")).anchors_pending
    main(["train", "--resume", "killed/exp"])
    ours, theirs = (load_checkpoint(f"{place}/exp/weights/last.safetensors") for place in ("killed", "undisturbed"))
    assert topology_of(ours) == topology_of(theirs) and not topology_of(ours).anchors_pending
    neutral = load_checkpoint("killed/exp/start.safetensors").tensors["model.11.anchors"]
    assert torch.equal(ours.tensors["model.11.anchors"], theirs.tensors["model.11.anchors"])
    assert not torch.equal(ours.tensors["model.11.anchors"], neutral)
