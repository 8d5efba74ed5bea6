"""Detectors of the package go through the commands: their loss, boxes, own labels, pruning, healing, fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ultralytics.nn")

from ultralytics_subjects import DETECTORS, NAMES, SIZE, checkpoint_named, fresh, save

from secateur.cli import main
from secateur.evaluation.cost import count
from secateur.families.family import FAMILIES, predictor_of
from secateur.families.loading import load_checkpoint
from secateur.training.settings import TrainSettings

FAMILY = FAMILIES["ultralytics"]
TARGETS = torch.tensor([[0, 1, 0.5, 0.5, 0.3, 0.4], [1, 2, 0.3, 0.3, 0.2, 0.2], [1, 0, 0.6, 0.6, 0.5, 0.5]])


def images(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_the_loss_is_that_of_the_package(name: str, training: bool) -> None:
    network = checkpoint_named(name).build().train(training)
    batch = {"batch_idx": TARGETS[:, 0], "cls": TARGETS[:, 1], "bboxes": TARGETS[:, 2:], "img": images()}
    total, parts = FAMILY.loss(network, TrainSettings())(network(images()), TARGETS, images())
    expected, theirs = network.model.loss(batch)
    torch.testing.assert_close(total, expected.sum())
    assert {f"{key}_loss" for key in parts} == set(theirs)
    gradient = torch.autograd.grad(total, network.model.model[0].conv.weight)[0]
    assert gradient.abs().max() > 0
    network.train()


def test_the_gains_are_those_of_the_training(tmp_path: Path) -> None:
    file = save(fresh("yolov8n"), tmp_path / "x.pt", train_args={"box": 0.0, "cls": 0.0, "dfl": 3.0})
    network = load_checkpoint(file).build()
    _, parts = FAMILY.loss(network, TrainSettings())(network(images()), TARGETS, images())
    assert parts["box"] == 0 and parts["cls"] == 0 and parts["dfl"] > 0


@pytest.mark.parametrize("name", ["yolov8n", "yolov9t", "yolo11n"])
def test_candidates_are_what_the_package_decodes(name: str) -> None:
    network = checkpoint_named(name).build()
    with torch.no_grad():
        decoded = network.model(images())[0]
        found = network.candidates(network(images()), -1.0)
    centres, sides = decoded[:, :2], decoded[:, 2:4]
    corners = torch.cat((centres - sides / 2, centres + sides / 2), 1)
    for number, candidates in enumerate(found):
        torch.testing.assert_close(candidates.boxes, corners[number].T, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(candidates.scores, decoded[number, 4:].T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["yolov10n", "yolo26n"])
def test_final_boxes_are_those_of_the_package(name: str) -> None:
    network = checkpoint_named(name).build()
    network.model.end2end = True
    with torch.no_grad():
        theirs = network.model(images())[0]
        ours = network.boxes(network(images()))
    assert theirs.shape[2] == 6
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine.shape == expected.shape
        torch.testing.assert_close(mine[:, 4], expected[:, 4])
        good = expected[:, 2] > expected[:, 0]
        good &= expected[:, 3] > expected[:, 1]
        torch.testing.assert_close(mine[good][:20], expected[good][:20], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_predictor_answers_with_boxes(name: str) -> None:
    boxes = predictor_of(checkpoint_named(name)).predict(images())
    assert len(boxes) == 2 and all(found.shape[1] == 6 and len(found) for found in boxes)
    assert all(0 <= float(found[:, 5].max()) < 3 for found in boxes)


def run(*arguments: str) -> None:
    main([*arguments, "--device", "cpu"])


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "images"])
@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_a_file_is_pruned_in_rounds_and_healed(
    name: str, labels: bool, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    save(fresh(name), tmp_path / "best.pt")
    source = ["--data", str(tiny_data)] if labels else ["--images", str(tiny_data.parent / "images" / "train")]
    run("prune", "--weights", "best.pt", *source, "--flops", "0.7", "--rounds", "2", "--statistics-images", "8",
        "--recalibrate", "8", "--name", "p")  # fmt: skip
    pruned = load_checkpoint("runs/prune/p/pruned.safetensors")
    said = capsys.readouterr().out
    assert ("agreement, mAP50 " in said) != labels
    assert f"Next:  secateur {'finetune' if labels else 'heal'} --weights runs/prune/p/pruned.safetensors" in said
    assert "Saved to runs/prune/p/pruned.pt: YOLO('pruned.pt') loads" in said and "a plain train() rebuilds" in said
    handed = load_checkpoint("runs/prune/p/pruned.pt")
    assert {key: value.shape for key, value in handed.tensors.items()} == {
        key: value.shape for key, value in pruned.tensors.items()
    }
    assert torch.load("runs/prune/p/pruned.pt", weights_only=False)["note"].startswith("Pruned with Secateur from ")
    whole: Any = checkpoint_named(name).build()
    assert count(pruned.build(), SIZE).flops <= 0.7 * count(whole, SIZE).flops
    assert pruned.names == NAMES and pruned.history[-1].settings["criterion"] == "fisher"
    run("heal", "--weights", "runs/prune/p/pruned.safetensors", *source[:1], source[1], "--heal-steps", "2",
        "--heal-batch", "4", "--teacher", "best.pt")  # fmt: skip
    healed = load_checkpoint("runs/heal/exp/healed.safetensors")
    assert {key: value.shape for key, value in healed.tensors.items()} == {
        key: value.shape for key, value in pruned.tensors.items()
    }
    run("val", "--weights", "runs/prune/p/pruned.safetensors", "--data", str(tiny_data), "--batch", "8")


def test_it_is_fine_tuned_on_other_classes(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(fresh("yolov8n", nc=5), tmp_path / "best.pt")
    run("finetune", "--weights", "best.pt", "--data", str(tiny_data), "--epochs", "1", "--batch", "8")
    tuned = load_checkpoint("runs/finetune/exp/weights/last.safetensors")
    assert tuned.nc == 3 and tuned.build().head.nc == 3
    assert tuned.tensors["model.model.22.cv3.0.2.weight"].shape[0] == 3
