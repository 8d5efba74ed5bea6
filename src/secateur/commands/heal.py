"""`secateur heal`: trains a cut detector without labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from secateur.commands import Summary, command
from secateur.distillation.settings import HealSettings
from secateur.ranges import Advanced
from secateur.runs.fields import BatchSize, Data, Device, ImageSide, Seed, UnlabelledImages, Weights, Workers
from secateur.runs.folders import OutputOptions, require
from secateur.steps.heal import Heal


@dataclass(frozen=True)
class HealOptions:
    """Train a cut detector for minutes, without labels, to reproduce the outputs of the dense detector."""

    weights: Weights = ""
    teacher: str = ""
    """Checkpoint of the dense detector (default: the one recorded in the checkpoint's history)."""
    images: UnlabelledImages = ""
    data: Data = ""
    image_size: ImageSide = 0
    batch_size: Advanced[BatchSize] = 16
    """Batch size for evaluation on held-out images."""
    workers: Workers = 2
    seed: Seed = 0
    device: Device = "auto"
    healing: HealSettings = field(default_factory=HealSettings)
    place: OutputOptions = field(default_factory=OutputOptions)


@command(
    "heal",
    "train a cut detector for minutes, without labels, to reproduce the dense detector's outputs",
    lambda: HealOptions,
    order=55,
    continues=True,
)
def heal(options: HealOptions) -> Summary:
    """Heals one checkpoint in a resumable folder. With --data, both detectors are evaluated."""
    from secateur.checkpoints.heal import UNLABELLED
    from secateur.families.teacher import teacher_file
    from secateur.networks.checkpoint import Checkpoint
    from secateur.runs.prune_run import prune_checkpoint

    def steps(checkpoint: Checkpoint) -> list[Heal]:
        return [Heal(options.healing, options.teacher or teacher_file(checkpoint))]

    require(options.weights, "--weights", "pruned.safetensors")
    return prune_checkpoint("heal", options, steps, otherwise=UNLABELLED)
