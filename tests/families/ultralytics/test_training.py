"""Training is the package's own, in a run folder of Secateur: widths and zeros stay, a killed training resumes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("ultralytics.nn")

from ultralytics_subjects import NAMES, SIZE, fresh, save, subject_named

from secateur.cli import main
from secateur.families.family import FAMILIES
from secateur.families.loading import load_checkpoint
from secateur.families.training import OwnTraining
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.surgery import cut
from secateur.training.hyp import Hyp
from secateur.training.settings import TrainSettings
from secateur.training.state import TrainingIdentity, read_state, write_state

FAMILY = FAMILIES["ultralytics"]


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
    # Of few steps, all in the warm-up, weights in fp16 may show nothing; statistics do.
    mean = "model.model.0.bn.running_mean"
    assert not torch.allclose(best.tensors[mean].float(), start.tensors[mean].float(), rtol=0.01)
    theirs = load_checkpoint(folder / "weights/best.pt")
    assert all(torch.equal(theirs.tensors[key].float(), best.tensors[key].float()) for key in best.tensors)
    assert read_state(folder)["finished"] and (folder / "results.csv").is_file() and (folder / "summary.json").is_file()
    # Only our own cache of labels may be new.
    assert not any(file.suffix == ".cache" for file in tiny_data.parent.rglob("*") if file.name not in files)


class Killed(BaseException):
    """What ends a training from outside."""


@pytest.mark.parametrize("moment", ["in an epoch", "before a file is in its place", "before the end is noted"])
def test_a_killed_training_resumes_with_its_zeros(
    moment: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.engine.trainer import BaseTrainer

    monkeypatch.chdir(tmp_path)
    pruned("yolov8n", tmp_path)
    calls: list[int] = []

    def second(real: Any) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            if moment != "before a file is in its place" or str(given[1]).endswith("last.pt"):
                calls.append(1)
            if len(calls) == 2:
                raise Killed
            return real(*given, **more)

        return call

    with monkeypatch.context() as patch:
        if moment == "in an epoch":
            patch.setattr(BaseTrainer, "validate", second(BaseTrainer.validate))
        elif moment == "before a file is in its place":
            patch.setattr(Path, "replace", second(Path.replace))
        else:
            calls.append(1)
            patch.setattr(BaseTrainer, "final_eval", second(BaseTrainer.final_eval))
        with pytest.raises(Killed):
            run("finetune", "--weights", "pruned.safetensors", "--data", str(tiny_data), "--epochs", "3", "--batch",
                "8", "--target-sparsity", "0.5", "--cooldown-epochs", "1")  # fmt: skip
    folder = tmp_path / "runs/finetune/exp"
    assert not read_state(folder)["finished"]
    main(["finetune", "--resume", str(folder)])
    state = read_state(folder)
    assert state["finished"] and state["epoch"] == 2
    rows = (folder / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3"] or moment != "in an epoch"
    last = load_checkpoint(folder / "weights/last.safetensors")
    held = [last.tensors[name] for name in last.masks]
    zeros = sum(int((tensor == 0).sum()) for tensor in held) / sum(tensor.numel() for tensor in held)
    assert zeros == pytest.approx(0.5, abs=0.01)
    assert all(not bool(last.tensors[name][~mask].any()) for name, mask in last.masks.items())


def labelled(task: str, folder: Path) -> Path:
    """Four images with one object each, in the labels of a task."""
    rows = {
        "segment": "0.2 0.2 0.7 0.2 0.7 0.6 0.2 0.6",
        "obb": "0.2 0.2 0.7 0.2 0.7 0.6 0.2 0.6",
        "pose": "0.5 0.5 0.4 0.4 " + " ".join(["0.5 0.5 2"] * 17),
    }
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(4):
        cv2.imwrite(str(folder / f"images/{number}.png"), generator.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
        (folder / f"labels/{number}.txt").write_text(f"{number % 3} {rows[task]}")
    said = {"path": str(folder), "train": "images", "val": "images", "names": NAMES}
    said |= {"kpt_shape": [17, 3], "flip_idx": list(range(17))} if task == "pose" else {}
    (folder / "data.yaml").write_text(yaml.safe_dump(said))
    return folder / "data.yaml"


@pytest.mark.parametrize(
    ("name", "task"), [("yolov8n-seg", "segment"), ("yolo11n-pose", "pose"), ("yolov8n-obb", "obb")]
)
def test_other_tasks_are_trained(name: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start, data = pruned(name, tmp_path), labelled(task, tmp_path / "data")
    run("finetune", "--weights", "pruned.safetensors", "--data", str(data), "--epochs", "1", "--batch", "4")
    last = load_checkpoint(tmp_path / "runs/finetune/exp/weights/last.safetensors")
    assert shapes(last) == shapes(start) and last.architecture.task == task


def test_a_classifier_is_trained(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(12):
        file = tmp_path / "data" / ("train" if number < 6 else "val") / NAMES[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), generator.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
    start = pruned("yolov8n-cls", tmp_path)
    settings = TrainSettings(epochs=1, batch_size=3, image_size=SIZE, device="cpu")
    data: Any = SimpleNamespace(file=tmp_path / "data")
    identity = TrainingIdentity(NAMES, {}, NAMES)
    result = FAMILY.fit(OwnTraining(start, data, {}, settings, tmp_path / "run", (), None, identity))
    last = load_checkpoint(result.last)
    assert shapes(last) == shapes(start) and result.epochs == 1
    assert "metrics/accuracy_top1" in result.metrics


def test_the_dense_network_teaches(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = pruned("yolov8n", tmp_path)
    save(fresh("yolov8n"), tmp_path / "dense.pt")
    begin = ["--weights", "pruned.safetensors", "--data", str(tiny_data), "--epochs", "1", "--batch", "8"]
    run("finetune", *begin, "--distill", "features", "--teacher", "dense.pt")
    folder = tmp_path / "runs/finetune/exp"
    assert "dis" in (folder / "results.csv").read_text().splitlines()[0]
    assert shapes(load_checkpoint(folder / "weights/best.safetensors")) == shapes(start)


def test_it_is_trained_on_other_classes(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(fresh("yolov8n", nc=5), tmp_path / "best.pt")
    run("finetune", "--weights", "best.pt", "--data", str(tiny_data), "--epochs", "1", "--batch", "8", "--single-cls")
    tuned = load_checkpoint("runs/finetune/exp/weights/last.safetensors")
    assert tuned.nc == 1 and tuned.names == {0: "object"} and tuned.single_cls
    assert tuned.tensors["model.model.22.cv3.0.2.weight"].shape[0] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--label-smoothing", "0.1"], "smooths no labels: leave --label-smoothing out"),
        (["--val-every", "3"], "Set --val-every 1 or 0"),
        (["--distill", "outputs", "--teacher", "best.pt"], "--distill features"),
    ],
)
def test_what_the_trainer_does_not_have_is_refused(
    options: list[str], words: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    save(fresh("yolov8n"), tmp_path / "best.pt")
    with pytest.raises(SystemExit):
        run("finetune", "--weights", "best.pt", "--data", str(tiny_data), "--epochs", "1", *options)
    assert words in capsys.readouterr().err and not (tmp_path / "runs/finetune/exp").exists()


class Runs:
    """What a pickle can carry."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


def test_nothing_in_a_run_folder_runs(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pruned("yolov8n", tmp_path)
    run("finetune", "--weights", "pruned.safetensors", "--data", str(tiny_data), "--epochs", "1", "--batch", "8")
    folder, mark = tmp_path / "runs/finetune/exp", tmp_path / "ran"
    write_state(folder, {**read_state(folder), "finished": False})
    torch.save({"epoch": 0, "model": Runs(mark)}, folder / "weights/last.pt")
    with pytest.raises(SystemExit):
        main(["finetune", "--resume", str(folder)])
    assert not mark.exists()


def test_options_become_those_of_the_package() -> None:
    from secateur.families.ultralytics.driving.options import _rates

    assert _rates(TrainSettings(), hooks=False) == {"optimizer": "auto"}
    assert _rates(TrainSettings(), hooks=True)["optimizer"] == "SGD"
    given = _rates(TrainSettings(hyp=Hyp(lr0=0.002, mixup=0.1)), hooks=False)
    assert (given["optimizer"], given["lr0"], given["mixup"], given["mosaic"]) == ("SGD", 0.002, 0.1, 1.0)
    assert _rates(TrainSettings(optimizer="AdamW"), hooks=False)["optimizer"] == "AdamW"


def test_a_recipe_cuts_and_trains(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(fresh("yolov8n"), tmp_path / "best.pt")
    cutting = "{flops: 0.7, criterion: l1, rounds: 1, statistics_images: 8, recalibrate: 8, cliff: false}"
    (tmp_path / "own.yaml").write_text(
        f"summary: cut and train\nstages:\n  - prune: {cutting}\n  - finetune: {{epochs: 1}}\n"
    )
    run("run", "--recipe", "own.yaml", "--weights", "best.pt", "--data", str(tiny_data), "--batch-size", "8")
    table = json.loads((tmp_path / "runs/run/exp/summary.json").read_text())["table"]
    assert [row["stage"] for row in table] == ["dense", "cut, no repair", "cut + repair", "fine-tuned"]
    assert all(set(row["metrics"]) == {"P", "R", "mAP50", "mAP50-95"} for row in table)
    final = load_checkpoint(tmp_path / "runs/run/exp/final.pt")
    assert shapes(final) == shapes(load_checkpoint(tmp_path / "runs/run/exp/finetuned.safetensors"))
