"""A training that dies at some step and goes on from its state, held against one that nothing disturbed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from secateur.training.hooks import Hook
from toy_training import SETTINGS, Die, Keep, ToyBatches, fit, tensors_of, toy_detector

STEPS = 10  # of the three epochs: four in the warm-up, then three each


def check_resumption(folder: Path, make: Callable[[], Sequence[Hook]], files: Sequence[str] = ()) -> None:
    """Dies before a random step, resumes from another start, and wants every tensor and log file equal bit for bit."""
    step = random.randrange(3, STEPS + 1)
    print(f"dies before step {step}")  # pytest shows it when the test fails
    settings = replace(SETTINGS, save_every_steps=2)
    whole, parts = Keep(), Keep()
    fit(toy_detector(), ToyBatches(), settings, folder=folder / "a", hooks=[*make(), Die(None), whole])
    assert whole.run.step == STEPS
    with pytest.raises(KeyboardInterrupt):
        fit(toy_detector(), ToyBatches(), settings, folder=folder / "b", hooks=[*make(), Die(step), Keep()])
    fit(toy_detector(5), ToyBatches(), settings, folder=folder / "b", hooks=[*make(), Die(None), parts], resume=True)
    first, second = tensors_of(whole), tensors_of(parts)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for file in files:
        assert (folder / "a" / file).read_text() == (folder / "b" / file).read_text(), file
