"""Fixtures of the laws."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from law_subjects import NARROW, Subject, subject_named


@pytest.fixture(params=list(NARROW))
def subject(request: pytest.FixtureRequest) -> Subject:
    """Each network in turn."""
    return subject_named(request.param)


@pytest.fixture
def same() -> Callable[..., None]:
    """Asserts that two raw outputs agree to 1e-5 (times a slack) of the largest value."""

    def check(first: list[Tensor], second: list[Tensor], slack: float = 1.0) -> None:
        scale = max(1.0, *(x.abs().max().item() for x in first))
        assert scale < 1e3 and min(x.std().item() for x in first) > 1e-2, "the network is not lively"
        for a, b in zip(first, second, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * slack * scale)

    return check
