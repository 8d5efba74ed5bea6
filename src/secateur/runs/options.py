"""The options of `secateur run`, from which a recipe becomes a run; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from tyro.conf import arg

from secateur.ranges import COUNT, Advanced
from secateur.runs.fields import BatchSize, Cfg, Classes, Data, Device, ImageSide, Seed, Weights, Workers
from secateur.runs.folders import OutputOptions

ALL_EPOCHS = "(default: those of all trainings of the run and those that the weights say they had)"


@dataclass(frozen=True)
class RunOptions:
    """A recipe in one resumable run: by default prune in rounds, repair, heal, fine-tune, export."""

    data: Data = ""
    weights: Weights = ""
    cfg: Cfg = ""
    recipe: Annotated[str, arg(help="A name from `secateur recipes`, or a YAML file.")] = "best"
    classes: Classes = ()
    image_size: ImageSide = 0
    batch_size: BatchSize = 16
    """Images in a training batch."""
    workers: Workers = 2
    seed: Seed = 0
    device: Device = "auto"
    control: bool = False
    """Add a row to compare with: the dense detector narrowed to the FLOPs of the last row and trained as long."""
    control_epochs: Advanced[
        Annotated[int, arg(help="Epochs of the control.", help_behavior_hint=ALL_EPOCHS), COUNT]
    ] = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Options that replace settings of the recipe, by name (see `resolve.override_options`)."""
    place: OutputOptions = field(default_factory=OutputOptions)
