"""Which hooks a sparse training gets, on which channels, and the automatic rate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.graph import trace
from secateur.pruning.importance import score
from secateur.pruning.statistics import collect
from secateur.sparsity.channels.convolution import ConvPenalty
from secateur.sparsity.channels.gamma import GammaPenalty
from secateur.sparsity.channels.soft_mask import SoftMask
from secateur.sparsity.penalties import automatic_rate, check_penalties, penalty_hooks
from secateur.sparsity.settings import SparsifySettings
from secateur.training.hyp import Hyp
from secateur.training.settings import TrainSettings
from toy_training import ToyBatches, fit

SETTINGS = TrainSettings(
    epochs=4, batch_size=16, image_size=64, amp="off", tensorboard=False, device="cpu", workers=0, warmup_minimum=0
)


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, [GammaPenalty]),
        ({"penalty": "conv"}, [ConvPenalty]),
        ({"penalty": "both"}, [GammaPenalty, ConvPenalty]),
        ({"penalty": "both", "soft_mask": True}, [SoftMask, GammaPenalty, ConvPenalty]),
    ],
    ids=str,
)
def test_options_choose_the_hooks(tiny_weights: Path, options: dict[str, object], kinds: list[type]) -> None:
    settings = SparsifySettings(**options)  # type: ignore[arg-type]
    hooks = penalty_hooks(load_checkpoint(tiny_weights), settings, SETTINGS, 24)
    assert [type(hook) for hook in hooks] == kinds


def test_all_norms_are_penalised_and_all_convolutions_but_those_of_detect(tiny_weights: Path) -> None:
    start = load_checkpoint(tiny_weights)
    gamma, conv = penalty_hooks(start, SparsifySettings(penalty="both"), SETTINGS, 24)
    assert isinstance(gamma, GammaPenalty) and isinstance(conv, ConvPenalty)
    modules = dict(start.build().named_modules())
    assert set(gamma.norms) == {n for n, m in modules.items() if isinstance(m, torch.nn.BatchNorm2d)}
    head = f"model.{len(start.build().model) - 1}."
    convolutions = {n for n, m in modules.items() if isinstance(m, torch.nn.Conv2d)}
    assert {axis.layer for axis in conv.axes} == {name for name in convolutions if not name.startswith(head)}


def travelled(rate: float, sparsify: SparsifySettings, settings: TrainSettings, images: int) -> float:
    """How far the pull alone moves a scale, step by step with SGD's momentum, after the warm-up-free schedule."""
    momentum = settings.hyp.momentum if sparsify.mode == "subgradient" else 0.0
    batches, velocity, moved = -(-images // settings.batch_size), 0.0, 0.0
    for epoch in range(settings.epochs):
        progress = epoch / settings.epochs
        lr = settings.hyp.lr0 * ((1 - progress) * (1 - settings.hyp.lrf) + settings.hyp.lrf)
        s = rate * {"constant": 1.0, "linear": 1 - 0.9 * progress}[sparsify.schedule]
        for _ in range(batches):
            velocity = momentum * velocity + s * settings.batch_size / 64
            moved += lr * velocity
    return moved


@pytest.mark.parametrize("mode", ["subgradient", "proximal"])
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_automatic_rate_moves_a_scale_as_far_as_asked(schedule: str, mode: str) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=30, hyp=Hyp(warmup_epochs=0))
    sparsify = SparsifySettings(schedule=schedule, mode=mode, reach=0.2)  # type: ignore[arg-type]
    scales = torch.tensor([0.0, 0.5, 1.5, 2.0])
    rate = automatic_rate(scales, sparsify, settings, 640)
    assert travelled(rate, sparsify, settings, 640) == pytest.approx(0.2 * 1.5, rel=0.03)


def test_automatic_rate_knows_ramp_and_schedule() -> None:
    scales = torch.ones(100)
    rates = {
        name: automatic_rate(scales, SparsifySettings(**options), SETTINGS, 64)  # type: ignore[arg-type]
        for name, options in {
            "constant": {"schedule": "constant"},
            "ramp": {"schedule": "constant", "ramp": 4.0},
            "step": {"schedule": "step"},
            "local": {"schedule": "local"},
        }.items()
    }
    assert rates["ramp"] > rates["constant"] and rates["step"] > rates["constant"]
    assert rates["local"] == pytest.approx(rates["constant"])  # most channels feel no relaxation


def test_what_cannot_be_penalised_is_refused_before_the_training(tiny_weights: Path) -> None:
    start = load_checkpoint(tiny_weights)
    with pytest.raises(UserError, match="schedule of the sparsity rate 'exp'"):
        penalty_hooks(start, SparsifySettings(schedule="exp"), SETTINGS, 24)
    with pytest.raises(UserError, match=r"already zero. Set --rate"):
        automatic_rate(torch.zeros(3), SparsifySettings(), SETTINGS, 24)


@pytest.mark.parametrize("rate", [0.0, 1e-3])
@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({}, "--penalty gamma"),
        ({"penalty": "both"}, "--penalty both"),
        ({"penalty": "conv", "soft_mask": True}, "--soft-mask"),
    ],
    ids=str,
)
def test_a_fused_checkpoint_has_no_scales_and_is_told_what_works(
    rate: float, options: dict[str, object], option: str, tiny_weights: Path
) -> None:
    fused = Checkpoint.of(load_checkpoint(tiny_weights).build().fused())
    sparsify = SparsifySettings(rate=rate, **options)  # type: ignore[arg-type]
    words = f"{option} acts on the scales of batch norms, but the checkpoint is fused"
    with pytest.raises(UserError, match=words) as error:
        penalty_hooks(fused, sparsify, SETTINGS, 24)
    assert "--rate" not in str(error.value)
    # What the sentence advises works.
    only = SparsifySettings(penalty="conv")
    assert [type(hook) for hook in penalty_hooks(fused, only, SETTINGS, 24)] == [ConvPenalty]
    detector = fused.build()
    graph = trace(detector)
    for criterion in ("l1", "l2"):
        assert (score(criterion, graph, collect(detector, graph)) > 0).all()
    batch = torch.rand(2, 3, 64, 64)
    statistics = collect(detector, graph, [batch], lambda network, x: sum(y.square().sum() for y in network(x)))
    assert (score("fisher", graph, statistics) > 0).all()


def test_excluding_every_scale_is_told(tiny_weights: Path) -> None:
    with pytest.raises(UserError, match="--exclude leaves no channel to penalise"):
        penalty_hooks(load_checkpoint(tiny_weights), SparsifySettings(exclude=("model.*",)), SETTINGS, 24)


def test_excluded_layers_have_no_penalty(tiny_weights: Path) -> None:
    start, options = load_checkpoint(tiny_weights), SparsifySettings(rate=1e-3, penalty="both")
    without = dataclasses.replace(options, exclude=("model.0", "model.1.*"))
    (gamma, conv), (gamma_less, conv_less) = (
        penalty_hooks(start, chosen, SETTINGS, 24) for chosen in (options, without)
    )
    assert isinstance(gamma, GammaPenalty) and isinstance(gamma_less, GammaPenalty)
    assert set(gamma.norms) - set(gamma_less.norms) == {"model.0.bn", "model.1.bn"}
    assert isinstance(conv, ConvPenalty) and isinstance(conv_less, ConvPenalty)
    with pytest.raises(UserError, match="matches no prunable layer"):
        penalty_hooks(start, dataclasses.replace(options, exclude=("nothing",)), SETTINGS, 24)


def test_an_automatic_rate_needs_sgd_or_the_proximal_step(tiny_weights: Path) -> None:
    start, settings = load_checkpoint(tiny_weights), dataclasses.replace(SETTINGS, optimizer="AdamW")
    with pytest.raises(UserError, match=r"--rate 0 .* is not available for AdamW"):
        penalty_hooks(start, SparsifySettings(), settings, 24)
    assert penalty_hooks(start, SparsifySettings(mode="proximal"), settings, 24)
    assert penalty_hooks(start, SparsifySettings(rate=1e-3), settings, 24)


def test_sparse_training_with_everything_on(tiny_weights: Path, tmp_path: Path) -> None:
    sparsify = SparsifySettings(
        reach=0.5, penalty="both", mode="proximal", soft_mask=True, mask_start=0, mask_factor=0.0, mask_alpha=1.0
    )
    settings = dataclasses.replace(SETTINGS, epochs=2, hyp=Hyp(warmup_epochs=0))
    start = load_checkpoint(tiny_weights)
    hooks = penalty_hooks(start, sparsify, settings, 24)
    result = fit(start.build(), ToyBatches(3, 8), settings, folder=tmp_path, hooks=hooks)
    saved = load_checkpoint(result.last)
    zeros = sum(int((t == 0).sum()) for n, t in saved.tensors.items() if n.endswith("bn.weight"))
    assert zeros > 0
    assert {"gamma.csv", "gamma_layers.csv", "filters.csv"} <= {file.name for file in tmp_path.iterdir()}


def test_names_are_looked_up_before_anything_is_read() -> None:
    check_penalties(SparsifySettings(), SETTINGS)
    with pytest.raises(UserError, match="schedule of the sparsity rate 'exp'"):
        check_penalties(SparsifySettings(schedule="exp"), SETTINGS)
    with pytest.raises(UserError, match=r"--rate 0 .* is not available for AdamW"):
        check_penalties(SparsifySettings(), dataclasses.replace(SETTINGS, optimizer="AdamW"))
