"""Options of pruning, one dataclass per part. This file does not import torch, so that the command line starts fast."""

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
"""Size classes by the square root of the box area, in pixels of the original image, as defined by COCO."""
SEARCHES = ("eagleeye",)
MOST_ROUNDS = Between(1, 1000)
ROUND_TO = 8
"""Default multiple for widths: suits CPUs with AVX2 or NEON, and GPUs."""
FORMER_NAMES: Mapping[str, str] = {"recalibrate": "correction_images", "recalibrate_share": "correction_share"}
"""Options of version 0.2 and their new names; the command line, recipes and Python accept both for one version."""


def under_present_options(options: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The options under their current names, for names in `known`.

    Raises:
        UserError: an option is given under both names.
    """
    former = {name: FORMER_NAMES[name] for name in options if FORMER_NAMES.get(name) in known}
    for name, present in former.items():
        if present in options:
            raise UserError(f"{name} is the former name of {present}. Set only {present}.")
    return {former.get(name, name): value for name, value in options.items()}


@dataclass(frozen=True)
class Guards:
    """Limits for every budget. They apply to each layer of a group of tied channels.

    Attributes:
        min_share: minimum share of the channels that every group of tied channels keeps.
        min_count: minimum number of channels that every layer keeps.
        round_to: kept widths are multiples of it; 0: 8, or the block of the latency table. Layers that keep all
            channels are not rounded.
        exclude: patterns of layers that keep all channels.
    """

    min_share: Annotated[float, SHARE] = 0.05
    min_count: Annotated[int, POSITIVE] = 1
    round_to: Annotated[int, Between(0, 4096)] = 0
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_ranges(self)

    def for_block(self, block: int) -> Guards:
        """The guards with a `round_to` of 0 replaced by the block of a latency table, or by 8 if there is none (0)."""
        return self if self.round_to else replace(self, round_to=block or ROUND_TO)

    def __str__(self) -> str:
        return (
            f"minimum share {self.min_share:g}, minimum count {self.min_count}, rounding to {self.round_to or ROUND_TO}"
            f"{', some layers excluded' if self.exclude else ''}"
        )


@dataclass(frozen=True)
class ScoreSettings:
    """Importance of channels."""

    criterion: str = "fisher"
    """Criterion that scores the channels: {secateur.pruning.criteria}."""
    tie: Advanced[Tie] = "mean"
    """How to combine the scores of channels tied by residual sums: mean, sum, max (keep a channel if any of its
    layers needs it, as in SlimYOLOv3) or min (only if all need it)."""
    per_saving: Advanced[PerSaving] = "auto"
    """Divide scores by the cost that removing the channel saves: always, never, or auto (for criteria that estimate
    a change of the loss: taylor and fisher)."""
    statistics_images: Advanced[Annotated[int, POSITIVE]] = 256
    """Number of training images for gradient criteria (in rounds, half as many, and different ones in each round)."""
    protect: str = ""
    """Give more weight to objects of this size: small (under 32 px, as in COCO), medium, large, or smaller than a
    number of pixels."""

    def __post_init__(self) -> None:
        check_ranges(self)
        _ = self.protected

    @property
    def protected(self) -> tuple[float, float] | None:
        """Lower bound (inclusive) and upper bound (exclusive) of the square root of the box area, in pixels of the
        original image; None if no objects are protected.

        Raises:
            UserError: the value is neither a size class nor a number of pixels.
        """
        if not self.protect:
            return None
        if self.protect in PROTECTED:
            return PROTECTED[self.protect]
        pixels = self.protect.removesuffix("px").strip()
        if not pixels.isdecimal() or int(pixels) not in PIXELS or not int(pixels):
            words = ", ".join(PROTECTED)
            raise UserError(f"--protect {shortened(self.protect)} is invalid. Use {words} or a number of pixels.")
        return 0.0, float(pixels)


@dataclass(frozen=True)
class RoundSettings:
    """Repeated scoring of the remaining channels."""

    rounds: str = "auto"
    """Rounds of scoring, cutting and correcting: auto (5 % of the cost each) or a number; 1 scores once."""
    depth: Advanced[bool] = True
    """In rounds, also remove whole bottlenecks if this costs less accuracy per saving than removing channels."""

    def __post_init__(self) -> None:
        number = int(self.rounds) if self.rounds.isdecimal() and len(self.rounds) < 6 else 0
        if self.rounds != "auto" and number not in MOST_ROUNDS:
            raise UserError(f"--rounds {shortened(self.rounds)} is invalid. Set auto or {MOST_ROUNDS}.")

    @property
    def step(self) -> float:
        """Share of the current cost that a round removes."""
        return 0.05


@dataclass(frozen=True)
class RepairSettings:
    """Repair of a cut, without labels."""

    norms: Norms = "paired"
    """Update of batch-norm statistics after a cut: paired (adjust by what the cut changed, measured on the same
    images in the whole network) or reestimate (replace by those of augmented images, as in EagleEye)."""
    correction_images: Annotated[int, COUNT] = 256
    """Unlabelled training images used to correct batch-norm statistics (0: no correction; half as many between
    rounds)."""
    correction_share: Annotated[float, SHARE] = 0.5
    """How far the statistics move towards the measured values: 1 is all the way, as in EagleEye; 0.5 is safer."""
    reconstruct: bool = True
    """With --norms paired: compute new weights for layers that lost inputs, such that their outputs change least."""
    absorb: bool = True
    """With --norms reestimate, or without images: move the constant outputs of removed channels into the layers that
    read them."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.correction_share == 0:
            raise UserError(
                f"--correction-share is {self.correction_share:g}; it must be greater than 0 and at most 1."
            )


@dataclass(frozen=True)
class CliffSettings:
    """Curve of accuracy over the share of removed channels."""

    cliff: bool = True
    """Measure the accuracy of the cut network at several pruning ratios, before and after repair."""
    cliff_images: Annotated[int, COUNT] = 64
    """Number of validation images for the cliff curve (0: all)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class SearchSettings:
    """Search of widths by evaluation instead of one global threshold."""

    search: str = ""
    """eagleeye: search the widths of all layers by evaluation instead of using one global threshold."""
    candidates: Annotated[int, Between(1, 100_000)] = 60
    """Number of allocations to evaluate, including the one of the global threshold."""
    search_images: Annotated[int, COUNT] = 64
    """Number of training images for ranking allocations (0: all). The validation split stays unseen."""
    tolerance: Annotated[float, SHARE] = 0.02
    """Allowed deviation from the budget during the search, as a share of the cost of the dense model."""

    def __post_init__(self) -> None:
        if self.search not in ("", *SEARCHES):
            raise UserError(f"--search {self.search} is unknown. Use {' or '.join(SEARCHES)}, or omit the option.")
        check_ranges(self)
        if self.tolerance in (0, 1):
            raise UserError(f"--tolerance {self.tolerance:g} must be between 0 and 1. A typical value is 0.02.")


@dataclass(frozen=True)
class LayerSettings:
    """Removal of whole blocks."""

    layers: Annotated[int, Between(0, 10_000)] = 0
    """Number of bottlenecks to remove, lowest score first, before any channels are removed."""
    layer_score: Advanced[str] = "contribution"
    """Score of a bottleneck x + F(x): {secateur.pruning.layer_scores}. contribution: ||F(x)|| / ||x + F(x)|| on
    training images; taylor: change of the loss on labelled images; the others use the weights of the last
    convolution."""
    layer_images: Advanced[Annotated[int, POSITIVE]] = 256
    """Number of training images for scores that read images."""
    any_layer: Advanced[bool] = False
    """Also consider bottlenecks without a shortcut if input and output widths match. Removing one costs more
    accuracy."""
    min_bottlenecks: Advanced[Annotated[int, Between(0, 10_000)]] = 0
    """Minimum number of bottlenecks that every chain keeps (0: a chain may be removed completely)."""
    chains: Advanced[bool] = False
    """Remove whole chains: --layers counts chains, and all bottlenecks of a chain are removed together."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.chains and self.min_bottlenecks:
            raise UserError("--chains removes whole chains. Set --min-bottlenecks to 0, or omit --chains.")


@dataclass(frozen=True)
class PruneSettings:
    """Options of one pruning.

    Attributes:
        budgets: all are met; the first one determines the saving of a unit.
        image_size: image size in pixels at which costs are computed; None: the traced size.
        seed: seed of the criterion `random` and of the search.
        repetition: number of this pruning, and how many prunings approach the budgets by equal factors.
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
