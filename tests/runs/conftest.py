"""Runs without timings and with short searches: both take longer than the trainings of these networks.

Latency is measured in tests/test_cli.py (`bench`), whole searches are tested in tests/pruning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secateur.checkpoints.training import train_checkpoint
from secateur.data.config import load_data_config
from secateur.evaluation.latency import Comparison, Latency
from secateur.families.context import Context
from secateur.families.hyp import load_hyp
from secateur.families.loading import load_checkpoint
from secateur.pruning.search import SearchResult, search
from secateur.pruning.settings import SearchSettings
from secateur.training.settings import TrainSettings


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


@pytest.fixture(scope="session")
def trained(tiny_weights: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny detector that detects something, in a few seconds."""
    hyp = dataclasses.replace(load_hyp("scratch-low"), lr0=0.005, warmup_epochs=0.0, mosaic=0.0, scale=0.2)
    settings = TrainSettings(
        epochs=40, batch_size=4, nominal_batch=4, image_size=64, workers=0, optimizer="Adam", hyp=hyp, amp="off",
        tensorboard=False, warmup_minimum=0, val_every=0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("trained")
    context = Context(64, data=load_data_config(tiny_data), batch_size=4, workers=0)
    return train_checkpoint(load_checkpoint(tiny_weights), context, settings, folder).last
