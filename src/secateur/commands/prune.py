"""`secateur prune`: removes layers, cuts channels, or zeroes weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from secateur.commands import Summary, command
from secateur.distillation.settings import HealSettings
from secateur.errors import UserError
from secateur.pruning.costs import COSTS
from secateur.pruning.options import ChannelSettings, GuardSettings, LatencySettings, no_budgets
from secateur.pruning.settings import (
    CliffSettings,
    LayerSettings,
    RepairSettings,
    RoundSettings,
    ScoreSettings,
    SearchSettings,
)
from secateur.ranges import Advanced
from secateur.runs.fields import BatchSize, Classes, Data, Device, ImageSide, Seed, UnlabelledImages, Weights, Workers
from secateur.runs.folders import OutputOptions, require
from secateur.sparsity.settings import OneShotSettings
from secateur.steps.heal import Heal
from secateur.steps.prune import Prune
from secateur.steps.remove_layers import RemoveLayers
from secateur.steps.step import Step
from secateur.steps.zero_weights import ZeroWeights


@dataclass(frozen=True)
class PruneOptions:
    """Make a detector smaller: a budget cuts channels and bottlenecks, --layers removes a number of bottlenecks,
    --unstructured zeroes weights. --heal adds minutes of label-free training.
    """

    weights: Weights = ""
    data: Data = ""
    images: UnlabelledImages = ""
    classes: Classes = ()
    image_size: ImageSide = 0
    batch_size: Advanced[BatchSize] = 16
    """Batch size for training images (statistics, BatchNorm)."""
    workers: Workers = 2
    seed: Seed = 0
    device: Device = "auto"
    budget: Any = field(default_factory=no_budgets)
    what_if: bool = False
    """Only predict the cost and accuracy loss of the budgets, and the smallest reachable cost. Takes up to a minute."""
    heal: bool = False
    """After the cut, train for minutes without labels to reproduce the dense detector's outputs."""
    rounds: RoundSettings = field(default_factory=RoundSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    guards: GuardSettings = field(default_factory=GuardSettings)
    repair: Advanced[RepairSettings] = field(default_factory=RepairSettings)
    layers: LayerSettings = field(default_factory=LayerSettings)
    one_shot: OneShotSettings = field(default_factory=OneShotSettings)
    search: Advanced[SearchSettings] = field(default_factory=SearchSettings)
    latency: Advanced[LatencySettings] = field(default_factory=LatencySettings)
    cliff: Advanced[CliffSettings] = field(default_factory=CliffSettings)
    healing: Advanced[HealSettings] = field(default_factory=HealSettings)
    place: OutputOptions = field(default_factory=OutputOptions)


@command(
    "prune",
    "cut channels to fit a budget, remove layers, or zero weights; repairs and evaluates",
    lambda: PruneOptions,
    order=50,
    continues=True,
)
def prune(options: PruneOptions) -> Summary:
    """Prunes one checkpoint. --data is optional if no step reads images; the result is then not evaluated."""
    from secateur.runs.prune_run import prune_checkpoint

    require(options.weights, "--weights", "best.pt")
    _refuse_contradictions(options)
    if options.what_if:
        from secateur.runs.what_if import show_forecast

        return show_forecast(options, _channels(options))
    return prune_checkpoint("prune", options, lambda checkpoint: _steps(options))


def _refuse_contradictions(options: PruneOptions) -> None:
    """Checks the options for contradictions before any file is read.

    Raises:
        UserError: no option removes anything, or options contradict each other.
    """
    budgets, layers, search = ChannelSettings(options.budget).budgets, options.layers, options.search.search
    costs = ", ".join(f"--{name}" for name in COSTS)
    if options.one_shot.unstructured:
        given = {"layers": layers.layers, "search": search, "heal": options.heal}
        other = [f"--{name}" for name, value in given.items() if value]
        if budgets or other:
            words = ", ".join([costs, *other])
            raise UserError(
                f"--unstructured zeroes weights and cuts no channels or layers. Remove {words}, or run a second "
                "command for them."
            )
    elif not budgets and not layers.layers and not options.classes:
        examples = ", ".join(f"--{kind.name} {kind.example}" for kind in COSTS.values())
        raise UserError(
            f"No budget is given. Set {examples} (if several are set, all are met), "
            "--layers 2, --unstructured 0.3 or --classes person."
        )
    elif options.what_if and not budgets:
        raise UserError(f"--what-if predicts the result of a budget. Add one of {costs}.")
    elif options.heal and not budgets and not layers.layers:
        raise UserError("--heal trains a detector after it was cut. Add a budget, such as --flops 0.5.")
    if search and not budgets:
        raise UserError(f"--search needs a budget. Add one of {costs}.")
    if layers.chains and not layers.layers:
        raise UserError("--chains makes --layers count whole chains. Add --layers 1.")


def _steps(options: PruneOptions) -> list[Step]:
    """The steps for the given options. --round-to auto may benchmark the machine for half a minute."""
    if options.one_shot.unstructured:
        return [ZeroWeights(dataclasses.replace(options.one_shot, exclude=options.guards.exclude))]
    steps: list[Step] = [RemoveLayers(options.layers, options.repair)] if options.layers.layers else []
    steps += [Prune(_channels(options))] if ChannelSettings(options.budget).budgets else []
    return [*steps, Heal(options.healing)] if options.heal else steps


def _channels(options: PruneOptions) -> ChannelSettings:
    """The settings of the cut. --round-to auto may benchmark the machine."""
    channels = ChannelSettings(
        options.budget,
        options.score,
        options.rounds,
        repair=options.repair,
        cliff=options.cliff,
        search=options.search,
        latency=options.latency,
    )
    return _guarded(channels, options.guards)


def _guarded(channels: ChannelSettings, guards: GuardSettings) -> ChannelSettings:
    """The settings with the guards. --round-to auto is resolved to a number."""
    from secateur.deploy.speed.rounding import decided_guards

    milliseconds = any(budget.cost == "ms" for budget in channels.budgets)
    return dataclasses.replace(channels, guards=decided_guards(guards, channels.latency, milliseconds=milliseconds))
