"""Pruning of any network with user-supplied evidence: batches and a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from secateur.api.arguments import Size, size_of
from secateur.api.options import settings_of
from secateur.deploy.speed.rounding import decided_guards
from secateur.errors import UserError
from secateur.pruning.evidence import LoaderEvidence
from secateur.pruning.options import ChannelSettings, GuardSettings, LatencySettings, budget_options
from secateur.pruning.prune import Pruned, prune
from secateur.pruning.settings import PruneSettings, RepairSettings, RoundSettings, ScoreSettings

Network = TypeVar("Network", bound=nn.Module)


def prune_any(
    function: Callable[..., Any],
    network: Network,
    evidence: LoaderEvidence,
    image_size: Size,
    seed: int,
    options: dict[str, Any],
) -> Pruned[Network]:
    """Prunes the network and returns it with its plan and its graph.

    Args:
        function: the API function, for error messages.
        network: any network.
        evidence: batches and a loss.
        image_size: px at which FLOPs are counted, or (height, width); 0 uses the size of the evidence.
        seed: random seed.
        options: budgets by name, and the fields of the settings of scores, rounds, guards and repair.

    Raises:
        UserError: there is no budget, it is in milliseconds or a file size, or see `pruning.prune.prune`.
    """
    kinds = (budget_options(), ScoreSettings, RoundSettings, GuardSettings, RepairSettings)
    budget, scoring, rounds, guards, repair = settings_of(function, options, *kinds)
    settings = ChannelSettings(budget, scoring, rounds, decided_guards(guards, LatencySettings()), repair)
    settings.check()
    if any(entry.cost in ("ms", "size") for entry in settings.budgets):
        raise UserError("Budgets in milliseconds or file size are not supported with Evidence. Give flops= or params=.")
    size = size_of(function, image_size) or None
    wanted = PruneSettings(tuple(settings.budgets), scoring, rounds, settings.guards, repair, size, seed)
    return prune(network, evidence, wanted)
