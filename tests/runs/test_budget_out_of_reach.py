"""A budget that no cut can meet is refused before the trainings, also where several cuts approach it."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur.errors import UserError
from secateur.runs.options import RunOptions
from secateur.runs.run import run_recipe

IN_TURNS = """
stages:
  - repeat:
      rounds: 3
      stages:
        - finetune: {epochs: 1}
        - prune: {rounds: 1, criterion: gamma, layers: 1, layer_score: gamma, params: "0.5", round_to: 8}
"""
ONCE = 'stages: [{finetune: {epochs: 1}}, {prune: {rounds: 1, criterion: gamma, flops: "0.5"}}]'


@pytest.mark.parametrize(("recipe", "budget"), [(IN_TURNS, "0.0001"), (IN_TURNS, "1500"), (ONCE, "0.001")])
def test_it_is_said_before_anything_is_made(
    recipe: str, budget: str, tiny_weights: Path, tiny_data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(recipe)
    cost = "params" if recipe == IN_TURNS else "flops"
    options = RunOptions(
        data=str(tiny_data), weights=str(tiny_weights), recipe=str(file), overrides={cost: budget}, image_size=64
    )
    with pytest.raises(UserError, match=rf"The budget {cost} [0-9.,]+ cannot be reached: the closest"):
        run_recipe(options, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
