"""The options of `secateur sweep`, and the parser of its ratios. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated

from secateur.errors import UserError
from secateur.pruning.options import GuardSettings
from secateur.pruning.settings import ScoreSettings
from secateur.ranges import Advanced, Between
from secateur.runs.fields import BatchSize, Data, Device, ImageSide, Seed, Weights, Workers
from secateur.runs.folders import OutputOptions


@dataclass(frozen=True)
class SweepOptions:
    """Tabulate accuracy and cost against the share of removed channels, to find the cliff."""

    weights: Weights = ""
    data: Data = ""
    percent: str = "0.1,0.2,0.3,0.4,0.5"
    """Shares of the prunable channels to remove, between 0 and 1, separated by commas."""
    image_size: ImageSide = 0
    batch_size: Advanced[BatchSize] = 16
    """Images per batch of training data (statistics, BatchNorm, fine-tuning)."""
    workers: Workers = 2
    seed: Seed = 0
    device: Device = "auto"
    cut: bool = False
    """Also evaluate the detector after the actual cut, and report whether it equals the masked one."""
    repair: bool = False
    """Repair the cut detector before its evaluation, as `secateur prune` does. Implies --cut."""
    finetune_epochs: Annotated[int, Between(0, 1_000_000)] = 0
    """Also fine-tune every cut and repaired detector for this number of epochs (0: no fine-tuning)."""
    hyp: Advanced[str] = "finetune"
    """Hyper-parameters of the fine-tuning: scratch-low, scratch-med, scratch-high, finetune, or a YAML file."""
    score: ScoreSettings = field(default_factory=ScoreSettings)
    guards: GuardSettings = field(default_factory=GuardSettings)
    place: OutputOptions = field(default_factory=OutputOptions)


def ratios_of(percent: str | float | Iterable[float]) -> tuple[float, ...]:
    """The ratios of a sweep in ascending order, from "0.1,0.2", "10%, 20%", one number or several.

    Raises:
        UserError: there are no ratios, a ratio is not between 0 and 1, or a ratio is given twice.
    """
    if isinstance(percent, str):
        words = [word for word in percent.replace(",", " ").split() if word]
    else:
        words = [str(value) for value in ([percent] if isinstance(percent, int | float) else percent)]
    if not words:
        raise UserError("--percent is empty. List the shares of channels to remove, for example --percent 0.1,0.2,0.3.")
    ratios = sorted(_ratio(word) for word in words)
    twice = next((a for a, b in pairwise(ratios) if a == b), None)
    if twice is not None:
        raise UserError(f"--percent contains {twice:g} twice. Give each share once.")
    return tuple(ratios)


def _ratio(word: str) -> float:
    """One share of --percent."""
    try:
        value = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise UserError(f"--percent {word} is not a share between 0 and 1. Write, for example, --percent 0.1,0.2,0.3.")
    return value
