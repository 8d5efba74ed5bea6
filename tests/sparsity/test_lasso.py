"""Group lasso: the proximal step on the blocks of a pattern, and when it acts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from weight_training import ON, Each, train

from secateur.sparsity.lasso import GroupLasso, block_numbers
from secateur.sparsity.patterns import parse_pattern, to_matrix
from secateur.training.run import TrainingRun


def test_group_lasso_is_the_proximal_step_on_whole_blocks() -> None:
    torch.manual_seed(0)
    for text, rows, columns in (("4x1", 4, 1), ("2x8", 2, 8), ("1x1", 1, 1)):
        weight = torch.randn(8, 4, 3, 2) * torch.linspace(0.1, 2, 8)[:, None, None, None]
        expected = to_matrix(weight).clone()
        for row in range(0, 8, rows):
            for column in range(0, 24, columns):
                block = expected[row : row + rows, column : column + columns]
                block *= max(0.0, 1 - 0.1 * 3.0 * block.numel() ** 0.5 / float(block.norm()))
        GroupLasso(3.0, parse_pattern(text), {"w": weight}).shrink_({"w": weight}, learning_rate=0.1)
        torch.testing.assert_close(to_matrix(weight), expected)
        assert (expected == 0).any() and (expected != 0).any()


def test_group_lasso_leaves_zero_blocks_zero_at_any_rate() -> None:
    weight = torch.zeros(8, 4)
    GroupLasso(1.0, parse_pattern("4x1"), {"w": weight}).shrink_({"w": weight}, learning_rate=0.0)
    assert torch.equal(weight, torch.zeros(8, 4))


def test_block_numbers_follow_the_order_of_the_pattern() -> None:
    weight = torch.randn(8, 4, 3, 3)
    pattern = parse_pattern("4x1")
    numbers = block_numbers(pattern, weight)
    sums = torch.zeros(int(numbers.max()) + 1).index_add_(0, numbers.flatten(), weight.flatten())
    torch.testing.assert_close(sums, pattern.reduce(weight, "sum"))


def test_group_lasso_acts_in_the_window_only(tmp_path: Path) -> None:
    sizes: list[dict[int, float]] = []
    for rate in (0.0, 1.0):
        seen: dict[int, float] = {}

        def look(run: TrainingRun, seen: dict[int, float] = seen) -> None:
            seen[run.step] = float(run.network.get_parameter("model.4.conv.weight").norm())

        train(tmp_path / str(rate), replace(ON, group_lasso=rate, pruning_frequency=99), after=[Each(look)])
        sizes.append(seen)
    assert sizes[0][3] == sizes[1][3]
    assert sizes[1][15] < 0.98 * sizes[0][15]
