"""The options of `secateur pareto`, and how its list of budgets is read; imports no torch."""

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
    """Cut one or several networks to several budgets and show accuracy against milliseconds: which points are
    dominated, where the knee is, and which network wins at equal milliseconds."""

    weights: tuple[str, ...] = ()
    """Checkpoints of dense networks for the same classes: .safetensors, YOLOv5 .pt, or official names."""
    data: Data = ""
    images: UnlabelledImages = ""
    budgets: tuple[str, ...] = ("0.8", "0.65", "0.5", "0.4", "0.3")
    """Budgets of each network, at least two: shares of what its dense network costs, or amounts (8ms, 3.2G)."""
    cost: str = "flops"
    """What the budgets limit: {secateur.pruning.costs}. The milliseconds of all points are measured in any case; with
    ms the cuts follow a latency table of this machine."""
    heal: bool = False
    """Also heal each cut network: minutes of training without labels."""
    finetune: Annotated[int, Between(0, 1_000_000)] = 0
    """Also fine-tune each cut (and healed) network for this many epochs (0: none)."""
    labels: tuple[str, ...] = ()
    """Names of the networks in the table, files and plot (default: those of the files)."""
    reference: str = ""
    """JSON or CSV of further points for the plot (label, ms, mAP, mAP50); a pareto.json is one."""
    image_size: ImageSide = 0
    batch_size: Advanced[BatchSize] = 16
    """Images in a batch of training data (statistics, BatchNorm, fine-tuning)."""
    workers: Workers = 2
    seed: Seed = 0
    device: Device = "auto"
    hyp: Advanced[str] = "finetune"
    """Hyper-parameters of the fine-tuning: scratch-low, scratch-med, scratch-high, finetune, or a YAML file."""
    distill: Advanced[str] = ""
    """What the fine-tuning imitates of the dense network: {secateur.families.yolov5.distillation}, or several joined
    by +."""
    timing_rounds: Advanced[Annotated[int, ROUNDS]] = 30
    """Measurements of the milliseconds of each network, in turns."""
    rounds: RoundSettings = field(default_factory=RoundSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    guards: GuardSettings = field(default_factory=GuardSettings)
    repair: Advanced[RepairSettings] = field(default_factory=RepairSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    healing: Advanced[HealSettings] = field(default_factory=HealSettings)
    place: OutputOptions = field(default_factory=OutputOptions)


def budgets_of(texts: Sequence[str], cost: str) -> dict[str, Budget]:
    """The budgets by their texts, in the order given.

    Raises:
        UserError: an unknown cost, a text that is no budget, fewer than two of them, or one that is given twice.
    """
    COSTS[cost]
    words = [word for text in texts for word in text.replace(",", " ").split()]
    if len(words) < 2:
        raise UserError(
            "A curve needs at least two budgets: write for example --budgets 0.8 0.6 0.5 0.4; for one budget take "
            "secateur prune."
        )
    found: dict[str, Budget] = {}
    for word in words:
        budget = _budget(word, cost)
        if budget in found.values():
            raise UserError(f"--budgets names {word} twice; give every budget once.")
        found[word] = budget
    return found


def _budget(word: str, cost: str) -> Budget:
    try:
        return Budget.parse(cost, word)
    except UserError as error:
        # The budget is given by another option here.
        raise UserError(str(error).replace(f"--{cost} {word}", f"--budgets {word}", 1)) from None
