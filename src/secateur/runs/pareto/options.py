"""The options of `secateur pareto`, and the parser of its budgets. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from secateur.distillation.settings import HealSettings
from secateur.errors import UserError
from secateur.pruning.budget import Budget
from secateur.pruning.costs import COSTS
from secateur.pruning.options import GuardSettings, LatencySettings
from secateur.pruning.settings import RepairSettings, RoundSettings, ScoreSettings
from secateur.ranges import ROUNDS, Advanced, Between
from secateur.runs.fields import BatchSize, Data, Device, ImageSide, Seed, UnlabelledImages, Workers
from secateur.runs.folders import OutputOptions


@dataclass(frozen=True)
class ParetoOptions:
    """Cut one or several networks to several budgets and plot accuracy against milliseconds. Reports dominated points,
    the knee of each curve, and the best network at equal milliseconds.
    """

    weights: tuple[str, ...] = ()
    """Checkpoints of dense networks with the same classes: .safetensors, YOLOv5 .pt, or official names."""
    data: Data = ""
    images: UnlabelledImages = ""
    budgets: tuple[str, ...] = ("0.8", "0.65", "0.5", "0.4", "0.3")
    """Budgets for each network, at least two: shares of the dense network's cost, or absolute values (8ms, 3.2G)."""
    cost: str = "flops"
    """Cost that the budgets limit: {secateur.pruning.costs}. Milliseconds are measured in any case. With ms, cuts use a
    latency table of this machine.
    """
    heal: bool = False
    """Also heal each cut network: minutes of label-free training."""
    finetune: Annotated[int, Between(0, 1_000_000)] = 0
    """Also fine-tune each cut network (after healing, with --heal) for this number of epochs (0: no fine-tuning)."""
    labels: tuple[str, ...] = ()
    """Names of the networks in the table, files and plot (default: the file names)."""
    reference: str = ""
    """JSON or CSV file with additional points for the plot (label, ms, mAP, mAP50), such as a pareto.json."""
    image_size: ImageSide = 0
    batch_size: Advanced[BatchSize] = 16
    """Images per batch of training data (statistics, BatchNorm, fine-tuning)."""
    workers: Workers = 2
    seed: Seed = 0
    device: Device = "auto"
    hyp: Advanced[str] = "finetune"
    """Hyper-parameters of the fine-tuning: scratch-low, scratch-med, scratch-high, finetune, or a YAML file."""
    distill: Advanced[str] = ""
    """Distillation from the dense network during fine-tuning: {secateur.families.yolov5.distillation}, or several
    joined by +.
    """
    timing_rounds: Advanced[Annotated[int, ROUNDS]] = 30
    """Interleaved latency measurements per network."""
    rounds: RoundSettings = field(default_factory=RoundSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    guards: GuardSettings = field(default_factory=GuardSettings)
    repair: Advanced[RepairSettings] = field(default_factory=RepairSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    healing: Advanced[HealSettings] = field(default_factory=HealSettings)
    place: OutputOptions = field(default_factory=OutputOptions)


def budgets_of(texts: Sequence[str], cost: str) -> dict[str, Budget]:
    """Parses the budgets. Returns them by their text, in the given order.

    Raises:
        UserError: the cost is unknown, a text is not a budget, or there are fewer than two budgets or duplicates.
    """
    COSTS[cost]
    words = [word for text in texts for word in text.replace(",", " ").split()]
    if len(words) < 2:
        raise UserError(
            "A curve needs at least two budgets, for example --budgets 0.8 0.6 0.5 0.4. For one budget, use "
            "secateur prune."
        )
    found: dict[str, Budget] = {}
    for word in words:
        budget = _budget(word, cost)
        if budget in found.values():
            raise UserError(f"--budgets contains {word} twice. Give each budget once.")
        found[word] = budget
    return found


def _budget(word: str, cost: str) -> Budget:
    try:
        return Budget.parse(cost, word)
    except UserError as error:
        # Here the budget is given by another option.
        raise UserError(str(error).replace(f"--{cost} {word}", f"--budgets {word}", 1)) from None
