"""The whole run: its table, its files, and that a kill at any point changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from law_subjects import subject_named
from secateur.detector.checkpoint import load_checkpoint
from secateur.errors import UserError
from secateur.pruning.budget import Guards, allocate
from secateur.pruning.plan import Budget
from secateur.pruning.settings import PruneSettings
from secateur.stages.ledger import Ledger
from secateur.stages.options import RunOptions
from secateur.stages.pruning import joint
from secateur.stages.recipe import StageSpec, load_recipe
from secateur.stages.run import run_key, run_pipeline
from secateur.stages.settle import Step, budget_of_round, prune_settings, settle
from secateur.training.session import Session


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


def options(weights: Path, data: Path, **changes: Any) -> RunOptions:
    settings: dict[str, Any] = {
        "data": str(data), "weights": str(weights), "image_size": 64, "batch_size": 8, "epochs": 2,
        "dense_epochs": 1, "flops": "0.6", "workers": 0, "amp": "off",
    }  # fmt: skip
    return RunOptions(**settings | changes)


@pytest.fixture(scope="module")
def undisturbed(
    tiny_weights: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    root = tmp_path_factory.mktemp("undisturbed")
    return run_pipeline(options(tiny_weights, tiny_data), root), root


def table_of(summary: dict[str, Any]) -> list[Any]:
    """The table without times."""
    return [(row["stage"], row["metrics"], row["test"], row["model"]) for row in summary["table"]]


def test_the_table_has_a_row_a_stage(undisturbed: tuple[dict[str, Any], Path]) -> None:
    summary, root = undisturbed
    stages = [row["stage"] for row in summary["table"]]
    assert stages == ["dense", "sparse", "cut, no repair", "cut + repair", "fine-tuned"]
    dense, final = summary["table"][0]["model"], summary["table"][-1]["model"]
    assert final["gflops"] <= 0.61 * dense["gflops"]
    assert all(row["latency_ms"] > 0 for row in summary["table"])
    assert summary["export"]["max_error"] < 1e-3
    folder = root / "exp"
    assert json.loads((folder / "summary.json").read_text())["metrics"] == summary["metrics"]
    assert "| fine-tuned" in (folder / "summary.md").read_text()
    assert (folder / "final.onnx").exists()
    assert (folder / "cliff.json").exists()


def test_the_final_checkpoint_tells_its_history(undisturbed: tuple[dict[str, Any], Path]) -> None:
    _, root = undisturbed
    checkpoint = load_checkpoint(root / "exp" / "final.safetensors")
    assert [entry.verb for entry in checkpoint.history] == ["train", "sparsify", "prune", "finetune"]
    assert checkpoint.plan is not None
    prune = checkpoint.history[2]
    assert prune.settings["criterion"] == "taylor"
    assert prune.cost["flops"] <= 0.61 * prune.cost["dense_flops"]


# One of each kind: a training, an evaluation, a decision, a cut, files for elsewhere.
STEPS = ("train", "sparse", "plan", "repair", "finetune", "export")


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_any_step_it_ends_with_the_same_table(
    step: str,
    undisturbed: tuple[dict[str, Any], Path],
    tiny_weights: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = Ledger.step

    def kill(self: Ledger, name: str, work: Any) -> Any:
        result = original(self, name, work)
        if name == step:
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "step", kill)
        with pytest.raises(Killed):
            run_pipeline(options(tiny_weights, tiny_data), tmp_path)
    assert table_of(run_pipeline(options(tiny_weights, tiny_data), tmp_path)) == table_of(undisturbed[0])
    assert [folder.name for folder in tmp_path.iterdir()] == ["exp"]


@pytest.mark.parametrize("steps_before_kill", [1, 5])
def test_killed_inside_a_training_it_ends_with_the_same_weights(
    steps_before_kill: int,
    undisturbed: tuple[dict[str, Any], Path],
    tiny_weights: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, taken = Session.step, []

    def kill(self: Session) -> None:
        taken.append(1)
        if len(taken) > steps_before_kill:
            raise Killed
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "step", kill)
        with pytest.raises(Killed):
            run_pipeline(options(tiny_weights, tiny_data), tmp_path)
    again = run_pipeline(options(tiny_weights, tiny_data), tmp_path)
    assert table_of(again) == table_of(undisturbed[0])
    ours, theirs = (load_checkpoint(root / "exp" / "final.safetensors") for root in (tmp_path, undisturbed[1]))
    assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in theirs.tensors.items())


def test_weights_that_know_the_classes_are_not_trained_again(tiny_weights: Path, tiny_data: Path) -> None:
    recipe = load_recipe("slimming")
    chosen = options(tiny_weights, tiny_data, dense_epochs=None)
    assert [step.verb for step in settle(chosen, recipe, trained=True)] == ["sparsify", "prune", "finetune", "export"]
    steps = settle(chosen, recipe, trained=False)
    assert steps[0].verb == "train"
    assert steps[1].training is not None
    assert steps[1].training.epochs == 2
    # Zero epochs leave a training out.
    without = settle(options(tiny_weights, tiny_data, sparse_epochs=0), recipe, trained=True)
    assert "sparsify" not in [step.verb for step in without]


def test_a_wrong_option_is_found_before_anything_is_written(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path
) -> None:
    wrong = [{"flops": "much"}, {"criterion": "beauty"}, {"recipe": "nothing"}, {"epochs": -1}, {"distill": "magic"}]
    wrong += [{"target_sparsity": 0.8}, {"recipe": "intel", "params": "0.5", "flops": ""}]
    wrong += [{"recipe": "intel", "flops": "", "pruning_pattern": text} for text in ("5:4", "0x4", "nonsense")]
    wrong += [{"recipe": "intel", "flops": "", "pruning_pattern": "2:4"}]  # its target is 0.8
    wrong += [{"recipe": "intel", "flops": "", "cooldown_epochs": 2}]
    for changes in (*wrong, {"percent": 0.0}):
        with pytest.raises(UserError):
            run_pipeline(options(tiny_weights, tiny_data, **changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_budget_of_the_user_replaces_that_of_the_recipe() -> None:
    def chosen(settings: dict[str, Any], **given: Any) -> dict[str, Any]:
        return prune_settings(RunOptions(**given), StageSpec("prune", settings))

    recipe = {"criterion": "taylor", "flops": "0.48", "round_to": 8}
    assert chosen(recipe, params="0.3", round_to=4) == {"criterion": "taylor", "round_to": 4, "params": "0.3"}
    assert chosen(recipe) == recipe
    # A stage that only removes layers takes no budget of channels.
    assert chosen({"layers": 1}, params="0.3", criterion="l1") == {"layers": 1}
    assert chosen({"unstructured": 0.3}, target_sparsity=0.2, exclude=("model.24",)) == {
        "unstructured": 0.2, "exclude": ("model.24",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "option"),
    [
        ("unstructured", {"pruning_frequency": 7}),
        ("unstructured", {"cooldown_epochs": 3}),
        ("intel", {"criterion": "l1"}),
        ("intel", {"rate": 0.1}),
        ("intel", {"percent": 0.2}),
        ("eagleeye", {"rate": 0.1}),
        ("slimming", {"pruning_pattern": "1x1"}),
    ],
)
def test_an_option_that_nothing_takes_is_refused(recipe: str, option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"needs a stage that .* and recipe {recipe} has none"):
        settle(RunOptions(**option), load_recipe(recipe), trained=True)


def test_excluded_layers_of_weight_pruning() -> None:
    steps = settle(RunOptions(exclude=("model.24",), epochs=9), load_recipe("intel"), trained=True)
    assert steps[-1].methods.weights.exclude_weights == ("model.24",)


def test_rounds_approach_the_budget_by_equal_factors() -> None:
    dense = {"params": 1000.0, "flops": 8e6}
    rounds = [Step("prune", "", "cut", round=i, rounds=3) for i in (1, 2, 3)]
    settings = PruneSettings(params="0.125", flops="1M")
    reached = [budget_of_round(settings, dense, step) for step in rounds]
    assert [chosen.params for chosen in reached] == ["500", "250", "125"]
    assert [chosen.flops for chosen in reached] == ["4000000", "2000000", "1000000"]
    percent = budget_of_round(PruneSettings(percent=0.488), dense, rounds[0]).percent
    assert percent is not None
    assert abs((1 - percent) ** 3 - 0.512) < 1e-12


def test_several_budgets_are_all_met() -> None:
    subject = subject_named("yolov5n")
    graph, guards = subject.graph, Guards(round_to=4)
    for seed in range(20):
        scores = np.random.default_rng(seed).random(graph.units)
        budgets = [Budget("params", 0.5), Budget("flops", 0.6)]
        plans = [allocate(graph, scores, budget, guards, image_size=subject.size) for budget in budgets]
        plan = joint(graph, plans)
        assert plan.after.parameters <= 0.51 * plan.before.parameters
        assert plan.after.flops <= 0.61 * plan.before.flops


def test_a_file_that_a_run_depends_on_is_part_of_its_key(tiny_cfg: Path, tmp_path: Path) -> None:
    cfg, hyp = tmp_path / "model.yaml", tmp_path / "hyp.yaml"
    cfg.write_text(tiny_cfg.read_text())
    hyp.write_text("lr0: 0.01\n")
    chosen = RunOptions(cfg=str(cfg), hyp=str(hyp), epochs=2)
    recipe = load_recipe("slimming")
    key = run_key(chosen, settle(chosen, recipe, trained=False))
    assert run_key(chosen, settle(chosen, recipe, trained=False)) == key
    workers = RunOptions(cfg=str(cfg), hyp=str(hyp), epochs=2, workers=7)
    assert run_key(workers, settle(workers, recipe, trained=False)) == key
    hyp.write_text("lr0: 0.02\n")
    changed = run_key(chosen, settle(chosen, recipe, trained=False))
    assert changed != key
    cfg.write_text(tiny_cfg.read_text() + "# narrower\n")
    assert run_key(chosen, settle(chosen, recipe, trained=False)) != changed


def test_what_would_stop_a_run_after_hours_stops_it_at_once(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path
) -> None:
    for changes in ({"distill": "bce", "teacher": "nowhere.pt"}, {"exclude": ("nothing.*",)}, {"optimizer": "AdamW"}):
        with pytest.raises(UserError):
            run_pipeline(options(tiny_weights, tiny_data, **changes), tmp_path / "runs")
    for text in ("export: {format: openvino}", "export: {nosuch: 1}"):
        file = tmp_path / "mine.yaml"
        file.write_text(f"stages: [{{{text}}}]")
        with pytest.raises(UserError, match="stage export"):
            run_pipeline(
                options(tiny_weights, tiny_data, recipe=str(file), flops="", dense_epochs=None), tmp_path / "runs"
            )
    assert not (tmp_path / "runs").exists()
