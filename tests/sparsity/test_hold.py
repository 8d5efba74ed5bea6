"""Held zeros: the masks of a checkpoint, and the lock on the zeros that a model came with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from weight_training import BATCHES, EVERY_BATCH, Each, narrow_detector, train, weights_of, zeros

from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint
from secateur.sparsity.hold import HoldMasks
from secateur.sparsity.settings import WeightSettings
from toy_training import Keep, evaluate, fit

SHORT = replace(EVERY_BATCH, epochs=2)
LOCK = WeightSettings(lock_zeros=True)


def masked_start(seed: int = 0) -> Checkpoint:
    """A detector of whose first two convolutions half of the weights are zero."""
    detector = narrow_detector(seed)
    masks = {}
    for name in ("model.0.conv.weight", "model.1.conv.weight"):
        weight = detector.get_parameter(name)
        mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(3)) > 0.5
        weight.data.mul_(mask)
        masks[name] = mask
    return Checkpoint.of(detector, masks=masks)


def test_masks_of_a_checkpoint_hold_in_model_average_and_files(tmp_path: Path) -> None:
    start, keep = masked_start(), Keep()

    def look(run: object) -> None:
        for detector in (keep.run.network, keep.run.ema.network):
            for name, mask in start.masks.items():
                weight = detector.get_parameter(name)
                assert (weight[~mask] == 0).all() and (weight[mask] != 0).all()

    hooks = [HoldMasks(start.masks), keep, Each(look)]
    result = fit(start.build(), BATCHES, SHORT, folder=tmp_path, hooks=hooks, evaluate=evaluate)
    for file in (result.best, result.last):
        saved = load_checkpoint(file)
        assert saved.masks.keys() == start.masks.keys()
        for name, mask in start.masks.items():
            assert torch.equal(saved.masks[name], mask)
            assert (saved.tensors[name][~mask] == 0).all()
            assert not torch.equal(saved.tensors[name].float(), start.tensors[name])


def test_weights_that_a_mask_names_are_zeroed_at_once(tmp_path: Path) -> None:
    dense, keep = narrow_detector(), Keep()
    masks = masked_start().masks
    fit(dense, BATCHES, replace(SHORT, epochs=1), folder=tmp_path, hooks=[HoldMasks(masks), keep])
    assert all((keep.run.ema.network.get_parameter(name)[~mask] == 0).all() for name, mask in masks.items())


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"model.99.conv.weight": torch.ones(3)}, "a mask for model.99.conv.weight, which this network does not have"),
        ({"model.1.conv.weight": torch.ones(3, 3)}, r"of model.1.conv.weight has the shape \(3, 3\)"),
    ],
)
def test_masks_of_another_detector_are_refused(masks: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        fit(narrow_detector(), BATCHES, SHORT, folder=tmp_path, hooks=[HoldMasks(masks)])
    assert not (tmp_path / "weights").exists()


def test_lock_keeps_the_zeros_that_are_there_and_makes_no_others(tmp_path: Path) -> None:
    start = replace(masked_start(), masks={})  # the zeros themselves are what counts
    trained = train(tmp_path, LOCK, start=start, settings=SHORT)
    expected = zeros(weights_of(start.build()))
    assert expected > 0.02
    for detector in (trained.run.network, trained.run.ema.network, trained.last, trained.best):
        for name, weight in weights_of(detector).items():
            assert torch.equal(weight == 0, start.tensors[name] == 0), name
    assert trained.result.rows[0]["metrics/mAP_0.5"] is not None and trained.result.best_epoch >= 0
    assert set(trained.run.masks) == set(masked_start().masks)


def test_lock_without_zeros_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lock_zeros found no zero weights"):
        train(tmp_path, LOCK)


def test_lock_looks_for_no_zeros_in_excluded_layers(tmp_path: Path) -> None:
    options, start = replace(LOCK, exclude_weights=("model.0",)), masked_start()
    # Zeros without a mask are locked where they are looked for ...
    unmasked = replace(start, masks={})
    trained = train(tmp_path / "free", options, start=unmasked, settings=SHORT)
    assert float((trained.last.get_parameter("model.0.conv.weight") == 0).float().mean()) < 0.01
    assert set(trained.run.masks) == {"model.1.conv.weight"}
    # ... but what the checkpoint holds at zero stays there.
    held = train(tmp_path / "held", options, start=start, settings=SHORT)
    assert set(held.run.masks) == {"model.0.conv.weight", "model.1.conv.weight"}
    mask = start.masks["model.0.conv.weight"].bool()
    assert (held.last.get_parameter("model.0.conv.weight")[~mask] == 0).all()
