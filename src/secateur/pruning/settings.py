"""The options of pruning, one dataclass for each part of it; imports no torch, so the command line reads it fast."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from secateur.errors import UserError
from secateur.pruning.budget import Budget
from secateur.ranges import COUNT, PIXELS, POSITIVE, SHARE, Advanced, Between, check_ranges, shortened
from secateur.sizes import ImageSize

Tie = Literal["mean", "sum", "max", "min"]
PerSaving = Literal["auto", "always", "never"]
Norms = Literal["paired", "reestimate"]
PROTECTED: Mapping[str, tuple[float, float]] = {"small": (0, 32), "medium": (32, 96), "large": (96, math.inf)}
"""Objects by the root of the area of their box in pixels of the original image, as COCO divides them."""
SEARCHES = ("eagleeye",)
MOST_ROUNDS = Between(1, 1000)
ROUND_TO = 8
"""Widths are multiples of it where nothing else is said: what CPUs with AVX2 or NEON and GPUs like."""
FORMER_NAMES: Mapping[str, str] = {"recalibrate": "correction_images", "recalibrate_share": "correction_share"}
"""Options of 0.2 under their present names; the command line, recipes and Python understand both for one version."""


def under_present_options(options: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The options under the names that they have now, where those are among the known ones.

    Raises:
        UserError: one is given under both names.
    """
    former = {name: FORMER_NAMES[name] for name in options if FORMER_NAMES.get(name) in known}
    for name, present in former.items():
        if present in options:
            raise UserError(f"{name} is the former name of {present}; give only {present}.")
    return {former.get(name, name): value for name, value in options.items()}


@dataclass(frozen=True)
class Guards:
    """Limits that every budget respects. They hold for each layer of a group of tied channels.

    Attributes:
        min_share: no group of tied channels keeps less than this share of its width.
        min_count: no layer keeps fewer channels.
        round_to: kept widths are multiples of it; 0 is 8, or with a latency table its block. A layer that keeps all its
            channels keeps their number.
        exclude: patterns of layers that keep all channels.
    """

    min_share: Annotated[float, SHARE] = 0.05
    min_count: Annotated[int, POSITIVE] = 1
    round_to: Annotated[int, Between(0, 4096)] = 0
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_ranges(self)

    def for_block(self, block: int) -> Guards:
        """The same with a rounding in place of 0: to the block of a latency table, or where there is none (0) to 8."""
        return self if self.round_to else replace(self, round_to=block or ROUND_TO)

    def __str__(self) -> str:
        return (
            f"minimum share {self.min_share:g}, minimum count {self.min_count}, rounding to {self.round_to or ROUND_TO}"
            f"{', some layers excluded' if self.exclude else ''}"
        )


@dataclass(frozen=True)
class ScoreSettings:
    """How much a channel matters."""

    criterion: str = "fisher"
    """Importance of a channel: {secateur.pruning.criteria}."""
    tie: Advanced[Tie] = "mean"
    """Score of channels that are tied by residual sums: mean, sum, max (a channel stays if any of its layers needs it,
    as in SlimYOLOv3) or min (only if all need it)."""
    per_saving: Advanced[PerSaving] = "auto"
    """Divide scores by the cost that removing the channel saves: always, never, or auto (where the
    criterion is a change of the loss: taylor and fisher)."""
    statistics_images: Advanced[Annotated[int, POSITIVE]] = 256
    """Training images that gradient criteria read (in rounds half as many, different ones in each round)."""
    protect: str = ""
    """Objects that count more in the scores: small (under 32 px, as COCO counts), medium, large, or below a number of
    pixels."""

    def __post_init__(self) -> None:
        check_ranges(self)
        _ = self.protected

    @property
    def protected(self) -> tuple[float, float] | None:
        """Least side and side that is too large of the objects to protect, in pixels of the original image (the root of
        the area of their box); None where no object is.

        Raises:
            UserError: it is neither a word nor a number of pixels.
        """
        if not self.protect:
            return None
        if self.protect in PROTECTED:
            return PROTECTED[self.protect]
        pixels = self.protect.removesuffix("px").strip()
        if not pixels.isdecimal() or int(pixels) not in PIXELS or not int(pixels):
            words = ", ".join(PROTECTED)
            raise UserError(f"--protect {shortened(self.protect)} is none of {words} and no number of pixels.")
        return 0.0, float(pixels)


@dataclass(frozen=True)
class RoundSettings:
    """How often the remaining channels are scored again."""

    rounds: str = "auto"
    """Rounds of scoring, cutting and correcting: auto (about 5 % of the present cost each), or a number; 1 scores
    once."""
    depth: Advanced[bool] = True
    """In rounds, also remove whole bottlenecks where that loses less accuracy for the cost it saves than channels
    do."""

    def __post_init__(self) -> None:
        number = int(self.rounds) if self.rounds.isdecimal() and len(self.rounds) < 6 else 0
        if self.rounds != "auto" and number not in MOST_ROUNDS:
            raise UserError(
                f"--rounds {shortened(self.rounds)} is neither auto nor a number; it must be {MOST_ROUNDS}."
            )

    @property
    def step(self) -> float:
        """Share of the present cost that a round removes."""
        return 0.05


@dataclass(frozen=True)
class RepairSettings:
    """How a cut is repaired, without labels."""

    norms: Norms = "paired"
    """BatchNorm statistics after a cut: paired (moved by what the cut changed, measured on the same images in the whole
    network) or reestimate (towards those of augmented images, as EagleEye does)."""
    correction_images: Annotated[int, COUNT] = 256
    """Unlabelled training images that batch-norm statistics are corrected on (0: none; between rounds half as many)."""
    correction_share: Annotated[float, SHARE] = 0.5
    """How far the statistics move: 1 is all the way, as in EagleEye; half way is safer."""
    reconstruct: bool = True
    """With --norms paired: layers that lost inputs get the weights whose outputs come closest to the former ones,
    given the inputs that are left."""
    absorb: bool = True
    """With --norms reestimate, or without images: move the constants of removed channels into the layers that read
    them."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.correction_share == 0:
            raise UserError(f"--correction-share is {self.correction_share:g}; it must be over 0 and at most 1.")


@dataclass(frozen=True)
class CliffSettings:
    """The curve of accuracy against the share of removed channels."""

    cliff: bool = True
    """Measure the accuracy of the cut network at a ladder of ratios, before any repair and after it."""
    cliff_images: Annotated[int, COUNT] = 64
    """Validation images used for the cliff curve (0: all)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class SearchSettings:
    """Widths by evaluation instead of one global threshold."""

    search: str = ""
    """eagleeye: search the widths of all layers by evaluation instead of one global threshold."""
    candidates: Annotated[int, Between(1, 100_000)] = 60
    """Allocations that the search evaluates, the global threshold's among them."""
    search_images: Annotated[int, COUNT] = 64
    """Training images on which the search ranks allocations, so that validation stays unseen (0: all)."""
    tolerance: Annotated[float, SHARE] = 0.02
    """Share of the dense model's cost by which an allocation of the search may miss the budget."""

    def __post_init__(self) -> None:
        if self.search not in ("", *SEARCHES):
            raise UserError(f"--search {self.search} is unknown; choose {' or '.join(SEARCHES)}, or leave it out.")
        check_ranges(self)
        if self.tolerance in (0, 1):
            raise UserError(f"--tolerance {self.tolerance:g} is not between 0 and 1; 0.02 is usual.")


@dataclass(frozen=True)
class LayerSettings:
    """Which blocks are removed."""

    layers: Annotated[int, Between(0, 10_000)] = 0
    """Bottlenecks to remove, lowest score first, before any channels."""
    layer_score: Advanced[str] = "contribution"
    """Score of a bottleneck x + F(x): {secateur.pruning.layer_scores}. contribution is ||F(x)|| / ||x + F(x)|| on
    training images, taylor the change of the loss on labelled ones; the others read the last convolution."""
    layer_images: Advanced[Annotated[int, POSITIVE]] = 256
    """Training images that the score of a bottleneck reads, if it reads any."""
    any_layer: Advanced[bool] = False
    """Also consider bottlenecks without a shortcut if input and output widths match. Removing one costs more
    accuracy."""
    min_bottlenecks: Advanced[Annotated[int, Between(0, 10_000)]] = 0
    """Fewest bottlenecks that a chain keeps (0: it may vanish)."""
    chains: Advanced[bool] = False
    """Remove whole chains: --layers counts chains, and all bottlenecks of a chain go together."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.chains and self.min_bottlenecks:
            raise UserError("--chains removes whole chains, so --min-bottlenecks must be 0 with it.")


@dataclass(frozen=True)
class PruneSettings:
    """What is to be reached, and how.

    Attributes:
        budgets: all are met; the first one decides what a unit saves.
        image_size: px at which costs are counted; None: what was traced.
        seed: of the criterion `random` and of the search.
        repetition: number of this pruning, and how many of them approach the budgets by equal factors.
    """

    budgets: tuple[Budget, ...]
    score: ScoreSettings = field(default_factory=ScoreSettings)
    rounds: RoundSettings = field(default_factory=RoundSettings)
    guards: Guards = field(default_factory=Guards)
    repair: RepairSettings = field(default_factory=RepairSettings)
    image_size: ImageSize | None = None
    seed: int = 0
    repetition: tuple[int, int] = (1, 1)
    search: SearchSettings = field(default_factory=SearchSettings)
    cliff: CliffSettings = field(default_factory=CliffSettings)
