"""Repair of what has no batch norm behind it: linear layers, attention, convolutions with a bias."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from test_tokens import Attention, Transformer
from torch import Tensor, nn
from torch.nn import functional

from networks import keep_every_other
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.graph.trial import lively
from secateur.pruning.plan import Plan
from secateur.pruning.repair import (
    absorb_offsets,
    correct_,
    counterparts,
    moments_of_inputs,
    reconstruct_,
    reconstruction,
)
from secateur.pruning.surgery import cut


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Values with few degrees of freedom, as activations have: [B, ..., last] of a fixed mixture."""
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randn(*shape[:-1], 6, generator=generator)
    return sources @ torch.randn(6, shape[-1], generator=torch.Generator().manual_seed(99)) + 0.3


def smooth(batch: int, *sides: int, seed: int = 0) -> Tensor:
    """Maps [B, 2, *sides] without fine detail: neighbours say nearly the same."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 2, *(max(side // 4, 2) for side in sides), generator=generator)
    mode = ("linear", "bilinear", "trilinear")[len(sides) - 1]
    return functional.interpolate(coarse, sides, mode=mode, align_corners=True)


def energy(network: nn.Module, batch: Tensor) -> Tensor:
    return network(batch).square().sum()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 48), nn.GELU(), nn.Linear(48, 40), nn.ReLU(inplace=True), nn.Linear(40, 5))


def transformer() -> nn.Module:
    return nn.Sequential(Transformer(Attention()), nn.LayerNorm(24), nn.Linear(24, 5))


def plain(kind: type[nn.Module]) -> Callable[[], nn.Module]:
    """Convolutions without batch norms; activations overwrite what they read."""
    return lambda: nn.Sequential(
        kind(2, 24, 3, padding=1), nn.ReLU(inplace=True), kind(24, 24, 3, 2, 1), nn.ReLU(inplace=True), kind(24, 5, 1)
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int, int], Tensor], float]] = {
    "mlp": (mlp, lambda batch, seed: noise(batch, 12, seed=seed), 0.3),
    "transformer": (transformer, lambda batch, seed: noise(batch, 9, 24, seed=seed), 0.6),
    "convolutions": (plain(nn.Conv2d), lambda batch, seed: smooth(batch, 12, 16, seed=seed), 0.3),
    "convolutions over time": (plain(nn.Conv1d), lambda batch, seed: smooth(batch, 32, seed=seed), 0.3),
    "convolutions over volumes": (plain(nn.Conv3d), lambda batch, seed: smooth(batch, 6, 8, 7, seed=seed), 0.3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_half_the_channels_answer_more_truly_when_reconstructed(name: str) -> None:
    build, inputs, ratio = NETWORKS[name]
    network = lively(build())
    before = copy.deepcopy(network.state_dict())
    graph = trace(network, inputs(1, 0))
    plan = keep_every_other(graph)
    moments = moments_of_inputs(network, [inputs(32, 1), inputs(32, 2)], energy)
    bare, repaired = cut(network, graph, plan), cut(network, graph, plan)
    changed = reconstruct_(repaired, network, plan, moments, (network, graph), share=1.0)
    assert changed == lost_inputs(graph, plan)
    with torch.no_grad():
        dense, *answers = (each(inputs(64, 3)) for each in (network, bare, repaired))
    errors = [float((answer - dense).square().mean()) for answer in answers]
    assert errors[1] < ratio * errors[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def lost_inputs(graph: ChannelGraph, plan: Plan) -> list[str]:
    keep = np.append(plan.keep(graph), True)
    return [axis.layer for axis in graph.consumers if not keep[axis.units].all()]


@pytest.mark.parametrize("name", NETWORKS)
def test_where_nothing_is_removed_nothing_changes(name: str) -> None:
    build, inputs, _ = NETWORKS[name]
    network = lively(build())
    graph = trace(network, inputs(1, 0))
    plan = Plan.everything(graph)
    same = cut(network, graph, plan)
    moments = moments_of_inputs(network, [inputs(8, 1)], energy)
    assert reconstruct_(same, network, plan, moments, (network, graph)) == []
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in same.state_dict().items())


@pytest.mark.parametrize("bias", [True, False])
def test_what_the_kept_inputs_can_say_is_said_exactly(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The removed outputs of the first layer are sums of kept ones: with a bias, plus constants."""
    monkeypatch.setattr(reconstruction, "RIDGE", 1e-10)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 5, bias=bias)).eval()
    mixture = torch.randn(6, 6)
    with torch.no_grad():
        network[0].weight[6:] = mixture @ network[0].weight[:6]
        network[0].bias[6:] = mixture @ network[0].bias[:6] + (torch.randn(6) if bias else 0)
    graph = trace(network, torch.zeros(1, 8))
    keep = np.ones(graph.units, dtype=bool)
    keep[graph.emitted["0"][6:]] = False
    plan = Plan.of(graph, keep)
    moments = moments_of_inputs(network, [torch.randn(64, 8), torch.randn(64, 8)], energy)
    smaller, batch = cut(network, graph, plan), torch.randn(32, 8)
    with torch.no_grad():
        assert (smaller(batch) - network(batch)).abs().max() > 0.5
        assert reconstruct_(smaller, network, plan, moments, (network, graph), share=1.0) == ["1"]
        torch.testing.assert_close(smaller(batch), network(batch), rtol=0, atol=1e-3)


def test_moments_of_a_linear_layer_weigh_rows_by_their_gradients() -> None:
    layer, rows = nn.Linear(4, 3), torch.randn(6, 5, 4)
    slopes = torch.rand(6, 5)
    found = moments_of_inputs(layer, [rows], lambda network, batch: (network(batch).sum(2) * slopes).sum())[""]
    weights = (slopes / slopes.mean() + reconstruction.EVEN).flatten().double()
    values = rows.flatten(0, 1).T.double()
    torch.testing.assert_close(found.matrix(), values.cov(correction=0, aweights=weights), rtol=1e-4, atol=1e-5)
    assert found.count == pytest.approx(float(weights.sum()), rel=1e-5)


def test_few_tokens_of_many_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "PIXELS", 7)
    layer = nn.Linear(4, 3, bias=False)
    found = moments_of_inputs(layer, [torch.ones(5, 10, 3, 4)], lambda network, batch: network(batch).sum())[""]
    assert found.count == pytest.approx(5 * 7 * (1 + reconstruction.EVEN), rel=1e-5)
    torch.testing.assert_close(found.matrix(), torch.ones(4, 4, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(4,), (6, 4), (2, 3, 4)])
def test_a_linear_layer_reads_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    network, rows = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)), torch.rand(shape)
    found = moments_of_inputs(network, [rows], energy)
    assert found["0"].count == pytest.approx(rows.numel() // 4 * (1 + reconstruction.EVEN), rel=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_too_wide_for_moments_gets_the_same_weights_from_readings(
    bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = lively(nn.Sequential(nn.Linear(6, 30), nn.GELU(), nn.Linear(30, 5, bias=bias)))
    graph = trace(network, torch.zeros(1, 6))
    plan, batches = keep_every_other(graph), list(torch.randn(3, 8, 6))
    found = []
    for most in (30, 29):
        monkeypatch.setattr(reconstruction, "MOST_FEATURES", most)
        moments = moments_of_inputs(network, batches, energy)
        assert (moments["2"].readings is None) == (moments["2"].products.numel() > 0) == (most == 30)
        found.append(cut(network, graph, plan))
        assert reconstruct_(found[-1], network, plan, moments, (network, graph), share=1.0) == ["2"]
    assert not torch.equal(found[0][2].weight, network[2].weight[:, ::2])
    for name, tensor in found[0].state_dict().items():
        torch.testing.assert_close(found[1].state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_wide_layer_keeps_its_first_readings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction, "MOST_FEATURES", 5)
    monkeypatch.setattr(reconstruction, "MOST_READINGS", 10)
    batches = torch.randn(3, 4, 6).unbind()
    found = moments_of_inputs(nn.Linear(6, 2), batches, lambda network, batch: network(batch).sum())[""]
    assert found.readings is not None
    values, weights = (torch.cat(parts, -1) for parts in zip(*found.readings, strict=True))
    torch.testing.assert_close(values, torch.cat(batches)[:10].T)
    assert found.count == pytest.approx(float(weights.sum()), rel=1e-5)
    torch.testing.assert_close(found.sums, (values * weights).sum(1).double(), rtol=1e-4, atol=1e-5)


def test_other_layers_do_not_change_what_convolutions_over_images_read() -> None:
    """The places that are drawn for them are the same with and without linear layers before them."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.maps = nn.Linear(20, 20), nn.Conv2d(3, 4, 3)
            nn.init.eye_(self.tokens.weight)
            nn.init.zeros_(self.tokens.bias)

        def forward(self, images: Tensor) -> Tensor:
            return self.maps(self.tokens(images))

    network, images = Mixed(), torch.rand(2, 3, 20, 20)
    mixed = moments_of_inputs(network, [images], energy)["maps"]
    alone = moments_of_inputs(network.maps, [images], energy)[""]
    torch.testing.assert_close(mixed.products, alone.products, rtol=1e-4, atol=1e-4)


class Constants(nn.Module):
    """Linear layers that read the outputs of a batch norm, directly and behind another norm."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 10, bias=False), nn.BatchNorm1d(10)
        self.second, self.other = nn.Linear(10, 8, bias=bias), nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(self.other(self.second(self.norm(self.first(rows)).sigmoid())))


@pytest.mark.parametrize("bias", [True, False])
def test_constants_move_into_linear_layers(bias: bool) -> None:
    """Exact for gamma = 0; without a bias the constants move into the norm that follows."""
    network = lively(Constants(bias))
    graph = trace(network, torch.zeros(2, 6))
    plan = keep_every_other(graph)
    gone = ~plan.keep(graph)
    with torch.no_grad():
        for layer, units in graph.norms.items():
            network.get_submodule(layer).weight[torch.from_numpy(gone[units])] = 0.0
        rows = torch.randn(16, 6)
        dense = network(rows)
        bare = cut(network, graph, plan)(rows)
        repaired = cut(absorb_offsets(network, graph, plan), graph, plan)(rows)
    assert (bare - dense).abs().max() > 0.05
    torch.testing.assert_close(repaired, dense, rtol=0, atol=1e-5)


def test_a_constant_of_every_token_moves_into_the_bias() -> None:
    """A filter of zeros gives its bias everywhere, and GELU of it is what the next layer reads."""
    network = lively(transformer())
    graph = trace(network, noise(1, 9, 24))
    keep = np.ones(graph.units, dtype=bool)
    keep[graph.emitted["0.mlp.0"][::2]] = False
    plan = Plan.of(graph, keep)
    with torch.no_grad():
        network[0].mlp[0].weight[::2] = 0.0
        rows = noise(4, 9, 24, seed=1)
        dense = network(rows)
        assert (cut(network, graph, plan)(rows) - dense).abs().max() > 0.05
        repaired = cut(absorb_offsets(network, graph, plan), graph, plan)(rows)
    torch.testing.assert_close(repaired, dense, rtol=0, atol=1e-5)


def test_without_a_norm_nothing_is_run_to_correct() -> None:
    network = lively(mlp())
    graph = trace(network, noise(1, 12))
    plan = keep_every_other(graph)
    smaller = cut(network, graph, plan)

    def batches() -> Iterator[Tensor]:
        pytest.fail("no image is needed where there is nothing to correct")
        yield noise(4, 12)

    assert correct_(smaller, network, counterparts(network, plan, (network, graph)), batches()) == 0


def test_norms_behind_linear_layers_are_corrected() -> None:
    network = lively(Constants(bias=True))
    graph = trace(network, torch.zeros(2, 6))
    plan = keep_every_other(graph)
    smaller, rows = cut(network, graph, plan), torch.randn(64, 6)
    pairs = counterparts(network, plan, (network, graph))
    assert correct_(smaller, network, pairs, [rows], share=1.0) == 64
    mine, theirs = offsets_read(smaller, rows), offsets_read(network, rows)
    assert set(pairs) == {"norm", "other"}
    for name, pair in pairs.items():
        torch.testing.assert_close(mine[name], theirs[pair.name][pair.channels], rtol=0, atol=1e-4)


def offsets_read(network: nn.Module, rows: Tensor) -> dict[str, Tensor]:
    """How far the mean of what each norm reads is from its running mean."""
    found: dict[str, Tensor] = {}
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm1d)}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, inputs: found.update({name: inputs[0].mean(0) - norms[name].running_mean})

    handles = [norm.register_forward_pre_hook(watch(name)) for name, norm in norms.items()]
    with torch.no_grad():
        network(rows)
    for handle in handles:
        handle.remove()
    return found
