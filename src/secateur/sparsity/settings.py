"""Options of sparse training and of zeroing weights. This file does not import torch, so the command line starts
fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import Suppress

from secateur.errors import UserError
from secateur.ranges import COUNT, FACTOR, POSITIVE, SHARE, Advanced, Between, check_ranges

REMOVED: Mapping[str, tuple[Any, str]] = {
    "tied": ("each", "scales are penalised individually. Omit the option"),
    "mask_stop": (-1, "the soft mask acts until the end of the training. Omit the option"),
    "mask_anneal": (False, "the factor of the soft mask is the same in all epochs. Omit the option"),
    "mask_hard": (0, "for a hard mask, set --mask-factor 0. Omit the option"),
    "block_reduction": ("mean", "the score of a block is the mean of the scores of its weights. Omit the option"),
}
"""Options removed in 0.2: their defaults, and what to do instead."""


@dataclass(frozen=True)
class SparsifySettings:
    """Penalties that shrink dispensable channels during training (Liu et al., ICCV 2017), and the soft mask.

    All rates refer to 64 images per step; for other numbers of images they are scaled in proportion, like the loss.

    Raises:
        UserError: an option is out of range; the message names it.
    """

    rate: Annotated[float, FACTOR] = 0.0
    """Penalty factor s, for a nominal batch of 64 (0: determined from the length of the training, see --reach)."""
    reach: Advanced[Annotated[float, FACTOR]] = 0.15
    """With --rate 0: by how much the penalty would shrink a scale without the loss, in units of the median scale."""
    schedule: str = "linear"
    """Schedule of s: {secateur.sparsity.rates}. linear falls to 0.1 s, cosine to 0.2 s, step to 0.01 s at half of
    the epochs; local does the same only for the 15 % largest scales."""
    ramp: Advanced[Annotated[float, FACTOR]] = 0.0
    """Number of epochs in which s rises from 0 at the start."""
    penalty: Literal["gamma", "conv", "both"] = "gamma"
    """What to penalise: BatchNorm scales (gamma), convolution weights (conv, L1), or both."""
    conv_rate: Advanced[Annotated[float, FACTOR]] = 1e-5
    """Factor of the L1 penalty on convolution weights, for a nominal batch of 64; it also follows --schedule."""
    mode: Advanced[Literal["subgradient", "proximal"]] = "subgradient"
    """subgradient: add the penalty to the gradient; proximal: soft threshold after the step, which gives exact
    zeros."""
    beta: Advanced[Annotated[float, FACTOR]] = 0.0
    """Penalty on the BatchNorm shifts, as a multiple of --rate (the slimming scripts used 10)."""
    exclude: tuple[str, ...] = ()
    """Patterns of layers without penalty (model.0.*), for layers that a later cut keeps whole."""
    soft_mask: bool = False
    """Every --mask-period epochs, scale down channels whose scale is below a threshold (Pruned-YOLO)."""
    mask_alpha: Advanced[Annotated[float, FACTOR]] = 0.2
    """Threshold of the soft mask, relative to the mean scale of all channels."""
    mask_factor: Advanced[Annotated[float, SHARE]] = 0.1
    """Factor by which the soft mask multiplies scales and shifts (0: hard mask)."""
    mask_period: Advanced[Annotated[int, POSITIVE]] = 2
    """Epochs between two soft masks."""
    mask_start: Advanced[Annotated[int, COUNT]] = 1
    """First epoch (from 0) after which the soft mask acts."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.reach == 0:
            raise UserError("Option reach is 0, but must be positive.")
        if self.conv_rate == 0 and self.penalty != "gamma":
            raise UserError(
                f"Option conv_rate is 0, so --penalty {self.penalty} has no effect on convolutions. Increase it."
            )


@dataclass(frozen=True)
class WeightSettings:
    """Training that sets single weights or blocks of weights to zero (methods of Intel Neural Compressor)."""

    target_sparsity: Annotated[float, SHARE] = 0.0
    """Share of weights that are zero at the end (0: no weight pruning)."""
    pruning_pattern: str = "4x1"
    """Weights that are zeroed together, as {secateur.sparsity.patterns}: blocks such as 1x1, 4x1, channelx1,
    1xchannel; or 2:4, which keeps two of four weights."""
    pruning_criterion: Advanced[str] = "snip_momentum"
    """Importance of a weight: {secateur.sparsity.criteria}."""
    pruning_schedule: Advanced[str] = "exp"
    """Schedule of the share of zeros: {secateur.sparsity.schedules}. cubic is by Zhu and Gupta, cube by Intel."""
    pruning_scope: Advanced[Literal["global", "layer", "local"]] = "global"
    """global: one threshold for all layers; layer (or local): each layer reaches the target."""
    pruning_start: Advanced[Annotated[float, Between(0, 1e6, also=-1)]] = -1.0
    """Epoch of the first pruning (-1: after the warm-up)."""
    pruning_frequency: Advanced[Annotated[int, Between(1, 10_000_000, also=-1)]] = -1
    """Optimizer steps between two prunings (-1: about 40 prunings in total)."""
    cooldown_epochs: Advanced[Annotated[int, Between(0, 10_000_000, also=-1)]] = -1
    """Number of last epochs without new zeros (-1: half of the epochs after the first pruning)."""
    min_sparsity: Advanced[Annotated[float, SHARE]] = 0.0
    """Minimum share of zeros of every layer at the end."""
    max_sparsity: Advanced[Annotated[float, SHARE]] = 0.98
    """Maximum share of zeros of every layer."""
    exclude_weights: Advanced[tuple[str, ...]] = ()
    """Patterns of layers that stay dense (model.24.*)."""
    progressive: Advanced[bool] = False
    """Split each pruning into up to four smaller ones, the least important blocks first."""
    lock_zeros: Advanced[bool] = False
    """Keep existing zeros, and add none."""
    group_lasso: Advanced[Annotated[float, FACTOR]] = 0.0
    """Factor of the group lasso on blocks until the target is reached, times the square root of the block size (0:
    off). Only for NxM patterns."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in ("pruning_frequency", "cooldown_epochs"):
            if not isinstance(getattr(self, name), int):
                raise UserError(f"Option {name} is {getattr(self, name)!r}; it must be a whole number.")
        self._check_shares()

        idle = [name for name in ("group_lasso", "progressive") if getattr(self, name)]
        if idle and self.target_sparsity == 0:
            raise UserError(f"Option {idle[0]} needs weight pruning. Also set target_sparsity.")

    def _check_shares(self) -> None:
        target, low, high = self.target_sparsity, self.min_sparsity, self.max_sparsity
        if target == 1:
            raise UserError(f"Option target_sparsity is {target}, but as a share of the weights it must be below 1.")
        if target > 0 and self.lock_zeros:
            raise UserError(
                "Option lock_zeros keeps zeros and adds none, so it cannot be combined with target_sparsity. Omit one "
                "of them."
            )
        if target > 0 and not low <= target <= high:
            raise UserError(
                f"Option target_sparsity is {target}, but must be between min_sparsity ({low}) and max_sparsity "
                f"({high})."
            )


@dataclass(frozen=True)
class OneShotSettings:
    """Weights that are set to zero without training, smallest first.

    Raises:
        UserError: an option is out of range; the message names it.
    """

    unstructured: Annotated[float, SHARE] = 0.0
    """Share of the weights of every convolution to set to zero (0: none)."""
    pattern: Advanced[str] = "1x1"
    """Blocks that are zeroed together, as in --pruning-pattern."""
    scope: Advanced[Literal["global", "layer", "local"]] = "layer"
    """layer (or local): each convolution loses the share; global: one threshold for all."""
    exclude: Suppress[tuple[str, ...]] = ()
    """Patterns of layers that stay dense (model.24.*); `secateur prune` sets them by --exclude."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.unstructured == 1:
            raise UserError("--unstructured is 1, which would remove all weights. Set a share below 1.")
