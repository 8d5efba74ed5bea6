"""`prune` of any network: budgets are met, evidence is measured once, the whole network stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from networks import ConvNorm, enliven
from secateur.errors import UserError
from secateur.pruning.budget import Budget
from secateur.pruning.evidence import LoaderEvidence
from secateur.pruning.prune import prune
from secateur.pruning.repair.repairing import READING
from secateur.pruning.settings import Guards, PruneSettings, RepairSettings, RoundSettings, ScoreSettings

SMALL = {
    "score": ScoreSettings(statistics_images=16),
    "repair": RepairSettings(correction_images=16),
    "guards": Guards(round_to=1),
}


class Classifier(nn.Module):
    """Convolutions with a residual sum, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = ConvNorm(3, 16, 3, 2), ConvNorm(16, 24, 3, 2), ConvNorm(24, 24, 3)
        self.hidden, self.out = nn.Linear(24, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x))
        x = x + self.b(x)
        return self.out(self.hidden(x.mean((2, 3))).relu())


def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(network(batch[0]), batch[1], reduction="none")


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shape = (8, 3, 16, 16)
    return [(torch.rand(shape, generator=generator), torch.randint(4, (8,), generator=generator)) for _ in range(4)]


def accuracy_of(network: nn.Module, whole: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Share of the spread of the whole network's answers that a smaller one explains."""
    with torch.no_grad():
        mine, theirs = (torch.cat([net(x) for x, _ in batches]) for net in (network, whole))
    return 1 - float((mine - theirs).square().sum() / (theirs - theirs.mean(0)).square().sum())


class Counted(LoaderEvidence):
    """Remembers which draws were asked for."""

    draws: list[int]

    def scored(self, network: nn.Module, limit: int, draw: int, *, demanding: bool = True) -> Any:
        self.__dict__.setdefault("draws", []).append(draw)
        return super().scored(network, limit, draw, demanding=demanding)


@pytest.mark.parametrize("rounds", ["auto", "1"])
def test_the_budget_is_met_and_the_whole_network_stays(batches: list[tuple[Tensor, Tensor]], rounds: str) -> None:
    network = enliven(Classifier()).train()
    before = copy.deepcopy(network.state_dict())
    settings = PruneSettings((Budget("flops", 0.5),), rounds=RoundSettings(rounds), **SMALL)
    evidence = Counted(batches, loss)
    result = prune(network, evidence, settings)
    assert result.plan.after.flops <= 0.5 * result.plan.before.flops
    assert sum(p.numel() for p in result.network.parameters()) == result.plan.after.parameters
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items()) and network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    # The moments are measured once, however many rounds there are.
    assert evidence.draws.count(READING) == 1 and len(evidence.draws) >= (12 if rounds == "auto" else 2)
    again = prune(network, LoaderEvidence(batches, loss), settings)
    assert again.plan == result.plan
    for mine, other in zip(result.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_cut_is_repaired_against_the_whole_network(batches: list[tuple[Tensor, Tensor]]) -> None:
    network = enliven(Classifier())
    evidence = LoaderEvidence(batches, loss)
    budgets = (Budget("flops", 0.6),)
    with_repair, without = (
        prune(network, evidence, PruneSettings(budgets, rounds=RoundSettings("1"), score=SMALL["score"], repair=how))
        for how in (RepairSettings(correction_images=32), RepairSettings(correction_images=0, absorb=False))
    )
    assert with_repair.plan == without.plan
    assert accuracy_of(with_repair.network, network, batches) > accuracy_of(without.network, network, batches) + 0.1


def test_norms_are_estimated_anew_on_what_the_loader_shows(batches: list[tuple[Tensor, Tensor]]) -> None:
    network = enliven(Classifier())
    settings = PruneSettings(
        (Budget("flops", 0.6),),
        ScoreSettings(criterion="l2"),
        guards=Guards(round_to=1),
        repair=RepairSettings(norms="reestimate", correction_images=16, correction_share=1.0),
    )
    stem = prune(network, LoaderEvidence(batches, loss), settings).network.stem
    shown = torch.cat([stem.conv(x) for x, _ in batches[:2]])
    assert torch.allclose(stem.bn.running_mean, shown.mean((0, 2, 3)), atol=1e-6)


def test_five_lines_prune_a_network(batches: list[tuple[Tensor, Tensor]]) -> None:
    network = enliven(Classifier())
    evidence = secateur.Evidence(batches=batches, loss=loss)
    small = secateur.prune(network, evidence, flops=0.5, statistics_images=16, correction_images=16, round_to=2)
    assert small.plan.after.flops <= 0.5 * small.plan.before.flops
    assert small.network(batches[0][0]).shape == (8, 4)
    graph = secateur.trace(network, batches[0][0][:1])
    assert secateur.score(network, graph, data=evidence).shape == (graph.units,)


def test_a_loss_may_be_a_mean_or_a_vector(batches: list[tuple[Tensor, Tensor]]) -> None:
    """Batches of one size: a mean is the sum by a factor, so the same units go."""
    network = enliven(Classifier())
    plans = []
    for way in ("none", "sum", "mean"):

        def own(net: nn.Module, batch: Any, way: str = way) -> Tensor:
            return F.cross_entropy(net(batch[0]), batch[1], reduction=way)

        settings = PruneSettings((Budget("params", 0.7),), rounds=RoundSettings("1"), **SMALL)
        plans.append(prune(network, LoaderEvidence(batches, own), settings).plan)
    assert plans[0] == plans[1] == plans[2]


def test_without_a_loss_weights_are_read(batches: list[tuple[Tensor, Tensor]]) -> None:
    network = enliven(Classifier())
    evidence = secateur.Evidence([x for x, _ in batches])
    small = secateur.prune(network, evidence, criterion="l2", params=0.6, round_to=1)
    assert small.plan.after.parameters <= 0.6 * small.plan.before.parameters
    with pytest.raises(UserError, match=r"Gradients need a loss. Pass secateur\.Evidence\(batches, loss=\.\.\.\)"):
        secateur.prune(network, evidence, params=0.6)


def test_a_network_without_norms_says_what_is_repaired(
    batches: list[tuple[Tensor, Tensor]], caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 12, 3, 2), nn.ReLU(), nn.Conv2d(12, 12, 3, 2), nn.Flatten(), nn.Linear(108, 4))
    with caplog.at_level("INFO", logger="secateur"):
        secateur.prune(network, secateur.Evidence(batches, loss), flops=0.6, round_to=1, statistics_images=16)
    assert [r.message for r in caplog.records if "no batch norm" in r.message] == [
        "The network has no batch norms to correct: only layers that lost inputs are reconstructed."
    ]


def once(batches: list[Any]) -> Iterator[Any]:
    yield from batches


def test_what_cannot_be_evidence_is_refused(batches: list[tuple[Tensor, Tensor]]) -> None:
    network = enliven(Classifier())
    with pytest.raises(TypeError, match=r"iterates over its batches several times. Pass a list or a DataLoader"):
        secateur.Evidence(once(batches), loss)
    with pytest.raises(UserError, match="The evidence has no batch"):
        secateur.prune(network, secateur.Evidence([], loss), flops=0.5)
    with pytest.raises(TypeError, match=r"A batch of the evidence is a dict\. Pass inputs="):
        secateur.prune(network, secateur.Evidence([{"x": batches[0][0]}], loss), flops=0.5)
    with pytest.raises(TypeError, match=r"needs a torch\.nn\.Module and does not support images, classes or heal"):
        secateur.prune(network, secateur.Evidence(batches, loss), flops=0.5, heal=True)
    with pytest.raises(UserError, match="Give flops= or params="):
        secateur.prune(network, secateur.Evidence(batches, loss), ms=3)
    named = secateur.Evidence([{"x": x, "y": y} for x, y in batches], lambda net, b: loss(net, (b["x"], b["y"])),
                              inputs=lambda batch: batch["x"])  # fmt: skip
    assert secateur.prune(network, named, flops=0.6, rounds=2, round_to=1).plan.units_kept
