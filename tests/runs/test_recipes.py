"""Every recipe that comes with the package, from end to end on generated data; and killed in the middle."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from killing import killed_after
from law_subjects import subject_named
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.runs.options import RunOptions
from secateur.runs.recipes.recipe import available
from secateur.runs.run import run_recipe
from secateur.training.session import Session

# Of rounds and of healing a few steps are enough here; test_run.py runs as many rounds as the default says.
FEW = {"rounds": "3", "heal_steps": 6}
NAMES = sorted(recipe.name for recipe in available())
# Those with a method of their own; test_run.py kills `slimming` in many places.
KILLED = ("eagleeye", "intel", "pruned-yolo", "slimming-conv", "two-of-four", "unstructured")


def options(recipe: str, weights: Path, data: Path, size: int = 64, **overrides: Any) -> RunOptions:
    # Zeroing weights needs an epoch to do it in and one to recover.
    epochs = 2 if recipe in {"intel", "two-of-four"} else 1
    given: dict[str, Any] = {"epochs": epochs, "dense_epochs": 0, "amp": "off"} | overrides
    # The demo's own budget is out of reach for so narrow a network.
    given |= {"flops": "0.6"} if recipe == "demo" else {}
    given |= FEW if recipe in {"quick", "quick-int8", "best"} else {}
    return RunOptions(
        data=str(data), weights=str(weights), recipe=recipe, image_size=size, batch_size=8, workers=0, overrides=given
    )


def table_of(summary: dict[str, Any]) -> list[Any]:
    """The table without times."""
    return [(row["stage"], row["metrics"], row["model"]) for row in summary["table"]]


def zeros_of(checkpoint: Checkpoint) -> dict[str, float]:
    """Share of zeros in the weight of every convolution."""
    weights = {n: t for n, t in checkpoint.tensors.items() if n.endswith("weight") and t.ndim == 4}
    return {name: float((tensor == 0).float().mean()) for name, tensor in weights.items()}


@pytest.fixture(scope="module")
def finished(tiny_weights: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Summaries of undisturbed runs, made when first asked for."""
    return {}


@pytest.fixture
def undisturbed(
    request: pytest.FixtureRequest,
    finished: dict[str, Any],
    tiny_weights: Path,
    tiny_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], Path]:
    name = request.param
    if name not in finished:
        root = tmp_path_factory.mktemp(name)
        original, taken = Session.step, []

        def count(self: Session) -> None:
            taken.append(1)
            original(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, "step", count)
            summary = run_recipe(options(name, tiny_weights, tiny_data), root)
        finished[name] = summary | {"steps": len(taken)}, root / "exp"
    result: tuple[dict[str, Any], Path] = finished[name]
    return result


@pytest.mark.parametrize(("name", "undisturbed"), [(n, n) for n in NAMES], indirect=["undisturbed"], ids=NAMES)
def test_runs_from_end_to_end(name: str, undisturbed: tuple[dict[str, Any], Path]) -> None:
    summary, folder = undisturbed
    dense, final = summary["table"][0]["model"], summary["table"][-1]["model"]
    smaller = final["parameters"] < dense["parameters"]
    sparser = final["sparsity"] > dense["sparsity"] + 0.2
    assert smaller or sparser
    checkpoint = load_checkpoint(folder / "final.safetensors")
    assert sum(t.numel() for n, t in checkpoint.build().named_parameters()) == final["parameters"]
    if sparser:
        held = {name: mask for name, mask in checkpoint.masks.items() if not mask.all()}
        assert held
        assert all((checkpoint.tensors[name][~mask] == 0).all() for name, mask in held.items())


@pytest.mark.parametrize(("name", "undisturbed"), [(n, n) for n in KILLED], indirect=["undisturbed"], ids=KILLED)
def test_killed_at_a_random_step_it_ends_with_the_same_weights(
    name: str,
    undisturbed: tuple[dict[str, Any], Path],
    tiny_weights: Path,
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    summary, folder = undisturbed
    with killed_after(random.Random(name).randrange(1, summary["steps"])):
        run_recipe(options(name, tiny_weights, tiny_data), tmp_path)
    again = run_recipe(options(name, tiny_weights, tiny_data), tmp_path)
    assert table_of(again) == table_of(summary)
    ours, theirs = (load_checkpoint(place / "final.safetensors") for place in (tmp_path / "exp", folder))
    assert all(torch.equal(ours.tensors[key], tensor) for key, tensor in theirs.tensors.items())


@pytest.mark.parametrize("undisturbed", ["pruned-yolo"], indirect=True)
def test_pruned_yolo_removes_layers_and_meets_its_budget(undisturbed: tuple[dict[str, Any], Path]) -> None:
    summary, folder = undisturbed
    dense, final = summary["table"][0]["model"], summary["table"][-1]["model"]
    assert final["parameters"] <= 0.505 * dense["parameters"]
    plan = load_checkpoint(folder / "final.safetensors").plan
    assert plan is not None
    assert plan["removed_blocks"]


ONE_ROUND = """
stages:
  - remove_layers: {layers: 1, layer_score: gamma_kernel}
  - prune: {criterion: gamma_kernel, params: 0.6, min_share: 0.1, min_count: 2, cliff: false}
"""


@pytest.mark.parametrize("name", ["yolov3-tiny", "yolov5s6"])
def test_layers_and_channels_on_other_topologies(name: str, tiny_data: Path, tmp_path: Path) -> None:
    """A round of pruned-yolo where there are no bottlenecks at all, and where there are four levels."""
    subject = subject_named(name)
    file, recipe = tmp_path / "weights.safetensors", tmp_path / "round.yaml"
    save_checkpoint(Checkpoint.of(subject.detector), file)
    recipe.write_text(ONE_ROUND)
    chosen = options(str(recipe), file, tiny_data, subject.size)
    summary = run_recipe(dataclasses.replace(chosen, overrides={}), tmp_path / "runs")
    dense, final = summary["table"][0]["model"], summary["table"][-1]["model"]
    assert final["parameters"] <= 0.605 * dense["parameters"]
