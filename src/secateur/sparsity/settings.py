"""The options of sparse training and of zeroing weights; imports no torch, so the command line reads it fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import Suppress

from secateur.errors import UserError
from secateur.ranges import COUNT, FACTOR, POSITIVE, SHARE, Advanced, Between, check_ranges

REMOVED: Mapping[str, tuple[Any, str]] = {
    "tied": ("each", "scales are penalised one by one; leave it out"),
    "mask_stop": (-1, "the soft mask acts to the end of the training; leave it out"),
    "mask_anneal": (False, "the factor of the soft mask is the same in all epochs; leave it out"),
    "mask_hard": (0, "a hard mask is --mask-factor 0; leave it out"),
    "block_reduction": ("mean", "the score of a block is the mean of those of its weights; leave it out"),
}
"""Options that there were up to 0.2: the default that they had, and what to do instead."""


@dataclass(frozen=True)
class SparsifySettings:
    """Penalties that shrink dispensable channels while training (Liu et al., ICCV 2017), and the soft mask.

    All rates are for 64 images a step; a step on other numbers of images takes its proportion, as the loss does.

    Raises:
        UserError: an option out of its range, named.
    """

    rate: Annotated[float, FACTOR] = 0.0
    """Penalty factor s at the nominal batch of 64; 0: chosen by the length of the training (see --reach)."""
    reach: Advanced[Annotated[float, FACTOR]] = 0.15
    """With --rate 0: how far the penalty by itself would move a scale, in units of the median scale."""
    schedule: str = "linear"
    """Schedule of s: {secateur.sparsity.rates}. linear falls to 0.1 s, cosine to 0.2 s, step to 0.01 s half-way; local
    does so for the 15 % largest scales."""
    ramp: Advanced[Annotated[float, FACTOR]] = 0.0
    """Epochs over which s rises from 0 at the start."""
    penalty: Literal["gamma", "conv", "both"] = "gamma"
    """What the penalty acts on: BatchNorm scales, convolution weights (L1), or both."""
    conv_rate: Advanced[Annotated[float, FACTOR]] = 1e-5
    """Factor of the L1 penalty on convolution weights, at the nominal batch of 64; it follows --schedule too."""
    mode: Advanced[Literal["subgradient", "proximal"]] = "subgradient"
    """subgradient (added to the gradient) or proximal (soft threshold after the step: exact zeros)."""
    beta: Advanced[Annotated[float, FACTOR]] = 0.0
    """Penalty on the BatchNorm shifts, as a multiple of --rate (the slimming scripts used 10)."""
    exclude: tuple[str, ...] = ()
    """Layers without penalty, as patterns of their names (model.0.*): those that a later cut keeps whole."""
    soft_mask: bool = False
    """Every --mask-period epochs, scale down channels whose scale is under a threshold (Pruned-YOLO)."""
    mask_alpha: Advanced[Annotated[float, FACTOR]] = 0.2
    """Threshold of the soft mask, in units of the mean scale of all channels."""
    mask_factor: Advanced[Annotated[float, SHARE]] = 0.1
    """Factor by which the soft mask multiplies scales and shifts; 0 is a hard mask."""
    mask_period: Advanced[Annotated[int, POSITIVE]] = 2
    """Epochs between two soft masks."""
    mask_start: Advanced[Annotated[int, COUNT]] = 1
    """First epoch (from 0) at whose end the soft mask acts."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.reach == 0:
            raise UserError("Option reach is 0; it must be positive.")
        if self.conv_rate == 0 and self.penalty != "gamma":
            raise UserError(f"Option conv_rate is 0, which leaves --penalty {self.penalty} nothing to do; raise it.")


@dataclass(frozen=True)
class WeightSettings:
    """Weights that training drives to exact zeros, one by one or in blocks (Intel Neural Compressor's methods)."""

    target_sparsity: Annotated[float, SHARE] = 0.0
    """Share of the weights to be zero at the end; 0 switches weight pruning off."""
    pruning_pattern: str = "4x1"
    """Weights zeroed together, as {secateur.sparsity.patterns}: blocks such as 1x1, 4x1, channelx1, 1xchannel; or
    2:4, where two of four weights are kept."""
    pruning_criterion: Advanced[str] = "snip_momentum"
    """Importance of a weight: {secateur.sparsity.criteria}."""
    pruning_schedule: Advanced[str] = "exp"
    """Schedule of the sparsity: {secateur.sparsity.schedules}; cubic is that of Zhu and Gupta, cube Intel's."""
    pruning_scope: Advanced[Literal["global", "layer", "local"]] = "global"
    """global (one threshold for all layers) or layer (or local: each layer has the target)."""
    pruning_start: Advanced[Annotated[float, Between(0, 1e6, also=-1)]] = -1.0
    """Epoch at which the first weights are zeroed; -1: after the warm-up."""
    pruning_frequency: Advanced[Annotated[int, Between(1, 10_000_000, also=-1)]] = -1
    """Optimizer steps between two prunings; -1: about 40 prunings in all."""
    cooldown_epochs: Advanced[Annotated[int, Between(0, 10_000_000, also=-1)]] = -1
    """Last epochs, in which the zeros no longer change; -1: half of the epochs after the first pruning."""
    min_sparsity: Advanced[Annotated[float, SHARE]] = 0.0
    """Every layer has at least this share of zeros at the end."""
    max_sparsity: Advanced[Annotated[float, SHARE]] = 0.98
    """No layer has more than this share of zeros."""
    exclude_weights: Advanced[tuple[str, ...]] = ()
    """Layers that stay dense, as patterns of their names (model.24.*)."""
    progressive: Advanced[bool] = False
    """Spread each pruning over (up to) four smaller ones, the least important blocks first."""
    lock_zeros: Advanced[bool] = False
    """Keep the zeros that the weights already have, and add none."""
    group_lasso: Advanced[Annotated[float, FACTOR]] = 0.0
    """Factor of the group lasso on the blocks until the target is reached (0: off), times the root of the block's size;
    NxM patterns only."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in ("pruning_frequency", "cooldown_epochs"):
            if not isinstance(getattr(self, name), int):
                raise UserError(f"Option {name} is {getattr(self, name)!r}; it must be a whole number.")
        self._check_shares()

        idle = [name for name in ("group_lasso", "progressive") if getattr(self, name)]
        if idle and self.target_sparsity == 0:
            raise UserError(f"Option {idle[0]} acts on weights that are being pruned; give target_sparsity too.")

    def _check_shares(self) -> None:
        target, low, high = self.target_sparsity, self.min_sparsity, self.max_sparsity
        if target == 1:
            raise UserError(f"Option target_sparsity is {target}; it is a share of the weights and must be below 1.")
        if target > 0 and self.lock_zeros:
            raise UserError(
                "Option lock_zeros keeps zeros and makes none; leave out target_sparsity, or leave out lock_zeros."
            )
        if target > 0 and not low <= target <= high:
            raise UserError(
                f"Option target_sparsity is {target}; it must be between min_sparsity ({low}) and max_sparsity "
                f"({high})."
            )


@dataclass(frozen=True)
class OneShotSettings:
    """Weights that are zeroed at once, without training, smallest first.

    Raises:
        UserError: an option out of its range, named.
    """

    unstructured: Annotated[float, SHARE] = 0.0
    """Share of the weights of every convolution to zero; 0: none."""
    pattern: Advanced[str] = "1x1"
    """Blocks that are zeroed together, as --pruning-pattern of the training."""
    scope: Advanced[Literal["global", "layer", "local"]] = "layer"
    """layer (or local: each convolution loses the share) or global (one threshold for all)."""
    exclude: Suppress[tuple[str, ...]] = ()
    """Layers that stay dense, as patterns of their names (model.24.*); `secateur prune` gives them by --exclude."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.unstructured == 1:
            raise UserError("--unstructured is 1, which leaves no weight; give a share under 1.")
