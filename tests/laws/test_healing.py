"""Healing on every topology: a healed network obeys the laws of a cut one, and the teacher stays what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from law_subjects import Subject
from secateur.checkpoints import heal as healing
from secateur.checkpoints.channels import cut_channels
from secateur.checkpoints.heal import heal
from secateur.data.config import unlabelled_images
from secateur.distillation.settings import HealSettings
from secateur.families.context import Context
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.graph import trace
from secateur.pruning.plan import Plan
from secateur.pruning.surgery import cut, mask


def test_a_healed_network_is_a_cut_one(
    subject: Any, tiny_data: Path, tmp_path: Path, same: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healing, "PIECE", 2)
    whole = Checkpoint.of(subject.detector)
    before = {name: tensor.clone() for name, tensor in subject.detector.state_dict().items()}
    # A grouped convolution of which one group is left would be an ordinary one, so half of each layer stays.
    small = cut_channels(whole, subject.graph, subject.random_plan(3, 0.5))
    names = dict(subject.detector.names)
    context = Context(subject.size, batch_size=4, workers=0, unlabelled=unlabelled_images(tiny_data, names))
    settings = HealSettings(heal_steps=2, heal_batch=4, heal_lr=1e-4)
    # The best may be what it started from; the last has been trained.
    healed = load_checkpoint(heal(small, whole, context, settings, tmp_path / "heal").last)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.detector.state_dict().items())
    assert {name: t.shape for name, t in healed.tensors.items()} == {n: t.shape for n, t in small.tensors.items()}
    assert any(not torch.equal(tensor.float(), small.tensors[name].float()) for name, tensor in healed.tensors.items())
    # Its plan still leads from the whole network to these widths, and it can be cut further.
    network = healed.build().eval()
    assert healed.plan is not None
    directly = cut(subject.detector, subject.graph, Plan.from_dict(healed.plan))
    assert {n: t.shape for n, t in directly.state_dict().items()} == {n: t.shape for n, t in healed.tensors.items()}
    again = Subject(network, trace(network), subject.size)
    later = again.random_plan(4, 0.5)
    smaller = cut(network, again.graph, later)
    images = subject.images()
    with torch.no_grad():
        same(smaller(images), mask(network, again.graph, later)(images))
        save_checkpoint(Checkpoint.of(smaller, like=healed), tmp_path / "small.safetensors")
        back = load_checkpoint(tmp_path / "small.safetensors").build().eval()
        same(smaller(images), back(images))
