"""Single trainings from the command line: killed at a random step and resumed, they end as if nothing had happened."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
import yaml

from killing import killed_after
from secateur.cli import main
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.architecture import topology_of
from secateur.networks.checkpoint import Checkpoint

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


def begun(weights: Path, data: Path, *words: str) -> None:
    start = ["train", "--weights", str(weights), "--data", str(data), "--img", "64", "--workers", "0", "--amp", "off"]
    main([*start, "--epochs", "2", "--batch", "8", "--nominal-batch", "8", *words])


def test_the_same_command_continues_a_killed_training(
    tiny_weights: Path, tiny_data: Path, own_folder: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "secateur")
    begun(tiny_weights, tiny_data, "--project", "undisturbed")
    with killed_after(1):  # before the first state: the folder is used again
        begun(tiny_weights, tiny_data, "--project", "killed")
    with killed_after(4):
        begun(tiny_weights, tiny_data, "--project", "killed")
    begun(tiny_weights, tiny_data, "--project", "killed", "--workers", "1")
    assert caplog.text.count("Resuming in killed/exp.") == 2
    assert [folder.name for folder in Path("killed").iterdir()] == ["exp"]
    ours, theirs = (load_checkpoint(f"{place}/exp/weights/last.safetensors") for place in ("killed", "undisturbed"))
    assert ours.history[-1].settings | {"workers": 0} == theirs.history[-1].settings
    assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in theirs.tensors.items())
    begun(tiny_weights, tiny_data, "--project", "killed")  # the one before is finished
    assert sorted(folder.name for folder in Path("killed").iterdir()) == ["exp", "exp2"]


def test_another_command_starts_a_training_of_its_own_and_says_what_differs(
    tiny_weights: Path, tiny_data: Path, own_folder: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "secateur")
    with killed_after(4):
        begun(tiny_weights, tiny_data)
    begun(tiny_weights, tiny_data, "--seed", "1", "--optimizer", "Adam")
    assert "Starting a new run: runs/train/exp is unfinished, but --optimizer, --seed changed since." in caplog.text
    main(["train", "--resume", "runs/train/exp"])
    epochs = [json.loads(Path(f"runs/train/{name}/summary.json").read_text())["epochs"] for name in ("exp", "exp2")]
    assert epochs == [2, 2]
    assert json.loads(Path("runs/train/exp/progress.json").read_text())["finished"]


def test_a_folder_of_an_earlier_version_that_has_no_key_resumes(
    tiny_weights: Path, tiny_data: Path, own_folder: None
) -> None:
    with killed_after(4):
        begun(tiny_weights, tiny_data)
    Path("runs/train/exp/progress.json").unlink()
    main(["train", "--resume", "runs/train/exp"])
    assert json.loads(Path("runs/train/exp/summary.json").read_text())["epochs"] == 2


def test_weights_are_read_once(
    tiny_weights: Path, tiny_data: Path, own_folder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: str | Path, *more: str) -> Checkpoint:
        read.append(str(path))
        return load_checkpoint(path, *more)

    for module in ("runs.beginning", "families.starting"):
        monkeypatch.setattr(f"secateur.{module}.load_checkpoint", counted)
    begun(tiny_weights, tiny_data, "--epochs", "1")
    assert read == [str(tiny_weights)]


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
