"""Runs without pictures and without timings: both take longer than the trainings of these networks.

Pictures are drawn in tests/report, latency is measured in tests/test_cli.py (`bench`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest


def _no_latencies(checkpoints: Mapping[str, Any], *_: Any, **__: Any) -> dict[str, float]:
    return dict.fromkeys(checkpoints, 1.0)


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateur.report.pictures.plots_available", lambda: False)
        patch.setattr("secateur.compression.latency.latencies", _no_latencies)
        yield
