"""Scores of known networks, tied units, gradients against finite differences, and bad names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import Chain, ConvNorm, enliven
from secateur.errors import UserError
from secateur.pruning import importance
from secateur.pruning.graph import ChannelGraph, Floats, trace
from secateur.pruning.importance import CRITERIA, Criterion, needs_gradients, score
from secateur.pruning.statistics import Statistics, collect
from secateur.registry import Registry


@pytest.fixture
def network() -> Chain:
    """Stem and one residual branch: units 0-7 have two members each; 8-12 lie inside the branch, without a norm."""
    return enliven(  # type: ignore[return-value]
        Chain(lambda x, a, b: x + b(a(x)), a=nn.Conv2d(8, 5, 1), b=ConvNorm(5, 8, 3))
    )


@pytest.fixture
def graph(network: Chain) -> ChannelGraph:
    return trace(network)


def loss(network: nn.Module, batch: Tensor) -> Tensor:
    return network(batch).square().mean()


def test_gamma_joins_tied_units(network: Chain, graph: ChannelGraph) -> None:
    statistics = collect(network, graph)
    first, second = (n.weight.detach().abs().double().numpy() for n in (network.stem.bn, network.layers["b"].bn))
    tied, free = graph.emitted["stem.conv"], graph.emitted["layers.a"]
    assert np.allclose(score("gamma", graph, statistics)[tied], (first + second) / 2)
    assert np.allclose(score("gamma", graph, statistics, tie="sum")[tied], first + second)
    assert np.allclose(score("gamma", graph, statistics, tie="max")[tied], np.maximum(first, second))
    assert np.allclose(score("gamma", graph, statistics, tie="min")[tied], np.minimum(first, second))
    weight = network.layers["a"].weight.detach()
    assert np.allclose(score("gamma", graph, statistics)[free], weight.flatten(1).norm(dim=1).numpy())


def test_filter_criteria(network: Chain, graph: ChannelGraph) -> None:
    statistics = collect(network, graph)
    stem, other = network.stem.conv.weight.detach(), network.layers["b"].conv.weight.detach()
    units = graph.emitted["stem.conv"]
    l1 = (stem.abs().mean((1, 2, 3)) + other.abs().mean((1, 2, 3))) / 2
    assert np.allclose(score("l1", graph, statistics)[units], l1.numpy())
    l2 = (stem.square().mean((1, 2, 3)).sqrt() + other.square().mean((1, 2, 3)).sqrt()) / 2
    assert np.allclose(score("l2", graph, statistics)[units], l2.numpy())
    norm, other_norm = network.stem.bn.weight.detach().abs(), network.layers["b"].bn.weight.detach().abs()
    product = (stem.abs().mean((1, 2, 3)) * norm + other.abs().mean((1, 2, 3)) * other_norm) / 2
    assert np.allclose(score("gamma_kernel", graph, statistics)[units], product.numpy())


@pytest.mark.parametrize(("tie", "merge"), [("max", np.logical_or), ("min", np.logical_and)])
def test_max_and_min_merge_masks(network: Chain, graph: ChannelGraph, tie: str, merge: np.ufunc) -> None:
    """A unit is over a threshold if any of its members (max), or all of them (min), are."""
    first, second = (n.weight.detach().abs().numpy() for n in (network.stem.bn, network.layers["b"].bn))
    tied, threshold = graph.emitted["stem.conv"], float(np.median([first, second]))
    scores = score("gamma", graph, collect(network, graph), tie=tie)[tied]  # type: ignore[arg-type]
    assert ((scores > threshold) == merge(first > threshold, second > threshold)).all()
    assert (first > threshold).any() != (first > threshold).all()


def test_a_file_of_the_user_adds_a_criterion(
    network: Chain, graph: ChannelGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "from secateur.pruning.importance import criterion\n"
        "@criterion('backwards', gradients=True)\n"
        "def backwards(graph, statistics):\n"
        "    return np.arange(graph.units, 0.0, -1.0)\n"
    )
    monkeypatch.setenv("SECATEUR_PLUGINS", str(tmp_path))
    registry = Registry[Criterion]("criterion", "secateur.pruning.criteria")
    monkeypatch.setattr(importance, "CRITERIA", registry)
    assert needs_gradients("backwards")
    assert score("backwards", graph, collect(network, graph))[0] == graph.units


def test_criteria_say_themselves_what_they_need() -> None:
    assert {name for name in CRITERIA if needs_gradients(name)} == {"taylor", "fisher"}


def test_random_is_seeded(network: Chain, graph: ChannelGraph) -> None:
    statistics = collect(network, graph)
    assert (score("random", graph, statistics, seed=1) == score("random", graph, statistics, seed=1)).all()
    assert (score("random", graph, statistics, seed=1) != score("random", graph, statistics, seed=2)).any()


def test_taylor_is_the_derivative_along_the_unit(network: Chain, graph: ChannelGraph) -> None:
    """Scaling all norms of a unit by 1 + t changes the loss by t times the sum that the score is made of."""
    network.double()
    batches = [torch.rand(1, 3, 16, 16, dtype=torch.double) for _ in range(3)]
    statistics = collect(network, graph, batches, loss)
    assert statistics.images == 3
    unit = int(graph.emitted["stem.conv"][3])
    slopes, step = [], 1e-5
    for batch in batches:
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for norm in (network.stem.bn, network.layers["b"].bn):
                    norm.weight[3] *= 1 + sign * step
                    norm.bias[3] *= 1 + sign * step
                values.append(loss(network, batch).item())
                for norm in (network.stem.bn, network.layers["b"].bn):
                    norm.weight[3] /= 1 + sign * step
                    norm.bias[3] /= 1 + sign * step
        slopes.append((values[0] - values[1]) / (2 * step))
    assert np.isclose(score("taylor", graph, statistics)[unit], np.abs(slopes).mean(), rtol=1e-4)
    assert np.isclose(score("fisher", graph, statistics)[unit], np.square(slopes).mean(), rtol=1e-4)
    assert (statistics.taylor > 0).all(), "units without a norm are scored by their filters"  # type: ignore[operator]


class Residual(nn.Module):
    """Two linear layers whose outputs are added: entry c of both is one unit."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.second = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, rows: Tensor) -> Tensor:
        x = self.first(rows).tanh()
        return self.last(x + self.second(self.inner(x).relu()).sigmoid())


@pytest.mark.parametrize("shape", [(4, 5), (4, 7, 5)], ids=["rows", "tokens"])
def test_taylor_of_linear_layers_is_gradient_times_activation(shape: tuple[int, ...]) -> None:
    """Of each image, summed over its tokens and over the layers that a unit spans."""
    torch.manual_seed(0)
    network, batch = Residual().double(), torch.randn(shape, dtype=torch.double)
    graph = trace(network, batch[:1])
    assert (graph.emitted["first"] == graph.emitted["second"]).all() and graph.units == 8 + 6
    given: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: given.update({name: output})

    names = ("first", "inner", "second")
    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    value = network(batch).square().sum()
    for handle in handles:
        handle.remove()
    by_image = np.zeros((len(batch), graph.units))
    for name, gradient in zip(names, torch.autograd.grad(value, [given[name] for name in names]), strict=True):
        products = (gradient * given[name]).detach().reshape(len(batch), -1, gradient.shape[-1]).sum(1).numpy()
        for channel, unit in enumerate(graph.emitted[name]):
            by_image[:, unit] += products[:, channel]
    statistics = collect(network, graph, [batch[:3], batch[3:]], lambda net, rows: net(rows).square().sum())
    assert statistics.images == len(batch)
    assert np.allclose(statistics.taylor, np.abs(by_image).mean(0), rtol=1e-9)  # type: ignore[arg-type]
    assert np.allclose(statistics.fisher, np.square(by_image).mean(0), rtol=1e-9)  # type: ignore[arg-type]


def test_a_batch_gives_what_its_images_give_one_by_one(network: Chain, graph: ChannelGraph) -> None:
    network.double()
    images = torch.rand(5, 3, 16, 16, dtype=torch.double)

    def summed(network: nn.Module, batch: Tensor) -> Tensor:
        return network(batch).square().mean((1, 2, 3)).sum()

    together = collect(network, graph, [images[:2], images[2:]], summed)
    alone = collect(network, graph, images.split(1), summed)
    assert together.images == alone.images == 5
    assert np.allclose(together.taylor, alone.taylor) and np.allclose(together.fisher, alone.fisher)  # type: ignore[arg-type]


def test_places_that_count_more(network: Chain, graph: ChannelGraph) -> None:
    """Weights of one change nothing, weights of two double what a unit gives, and half an image gives less."""
    network.double()
    images = torch.rand(2, 3, 16, 16, dtype=torch.double)

    def summed(network: nn.Module, batch: Tensor) -> Tensor:
        return network(batch).square().sum()

    def taylor(weights: Tensor | None) -> Floats:
        places = None if weights is None else lambda batch: weights
        found = collect(network, graph, [images], summed, places=places).taylor
        assert found is not None
        return found

    plain = taylor(None)
    even = torch.ones(2, 1, 16, 16, dtype=torch.double)
    assert np.allclose(taylor(even), plain) and np.allclose(taylor(2 * even), 2 * plain)
    left = even.clone()
    left[..., 8:] = 0
    assert not np.allclose(taylor(left), plain) and np.allclose(taylor(0 * even), 0)


def test_collecting_leaves_the_network_as_it_was(network: Chain, graph: ChannelGraph) -> None:
    network.train()
    network.stem.conv.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    collect(network, graph, [torch.rand(2, 3, 16, 16)], loss)
    assert network.training and network.stem.bn.training
    assert not network.stem.conv.weight.requires_grad and network.last.weight.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_limit_of_images(network: Chain, graph: ChannelGraph) -> None:
    batches = (torch.rand(1, 3, 16, 16) for _ in range(10))
    assert collect(network, graph, batches, loss, limit=4).images == 4


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_every_criterion_gives_finite_scores(network: Chain, graph: ChannelGraph, name: str) -> None:
    batches = [torch.rand(1, 3, 16, 16)] if needs_gradients(name) else None
    scores = score(name, graph, collect(network, graph, batches, loss))
    assert scores.shape == (graph.units,) and scores.dtype == np.float64
    assert np.isfinite(scores).all() and (scores >= 0).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda graph: score("magic", graph, Statistics({})), "Unknown criterion 'magic'; choose one of fisher, gamma"),
        (lambda graph: score("taylor", graph, Statistics({})), "needs gradients"),
        (lambda graph: score("gamma", graph, Statistics({}), tie="median"), "Choose one of: mean, sum, max, min"),
        (lambda graph: needs_gradients("magic"), "Unknown criterion 'magic'"),
    ],
)
def test_bad_requests(graph: ChannelGraph, call: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        call(graph)  # type: ignore[operator]


def test_broken_gradients_and_missing_batches(network: Chain, graph: ChannelGraph) -> None:
    with pytest.raises(UserError, match="no image"):
        collect(network, graph, [], loss)
    with pytest.raises(UserError, match="finite"):
        collect(network, graph, [torch.full((1, 3, 16, 16), float("nan"))], loss)


def test_a_network_without_a_unit_says_why_before_gradients_are_read() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1))
    with pytest.raises(UserError, match=r"no prunable channels.*softmax in Softmax"):
        collect(network, trace(network), [torch.rand(2, 3, 8, 8)], lambda net, batch: net(batch).square().sum())
