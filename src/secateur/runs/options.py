"""The options of `secateur run`, from which a recipe becomes a run; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secateur.runs.folders import Place


@dataclass(frozen=True)
class RunOptions:
    """A recipe in one resumable run.

    Attributes:
        overrides: options that replace settings of the recipe, by name (see `resolve.override_options`).
        control: also train a narrow dense detector to compare the result with.
        control_epochs: for how long; 0 is as long as all trainings of the detector together.
    """

    data: str = ""
    weights: str = ""
    cfg: str = ""
    recipe: str = "best"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    control: bool = False
    control_epochs: int = 0
    image_size: int = 0
    batch_size: int = 16
    workers: int = 2
    seed: int = 0
    device: str = "auto"
    place: Place = field(default_factory=Place)
