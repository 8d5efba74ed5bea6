"""The whole run: its table, its files, and that a kill at any point changes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from killing import Killed, killed_after
from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.runs.options import RunOptions
from secateur.runs.progress import Progress
from secateur.runs.run import run_recipe

OVERRIDES = {"epochs": 2, "dense_epochs": 1, "flops": "0.6", "amp": "off"}


def options(weights: Path, data: Path, recipe: str = "slimming", **overrides: Any) -> RunOptions:
    """Options of a quick run; an override of None is not given."""
    given = {name: value for name, value in (OVERRIDES | overrides).items() if value is not None}
    return RunOptions(
        data=str(data), weights=str(weights), recipe=recipe, image_size=64, batch_size=8, workers=0, overrides=given
    )


@pytest.fixture(scope="module")
def undisturbed(
    tiny_weights: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    root = tmp_path_factory.mktemp("undisturbed")
    return run_recipe(options(tiny_weights, tiny_data), root), root


def table_of(summary: dict[str, Any]) -> list[Any]:
    """The table without times."""
    return [(row["stage"], row["metrics"], row["test"], row["model"]) for row in summary["table"]]


def test_the_table_has_a_row_a_step(undisturbed: tuple[dict[str, Any], Path]) -> None:
    summary, root = undisturbed
    titles = [row["stage"] for row in summary["table"]]
    assert titles == ["dense", "sparse", "cut, no repair", "cut + repair", "fine-tuned"]
    dense, final = summary["table"][0]["model"], summary["table"][-1]["model"]
    assert final["gflops"] <= 0.61 * dense["gflops"]
    # Sizes are compared at one precision, so a smaller network has a smaller file.
    assert final["file_mb"] < dense["file_mb"]
    assert all(row["latency_ms"] > 0 for row in summary["table"])
    assert summary["export"]["max_error"] < 1e-3
    folder = root / "exp"
    assert json.loads((folder / "summary.json").read_text())["metrics"] == summary["metrics"]
    assert "| fine-tuned" in (folder / "summary.md").read_text()
    assert (folder / "final.onnx").exists()
    assert (folder / "cliff.json").exists()
    log = (folder / "run.log").read_text()
    assert "[1/6] train (1 epoch)" in log
    assert "cut + repair: mAP50" in log
    assert not (folder / ".lock").exists()


def test_the_final_checkpoint_tells_its_history(undisturbed: tuple[dict[str, Any], Path]) -> None:
    _, root = undisturbed
    checkpoint = load_checkpoint(root / "exp" / "final.safetensors")
    assert [entry.verb for entry in checkpoint.history] == ["train", "sparsify", "prune", "finetune"]
    assert checkpoint.plan is not None
    assert checkpoint.image_size == 64
    prune = checkpoint.history[2]
    assert prune.settings["criterion"] == "taylor"
    assert prune.cost["flops"] <= 0.61 * prune.cost["dense_flops"]


def test_it_opens_with_what_it_will_do(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def stop(self: Progress, name: str, work: Any, **more: Any) -> Any:
        raise Killed

    monkeypatch.setattr(Progress, "step", stop)
    with pytest.raises(Killed):
        run_recipe(options(tiny_weights, tiny_data), tmp_path)
    with pytest.raises(Killed):
        run_recipe(options(tiny_weights, tiny_data, flops=None), tmp_path)
    printed = capsys.readouterr().out
    assert "recipe   slimming: " in printed
    assert "device   cpu (" in printed
    assert "budget   flops 0.6 (from the command line)" in printed
    assert "budget   percent 0.4 (from the recipe; " in printed
    assert "steps    train (1 epoch), sparsify (2 epochs), prune (" in printed
    assert "24 train, 8 val, 8 test images" in printed


# One of each kind: a training, an evaluation, a cut, the last of its evaluations, files for elsewhere.
PARTS = ("train", "row sparse", "prune", "row repair", "finetune", "export")


def test_killed_after_each_part_it_ends_with_the_same_table(
    undisturbed: tuple[dict[str, Any], Path],
    tiny_weights: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, done = Progress.step, []

    def killing_after(part: str) -> Any:
        def step(self: Progress, name: str, work: Any, **more: Any) -> Any:
            if name not in self.parts:
                done.append(name)
            result = original(self, name, work, **more)
            if name == part:
                raise Killed
            return result

        return step

    # One run is killed again and again: each time it has to go on from where the kill before left it.
    for part in PARTS:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Progress, "step", killing_after(part))
            run_recipe(options(tiny_weights, tiny_data), tmp_path)
    assert table_of(run_recipe(options(tiny_weights, tiny_data), tmp_path)) == table_of(undisturbed[0])
    assert len(done) == len(set(done))
    assert [folder.name for folder in tmp_path.iterdir()] == ["exp"]


@pytest.mark.parametrize("steps_before_kill", [1, 5])
def test_killed_inside_a_training_it_ends_with_the_same_weights(
    steps_before_kill: int,
    undisturbed: tuple[dict[str, Any], Path],
    tiny_weights: Path,
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    with killed_after(steps_before_kill):
        run_recipe(options(tiny_weights, tiny_data), tmp_path)
    again = run_recipe(options(tiny_weights, tiny_data), tmp_path)
    assert table_of(again) == table_of(undisturbed[0])
    ours, theirs = (load_checkpoint(root / "exp" / "final.safetensors") for root in (tmp_path, undisturbed[1]))
    assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in theirs.tensors.items())


def test_two_equal_commands_at_once(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from secateur.cli import main

    words = ["run", "--weights", str(tiny_weights), "--data", str(tiny_data)]
    recipe = tmp_path / "short.yaml"
    recipe.write_text("stages: [{prune: {rounds: 4, cliff: false}}]")
    words += ["--img", "64", "--batch", "8", "--workers", "0", "--flops", "0.6", "--recipe", str(recipe)]
    words += ["--project", str(tmp_path / "runs")]
    command = [sys.executable, "-m", "secateur", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "runs" / "exp" / "progress.json").exists():
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.05)
    with pytest.raises(SystemExit) as second:  # this process; the first is at work until long after it
        main(words)
    assert first.poll() is None, "the first had ended before the second began"
    first.communicate()
    assert first.returncode == 0
    assert second.value.code == 2
    told = capsys.readouterr().err
    assert told.count("error: ") == 1
    assert "Another process is using" in told
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["exp"]
    assert len(json.loads((tmp_path / "runs" / "exp" / "summary.json").read_text())["table"]) == 3


def test_a_run_after_the_labels_changed_starts_afresh(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    copy = tmp_path / "set"
    shutil.copytree(tiny_data.parent, copy, ignore=shutil.ignore_patterns("*.npz"))

    def stop(self: Progress, name: str, work: Any, **more: Any) -> Any:
        raise Killed

    monkeypatch.setattr(Progress, "step", stop)
    for changed in (False, False, True):
        if changed:
            label = sorted((copy / "labels" / "train").glob("*.txt"))[0]
            label.write_text("0 0.5 0.5 0.25 0.25\n")
        with pytest.raises(Killed):
            run_recipe(options(tiny_weights, copy / tiny_data.name), tmp_path / "runs")
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == ["exp", "exp2"]


def test_a_wrong_option_is_found_before_anything_is_written(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path
) -> None:
    wrong: list[dict[str, Any]] = [
        {"flops": "much"}, {"criterion": "beauty"}, {"recipe": "nothing"}, {"epochs": -1}, {"distill": "magic"},
        {"target_sparsity": 0.8}, {"recipe": "intel", "params": "0.5", "flops": None}, {"percent": "0"},
        {"distill": "bce", "teacher": "nowhere.pt"}, {"exclude": ("nothing.*",)}, {"optimizer": "AdamW"},
        {"flops": "0.001"}, {"params": "1"}, {"flops": "100%"},
    ]  # fmt: skip
    wrong += [{"recipe": "intel", "flops": None, "pruning_pattern": text} for text in ("5:4", "0x4", "nonsense")]
    wrong += [{"recipe": "intel", "flops": None, "pruning_pattern": "2:4"}]  # its target is 0.8
    wrong += [{"recipe": "intel", "flops": None, "cooldown_epochs": 2}]
    for changes in wrong:
        with pytest.raises(UserError):
            run_recipe(options(tiny_weights, tiny_data, **changes), tmp_path / "runs")
    for text in ("export: {format: stone}", "export: {nosuch: 1}"):
        file = tmp_path / "mine.yaml"
        file.write_text(f"stages: [{{{text}}}]")
        with pytest.raises(UserError):
            run_recipe(RunOptions(data=str(tiny_data), weights=str(tiny_weights), recipe=str(file)), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_weights_of_the_same_classes_in_another_order_are_trained_first(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from secateur.networks.checkpoint import save_checkpoint

    checkpoint = load_checkpoint(tiny_weights)
    turned = dict(enumerate(reversed(checkpoint.names.values())))
    save_checkpoint(dataclasses.replace(checkpoint, names=turned), tmp_path / "turned.safetensors")

    def stop(self: Progress, name: str, work: Any, **more: Any) -> Any:
        raise Killed

    monkeypatch.setattr(Progress, "step", stop)
    for weights, trains in ((tiny_weights, False), (tmp_path / "turned.safetensors", True)):
        with pytest.raises(Killed):
            run_recipe(options(weights, tiny_data, dense_epochs=None), tmp_path / "runs")
        assert ("steps    train (2 epochs)" in capsys.readouterr().out) == trains


def test_the_steps_by_hand_equal_the_run(tiny_weights: Path, tiny_data: Path, tmp_path: Path) -> None:
    """One set of defaults: what `secateur prune` does to a checkpoint is what the step of a recipe does."""
    from secateur.cli import main

    recipe = tmp_path / "cut.yaml"
    recipe.write_text("stages: [{prune: {}}]")
    common = ["--weights", str(tiny_weights), "--data", str(tiny_data), "--img", "64", "--batch", "8"]
    common += ["--workers", "0", "--flops", "0.6"]
    main(["run", *common, "--recipe", str(recipe), "--project", str(tmp_path / "run")])
    main(["prune", *common, "--project", str(tmp_path / "prune")])
    tables = [json.loads((tmp_path / name / "exp" / "summary.json").read_text())["table"] for name in ("run", "prune")]
    rows = [[(row["stage"], row["metrics"], row["model"]) for row in table] for table in tables]
    assert rows[0] == rows[1]
    ours = load_checkpoint(tmp_path / "run" / "exp" / "final.safetensors").tensors
    theirs = load_checkpoint(tmp_path / "prune" / "exp" / "pruned.safetensors").tensors
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
