"""The control of a run: one more row, beside the run's own detector, and a kill changes nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from killing import Killed, killed_after
from secateur.cli import parsed
from secateur.commands import COMMANDS
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.architecture import topology_of
from secateur.networks.checkpoint import HistoryEntry, save_checkpoint
from secateur.runs.options import RunOptions
from secateur.runs.progress import Progress
from secateur.runs.recipes.recipe import load_recipe
from secateur.runs.recipes.resolve import PlannedStep, resolve, with_control
from secateur.runs.run import may_be_cheap, run_recipe
from secateur.steps import control as controls
from secateur.steps.control import Control
from secateur.steps.measure import Measure
from secateur.training.settings import TrainSettings

COMMON = {"image_size": 64, "batch_size": 8, "seed": 5, "workers": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "short.yaml"
    file.write_text("stages: [{prune: {flops: 0.6, criterion: l1}}, {finetune: {epochs: 1, amp: 'off'}}]")
    return file


@pytest.fixture(scope="module")
def trained(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that say that they were trained for two epochs."""
    file = tmp_path_factory.mktemp("trained") / "trained.safetensors"
    save_checkpoint(
        dataclasses.replace(load_checkpoint(tiny_weights), history=(HistoryEntry("train", {"epochs": 2}),)), file
    )
    return file


def options(weights: Path, data: Path, recipe: Path, **changes: Any) -> RunOptions:
    chosen = RunOptions(
        data=str(data), weights=str(weights), recipe=str(recipe), image_size=64, batch_size=8, workers=0, control=True
    )
    return dataclasses.replace(chosen, **changes)


@pytest.fixture(scope="module")
def undisturbed(
    trained: Path, tiny_data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    root = tmp_path_factory.mktemp("undisturbed")
    return run_recipe(options(trained, tiny_data, recipe), root), root / "exp"


def test_the_control_is_one_more_row_and_the_result_is_still_the_pruned_detector(
    undisturbed: tuple[dict[str, Any], Path],
) -> None:
    summary, folder = undisturbed
    rows = summary["table"]
    assert [row["stage"] for row in rows[:-1]] == ["dense", "cut, no repair", "cut + repair", "fine-tuned"]
    assert rows[-1]["stage"].startswith("narrow dense (control)")
    tuned, control = rows[-2], rows[-1]
    assert control["model"]["gflops"] <= 1.01 * tuned["model"]["gflops"]
    assert control["model"]["gflops"] == pytest.approx(summary["control"]["share"] * tuned["model"]["gflops"])
    assert control["latency_ms"] == 1.0  # timed with the others
    # What the run leaves is the pruned detector.
    assert (summary["metrics"], summary["model"]) == (tuned["metrics"], tuned["model"])
    final, narrow = (load_checkpoint(folder / f"{name}.safetensors") for name in ("final", "control"))
    assert [stage.verb for stage in final.history] == ["train", "prune", "finetune"]
    assert "Classes (fine-tuned" in (folder / "summary.md").read_text()
    # The control is a plain training of two epochs before and one of the run.
    assert [stage.verb for stage in narrow.history] == ["control"]
    assert narrow.history[0].settings["epochs"] == 3
    assert narrow.plan is None
    assert set(topology_of(narrow).widths) == {width for _, width in summary["control"]["widths"]}
    noted = json.loads((folder / "progress.json").read_text())["steps"]["control"]["notes"]
    assert noted == {"control": json.loads(json.dumps(summary["control"]))}


def test_killed_before_and_inside_the_control_it_ends_the_same(
    undisturbed: tuple[dict[str, Any], Path],
    trained: Path,
    tiny_data: Path,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = Progress.step

    def step(self: Progress, name: str, work: Any, **more: Any) -> Any:
        if name == "control":
            raise Killed
        return original(self, name, work, **more)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Progress, "step", step)
        run_recipe(options(trained, tiny_data, recipe), tmp_path)
    with killed_after(2):
        run_recipe(options(trained, tiny_data, recipe), tmp_path)
    again = run_recipe(options(trained, tiny_data, recipe), tmp_path)
    assert [row["metrics"] for row in again["table"]] == [row["metrics"] for row in undisturbed[0]["table"]]
    ours, theirs = (load_checkpoint(folder / "control.safetensors") for folder in (tmp_path / "exp", undisturbed[1]))
    assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in theirs.tensors.items())


def test_one_that_was_not_asked_for_is_trained_only_where_it_is_cheap(
    undisturbed: tuple[dict[str, Any], Path],
    trained: Path,
    tiny_data: Path,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    by_itself = options(trained, tiny_data, recipe, control=None)
    with monkeypatch.context() as patch, caplog.at_level("INFO", "secateur"):
        patch.setattr(controls, "CHEAP", 0.0)
        patch.setattr(controls, "CHEAP_SHARE", 0.0)
        summary = run_recipe(by_itself, tmp_path / "dear")
    assert [row["stage"] for row in summary["table"]] == [row["stage"] for row in undisturbed[0]["table"][:-1]]
    assert any(line.startswith("No control: it would take about ") for line in caplog.messages)
    assert summary["control"] is None
    with caplog.at_level("INFO", "secateur"):
        summary = run_recipe(by_itself, tmp_path / "cheap")
    assert [row["metrics"] for row in summary["table"]] == [row["metrics"] for row in undisturbed[0]["table"]]
    assert any("The control takes about" in line and "--no-control to skip it" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("epoch", "spent", "trained"),
    [(None, 1e6, False), (1.0, 0.0, True), (40.0, 0.0, True), (41.0, 0.0, False), (300.0, 5100.0, True)],
)
def test_cheap_is_two_minutes_or_a_share_of_the_run(epoch: float | None, spent: float, trained: bool) -> None:
    control = Control(train=TrainSettings(epochs=3))
    context = Context(64, epoch_seconds=epoch, spent=spent)
    assert dataclasses.replace(control, cheap=True).worth_its_time(context) is trained
    assert control.worth_its_time(context)
    assert control.describe() == "control (3 epochs)"
    assert dataclasses.replace(control, cheap=True).describe() == "control (3 epochs, if it is cheap)"


def test_one_that_was_not_asked_for_needs_a_training_of_known_length(trained: Path, tmp_path: Path) -> None:
    start = load_checkpoint(trained)
    assert may_be_cheap(planned(), start, 2)
    assert not may_be_cheap(planned(), start, None)
    assert not may_be_cheap(with_control(planned(), COMMON, before=2, images=32), start, 2)
    cut = tmp_path / "cut.yaml"
    cut.write_text("stages: [{prune: {flops: 0.5}}]")
    assert not may_be_cheap(resolve(load_recipe(cut), {}, COMMON, trained=True), start, 2)


@pytest.mark.parametrize(
    ("words", "control"),
    [
        ([], None), (["--control"], True), (["--no-control"], False), (["--control", "auto"], None),
        (["--control", "off", "--seed", "1"], False), (["--control=on"], True), (["--control", "--seed", "1"], True),
    ],
)  # fmt: skip
def test_the_words_of_the_command_line(words: list[str], control: bool | None) -> None:
    assert parsed(COMMANDS["run"], words).control is control


def test_another_word_is_refused() -> None:
    with pytest.raises(UserError, match="control"):
        parsed(COMMANDS["run"], ["--control=maybe"])


def planned(name: str = "slimming", trained: bool = True, **overrides: Any) -> tuple[PlannedStep, ...]:
    return resolve(load_recipe(name), overrides, COMMON, trained=trained)


def test_it_is_trained_like_the_last_training_for_the_epochs_of_all() -> None:
    steps = planned("slimming-conv", dense_epochs=7, sparse_epochs=5, finetune_epochs=3)
    control = with_control(steps, COMMON, before=0, images=32)[-1]
    assert isinstance(control.step, Control)
    assert control.title == "narrow dense (control)"
    tuned = next(step.step for step in steps if step.step.verb == "finetune")
    assert control.step.train == dataclasses.replace(tuned.train, epochs=15)  # type: ignore[attr-defined]
    assert (control.step.hyp, control.step.train.optimizer, control.step.train.seed) == ("finetune", "AdamW", 5)
    lengths = {"before": 100}, {"before": None, "epochs": 9}
    assert [with_control(steps, COMMON, images=32, **given)[-1].step.train.epochs for given in lengths] == [115, 9]  # type: ignore


def test_a_measurement_at_the_end_is_done_behind_it() -> None:
    steps = with_control((*planned(), PlannedStep(Measure())), COMMON, before=1, images=32)
    assert [step.step.verb for step in steps[-3:]] == ["export", "control", "measure"]


def test_what_it_cannot_be_is_said_before_anything_starts(
    tiny_weights: Path, tiny_data: Path, recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="Set --control-epochs"):
        run_recipe(options(tiny_weights, tiny_data, recipe), tmp_path / "runs")
    with pytest.raises(UserError, match="Add --control"):
        run_recipe(options(tiny_weights, tiny_data, recipe, control=False, control_epochs=3), tmp_path / "runs")
    cut = tmp_path / "cut.yaml"
    cut.write_text("stages: [{prune: {}}]")
    with pytest.raises(UserError, match="this run trains nothing"):
        with_control(resolve(load_recipe(cut), {}, COMMON, trained=True), COMMON, before=0, images=32)
    with pytest.raises(UserError, match="--epochs is -1; it must be"):
        run_recipe(options(tiny_weights, tiny_data, recipe, control_epochs=-1), tmp_path / "runs")
    own = tmp_path / "own.yaml"
    own.write_text("stages: [{prune: {}}, {control: {epochs: 3}}]")
    with pytest.raises(UserError, match="already contains a control"):
        run_recipe(options(tiny_weights, tiny_data, own), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
