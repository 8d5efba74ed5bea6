"""Progressive pruning: what goes in which sub-step, when there is no room for any, and resumption between two."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from weight_training import ON, check_resumption, trained_with, weights_of, zeros

from secateur.sparsity.patterns import parse_pattern
from secateur.sparsity.progressive import gone_blocks, intermediate_masks, substep_gaps


def test_sub_steps_take_the_lowest_blocks_first_and_end_at_the_complete_masks() -> None:
    random_scores = {"a": torch.rand(8, 4, 3, 3), "b": torch.rand(16, 8, 1, 1)}
    for text in ("1x1", "4x1", "2:4", "channelx1"):
        pattern = parse_pattern(text)
        old = {name: torch.ones_like(value, dtype=torch.bool) for name, value in random_scores.items()}
        keep = {name: pattern.reduce(value, "mean") > 0.4 for name, value in random_scores.items()}
        complete = {name: pattern.expand(keep[name], value, value) for name, value in random_scores.items()}
        bites = intermediate_masks(old, complete, random_scores, pattern, 4)
        gone = [sum(int((~mask).sum()) for mask in bite.values()) for bite in bites]
        largest = 16 if text == "channelx1" else 4
        assert gone == pytest.approx([gone[3] * q / 4 for q in (1, 2, 3, 4)], abs=largest)
        assert all(torch.equal(bites[3][name], complete[name]) for name in complete)
        for earlier, later in pairwise(bites):
            assert all((earlier[name] | ~later[name]).all() for name in complete)
        # What goes first has lower scores than what goes last.
        lost = [
            torch.cat([pattern.reduce(random_scores[n], "mean")[gone_blocks(b[n], pattern)] for n in b]) for b in bites
        ]
        assert float(lost[0].max()) <= float(lost[3].max()) and float(lost[0].mean()) < float(lost[3].mean())


def test_sub_steps_fit_between_prunings() -> None:
    assert [substep_gaps(frequency) for frequency in (1, 2, 3, 4, 7, 8, 100)] == [
        (1, 1), (2, 1), (3, 1), (4, 1), (4, 1), (4, 2), (4, 25),
    ]  # fmt: skip


@pytest.mark.parametrize("changes", [{"pruning_frequency": 1}, {"pruning_schedule": "oneshot"}], ids=str)
def test_progressive_pruning_without_room_says_that_it_is_plain(
    changes: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = replace(ON, progressive=True, **changes)  # type: ignore[arg-type]
    trained, _ = trained_with(tmp_path, options)
    assert "Progressive pruning is disabled" in capsys.readouterr().err
    assert zeros(weights_of(trained.last, list(trained.run.masks))) == pytest.approx(0.8, abs=0.002)


def test_progressive_pruning_resumes_between_its_sub_steps(tmp_path: Path) -> None:
    check_resumption(tmp_path, replace(ON, progressive=True), None, (7, 15))
