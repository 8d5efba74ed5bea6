"""Runs without timings and with short searches: both take longer than the trainings of these networks.

Latency is measured in tests/test_cli.py (`bench`), whole searches are tested in tests/pruning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from secateur.evaluation.latency import Comparison, Latency
from secateur.pruning.search import SearchResult, search
from secateur.pruning.settings import SearchSettings


def _no_latencies(checkpoints: Mapping[str, Any], *_: Any, **__: Any) -> Comparison:
    latencies, samples = dict.fromkeys(checkpoints, Latency(1.0, 1.0, 1.0, 1)), dict.fromkeys(checkpoints, (1.0,))
    return Comparison(latencies, dict.fromkeys(checkpoints, 1.0), samples)


def _short_search(*words: Any, **options: Any) -> SearchResult:
    short = (replace(word, candidates=8) if isinstance(word, SearchSettings) else word for word in words)
    return search(*short, **options)


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateur.deploy.speed.latency.measure_latency", _no_latencies)
        patch.setattr("secateur.pruning.search.search", _short_search)
        yield
