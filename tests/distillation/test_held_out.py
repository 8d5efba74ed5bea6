"""The distance on held-out images: the teacher is asked once, as long as its answers are small enough to keep."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateur.distillation import held_out
from secateur.distillation.held_out import HeldOut


class Asked(nn.Module):
    """Counts its calls, of all copies."""

    calls = 0

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        Asked.calls += 1
        return {"mean": images.mean((1, 2, 3))}


@pytest.mark.parametrize(("most", "calls"), [(2**20, 2), (0, 6)])
def test_the_teacher_is_asked_once_where_its_answers_fit(
    most: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out, "MOST_KEPT", most)
    batches = [torch.full((3, 1, 2, 2), 1.0), torch.full((1, 1, 2, 2), 5.0)]

    def compare(student: Tensor, taught: dict[str, Tensor], images: Tensor) -> Tensor:
        return (student - taught["mean"]).abs().mean()

    Asked.calls = 0
    measure = HeldOut(Asked(), compare, batches)
    zero = nn.Flatten()
    zero.register_forward_hook(lambda module, inputs, output: output.mean(1) * 0)
    assert [measure(zero).value for _ in range(3)] == [2.0] * 3  # (3 * 1 + 5) / 4: the mean over the images
    assert Asked.calls == calls
