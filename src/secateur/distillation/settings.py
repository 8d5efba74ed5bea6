"""Options of distillation and healing. This file does not import torch, so that the command line starts fast."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from tyro.conf import arg

from secateur.errors import UserError
from secateur.ranges import FACTOR, POSITIVE, SHARE, Advanced, Between, check_ranges, shortened


@dataclass(frozen=True)
class DistillSettings:
    """Distillation: a dense teacher that the student imitates during training.

    Raises:
        UserError: an option is out of range; the message names it.
    """

    distill: str = ""
    """Method: {secateur.families.yolov5.distillation}; or several joined by + (bce+features). Other families than
    YOLOv5 support outputs and features."""
    teacher: str = ""
    """Checkpoint of the teacher (default: the dense detector that the student was cut from)."""
    distill_weight: Advanced[Annotated[float, FACTOR]] = 1.0
    """Factor of the terms that compare outputs."""
    distill_feature_weight: Advanced[Annotated[float, FACTOR]] = 0.1
    """Factor of the feature term, whose value is in 0..4. At 0.1, its gradient is about half that of the detection
    loss."""
    distill_temperature: Advanced[Annotated[float, FACTOR]] = 0.0
    """Temperature of the scores (0: the default of the method: kl 20, softmax 3, bce 1; l2 has none)."""
    distill_warmup: Advanced[Annotated[float, FACTOR]] = 0.0
    """Number of epochs in which the factors rise from 0."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.teacher and not self.distill:
            raise UserError("--teacher needs --distill. Also set a method, for example --distill bce.")
        methods = self.methods
        if self.distill and not all(methods):
            raise UserError(f"--distill {self.distill} contains an empty name. Use, for example, bce+features.")
        if len(set(methods)) < len(methods):
            raise UserError(f"--distill {self.distill} contains a method twice. Name each method once.")

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the given order."""
        return tuple(name.strip() for name in self.distill.split("+")) if self.distill else ()


@dataclass(frozen=True)
class HealSettings:
    """Healing: minutes of training without labels to reproduce the outputs of the whole network."""

    heal_steps: Annotated[int | Literal["auto"], arg(metavar="INT/auto"), POSITIVE] = "auto"
    """Optimizer steps: auto (as long as the loss on held-out images falls, limited by --heal-minutes), or a maximum
    number; training stops earlier when that loss stops falling."""
    heal_minutes: Annotated[float, Between(0, 100_000)] = 10.0
    """Time limit in minutes for --heal-steps auto (0: no limit)."""
    heal_lr: Annotated[float, SHARE] = 0.0
    """Maximum learning rate (AdamW). It rises over ten steps and falls along half a cosine, with --heal-steps auto
    at the end. 0: 0.001, or 0.0003 if the cut is close to its teacher; 0.00003 for Ultralytics."""
    heal_batch: Advanced[Annotated[int, Between(2, 4096, also=0)]] = 0
    """Images per step (0: the default of the family, 16)."""
    heal_features: Advanced[Annotated[float, FACTOR]] = 1.0
    """Factor of the loss on the inputs of the head, which is added to the loss on its outputs (0: outputs only)."""
    heal_norms: Advanced[Literal["auto", "learn", "keep"]] = "auto"
    """Batch norms: learn (use batch statistics and learn new running statistics), keep (keep the statistics), or
    auto: keep if the cut is close to its teacher or the network is one of Ultralytics, otherwise learn."""

    def __post_init__(self) -> None:
        words = self.heal_steps
        if isinstance(words, str) and words != "auto":
            # Recipes store the number of a setting whose default is a word as text.
            if not words.isdecimal() or len(words) > 8:
                raise UserError(f"--heal-steps {shortened(words)} is invalid. Set auto or a number of steps.")
            object.__setattr__(self, "heal_steps", int(words))
        check_ranges(self)
        if self.heal_lr == 1:
            raise UserError(f"--heal-lr {self.heal_lr:g} must be below 1. A typical value is 0.001.")

    def most_steps(self, otherwise: int) -> int:
        """Maximum number of steps; `otherwise` if it is decided during training."""
        return otherwise if isinstance(self.heal_steps, str) else self.heal_steps


@dataclass(frozen=True)
class HealDefaults:
    """Default healing options of a family.

    A start with a low loss is close to its teacher: high rates and new batch statistics would first undo the repair, so
    it is healed at a lower rate with the statistics it has.

    Attributes:
        lr, batch, norms: see `HealSettings`.
        mosaic: share of the images that are mosaics of four.
        near: held-out loss below which a start counts as close; 0: no start does.
        near_lr: learning rate of a close start.
    """

    lr: float = 0.001
    batch: int = 16
    norms: Literal["learn", "keep"] = "learn"
    mosaic: float = 1.0
    near: float = 0.0
    near_lr: float = 0.0003

    def filled(self, settings: HealSettings, loss: float = math.inf) -> HealSettings:
        """The settings with open values filled in.

        Args:
            settings: the options of the user.
            loss: held-out loss of the start.
        """
        close = loss < self.near
        norms = "keep" if close else self.norms
        return replace(
            settings,
            heal_lr=settings.heal_lr or (self.near_lr if close else self.lr),
            heal_batch=settings.heal_batch or self.batch,
            heal_norms=norms if settings.heal_norms == "auto" else settings.heal_norms,
        )
