"""Removing layers of a checkpoint: the scores read as many images as they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from secateur.checkpoints import layers
from secateur.data.config import load_data_config
from secateur.families.context import Context
from secateur.families.loading import load_checkpoint
from secateur.pruning.depth import Selection
from secateur.pruning.settings import LayerSettings, RepairSettings


@pytest.mark.parametrize("method", ["taylor", "contribution"])
def test_a_score_reads_no_more_images_than_asked_for(
    tiny_weights: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    read: list[int] = []

    def watched(network: Any, settings: LayerSettings, batches: Any, loss: Any) -> Selection:
        read.extend(len(getattr(batch, "images", batch)) for batch in batches)
        return Selection((), {}, ())

    monkeypatch.setattr(layers, "select", watched)
    context = Context(64, data=load_data_config(tiny_data), batch_size=4)  # of 24 training images
    settings = LayerSettings(layers=1, layer_score=method, layer_images=8)
    layers.remove_layers(load_checkpoint(tiny_weights), context, settings, RepairSettings())
    assert read == [4, 4]
