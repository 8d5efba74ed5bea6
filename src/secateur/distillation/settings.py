"""The options of distillation; imports no torch, so the command line can read it fast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from tyro.conf import arg

from secateur.errors import UserError
from secateur.ranges import FACTOR, POSITIVE, SHARE, Advanced, Between, check_ranges, shortened


@dataclass(frozen=True)
class DistillSettings:
    """A dense teacher that the student imitates while it trains.

    Raises:
        UserError: an option out of its range, named.
    """

    distill: str = ""
    """What is imitated: {secateur.families.yolov5.distillation}; or several joined by + (bce+features). Networks of
    other families than YOLOv5: outputs, features."""
    teacher: str = ""
    """Checkpoint of the teacher (default: the dense detector that the student was cut from)."""
    distill_weight: Advanced[Annotated[float, FACTOR]] = 1.0
    """Factor of the output terms."""
    distill_feature_weight: Advanced[Annotated[float, FACTOR]] = 0.1
    """Factor of the feature term, whose value is in 0..4; at 0.1 its gradient is about half that of the detection
    loss."""
    distill_temperature: Advanced[Annotated[float, FACTOR]] = 0.0
    """Temperature of the scores; 0: that of the method (kl 20, softmax 3, bce 1; l2 has none)."""
    distill_warmup: Advanced[Annotated[float, FACTOR]] = 0.0
    """Epochs over which the factors rise from 0."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.teacher and not self.distill:
            raise UserError("--teacher needs --distill, which says what is imitated, for example --distill bce.")
        methods = self.methods
        if self.distill and not all(methods):
            raise UserError(f"--distill {self.distill} has an empty name in it; write for example bce+features.")
        if len(set(methods)) < len(methods):
            raise UserError(f"--distill {self.distill} names a method twice; name each one once.")

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order given."""
        return tuple(name.strip() for name in self.distill.split("+")) if self.distill else ()


@dataclass(frozen=True)
class HealSettings:
    """Minutes of training without labels that teach a cut detector the outputs of the whole one."""

    heal_steps: Annotated[int | Literal["auto"], arg(metavar="INT/auto"), POSITIVE] = "auto"
    """Optimizer steps: auto (as long as the loss on held-out images falls, and --heal-minutes at most), or a number: so
    many at most; it stops earlier when that loss no longer falls."""
    heal_minutes: Annotated[float, Between(0, 100_000)] = 10.0
    """Minutes that --heal-steps auto takes at most (0: no limit)."""
    heal_lr: Annotated[float, SHARE] = 0.0
    """Highest learning rate (AdamW); it rises over ten steps and falls as half a cosine, with --heal-steps auto at the
    end. 0: that of the family, 0.001, for Ultralytics 0.00003."""
    heal_batch: Advanced[Annotated[int, Between(2, 4096, also=0)]] = 0
    """Images per step; 0: as the family wants it, 16."""
    heal_features: Advanced[Annotated[float, FACTOR]] = 1.0
    """Factor of the loss on the channels that feed the head, added to that on the head's outputs (0: outputs only)."""
    heal_norms: Advanced[Literal["auto", "learn", "keep"]] = "auto"
    """Batch norms take the statistics of the batches and learn them anew (learn), keep those that they have (keep), or
    as the family wants it (auto): learn, for Ultralytics keep."""

    def __post_init__(self) -> None:
        words = self.heal_steps
        if isinstance(words, str) and words != "auto":
            # Recipes hold the number of a setting whose default is a word as text.
            if not words.isdecimal() or len(words) > 8:
                raise UserError(f"--heal-steps {shortened(words)} is neither auto nor a number of steps.")
            object.__setattr__(self, "heal_steps", int(words))
        check_ranges(self)
        if self.heal_lr == 1:
            raise UserError(f"--heal-lr {self.heal_lr:g} is not below 1; 0.001 is usual.")

    def most_steps(self, otherwise: int) -> int:
        """Steps at most; where they are decided on the way `otherwise`."""
        return otherwise if isinstance(self.heal_steps, str) else self.heal_steps


@dataclass(frozen=True)
class HealDefaults:
    """What a family heals with where the user says nothing.

    Attributes:
        lr, batch, norms: see `HealSettings`.
        mosaic: share of the images that are mosaics of four.
    """

    lr: float = 0.001
    batch: int = 16
    norms: Literal["learn", "keep"] = "learn"
    mosaic: float = 1.0

    def filled(self, settings: HealSettings) -> HealSettings:
        """The settings with what the user left open."""
        return replace(
            settings,
            heal_lr=settings.heal_lr or self.lr,
            heal_batch=settings.heal_batch or self.batch,
            heal_norms=self.norms if settings.heal_norms == "auto" else settings.heal_norms,
        )
