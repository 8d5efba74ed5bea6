"""The options of sparse training and of zeroing weights; imports no torch, so the command line reads it fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Suppress

from secateur.errors import UserError, shown
from secateur.ranges import COUNT, FACTOR, POSITIVE, SHARE, Between, check_ranges


@dataclass(frozen=True)
class SparsifySettings:
    """Penalties that shrink dispensable channels while training (Liu et al., ICCV 2017), and the soft mask.

    All rates are for 64 images a step; a step on other numbers of images takes its proportion, as the loss does.

    Raises:
        UserError: an option out of its range, named.
    """

    rate: Annotated[float, FACTOR] = 0.0
    """Penalty factor s at the nominal batch of 64; 0: such that it suits the length of the training (see --reach)."""
    reach: Annotated[float, FACTOR] = 0.15
    """With --rate 0: how far the penalty alone would move a scale, in units of the median scale."""
    schedule: str = "linear"
    """Course of s: constant, linear (to 0.1 s), cosine (to 0.2 s), step (0.01 s from half-way), local (so for 15 %)."""
    ramp: Annotated[float, FACTOR] = 0.0
    """Epochs over which s rises from 0 at the start."""
    penalty: Literal["gamma", "conv", "both"] = "gamma"
    """What the penalty acts on: BatchNorm scales, convolution weights (L1), or both."""
    conv_rate: Annotated[float, FACTOR] = 1e-5
    """Factor of the L1 penalty on convolution weights, at the nominal batch of 64; it follows --schedule too."""
    mode: Literal["subgradient", "proximal"] = "subgradient"
    """subgradient (added to the gradient) or proximal (soft threshold after the step: exact zeros)."""
    tied: Literal["each", "group"] = "each"
    """Scales that residual sums tie together are penalised one by one (each) or by the norm of their vector (group)."""
    beta: Annotated[float, FACTOR] = 0.0
    """Penalty on the BatchNorm shifts, as a multiple of --rate (the slimming scripts used 10)."""
    exclude: tuple[str, ...] = ()
    """Layers without penalty, as patterns of their names (model.0.*): those that a later cut is to leave alone."""
    soft_mask: bool = False
    """Every --mask-period epochs, scale down channels whose scale is under a threshold (Pruned-YOLO)."""
    mask_alpha: Annotated[float, FACTOR] = 0.2
    """Threshold of the soft mask, in units of the mean scale of all channels."""
    mask_factor: Annotated[float, SHARE] = 0.1
    """What the soft mask multiplies scales and shifts with; 0 is a hard mask."""
    mask_period: Annotated[int, POSITIVE] = 2
    """Epochs between two soft masks."""
    mask_start: Annotated[int, COUNT] = 1
    """First epoch (from 0) at whose end the soft mask acts."""
    mask_stop: Annotated[int, Between(0, 10_000_000, also=-1)] = -1
    """Epoch from which the soft mask rests; -1: it acts to the end."""
    mask_anneal: bool = False
    """Let the factor fall from 1 to --mask-factor between start and stop."""
    mask_hard: Annotated[int, COUNT] = 0
    """Last epochs before --mask-stop in which the mask is hard: factor 0, after each of them."""

    def __post_init__(self) -> None:
        check_ranges(self)
        choices = {"mode": ("subgradient", "proximal"), "penalty": ("gamma", "conv", "both"), "tied": ("each", "group")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"Option {name} is {shown(getattr(self, name))}; choose one of {', '.join(allowed)}.")
        if self.reach == 0:
            raise UserError("Option reach is 0; it must be positive.")
        if self.conv_rate == 0 and self.penalty != "gamma":
            raise UserError(f"Option conv_rate is 0, which leaves --penalty {self.penalty} nothing to do; raise it.")
        if self.mask_stop != -1 and self.mask_stop <= self.mask_start:
            raise UserError(
                f"Option mask_stop is {self.mask_stop}; it must be greater than mask_start ({self.mask_start}), or -1."
            )


@dataclass(frozen=True)
class WeightSettings:
    """Weights that training drives to exact zeros, alone or in blocks (Intel Neural Compressor's methods)."""

    target_sparsity: Annotated[float, SHARE] = 0.0
    """Share of the weights to be zero at the end; 0 switches weight pruning off."""
    pruning_pattern: str = "4x1"
    """Blocks: 1x1, 4x1, NxM, channelx1, 1xchannel; or N:M such as 2:4, where N of M weights are kept."""
    pruning_criterion: str = "snip_momentum"
    """Importance of a weight: magnitude, gradient, snip or snip_momentum."""
    pruning_schedule: str = "exp"
    """Course of the sparsity: oneshot, linear, cosine, exp, cubic (Zhu and Gupta) or cube (Intel's)."""
    pruning_scope: str = "global"
    """global (one threshold for all layers) or layer (each layer has the target)."""
    pruning_start: Annotated[float, Between(0, 1e6, also=-1)] = -1.0
    """Epoch at which the first weights go; -1: after the warm-up."""
    pruning_frequency: Annotated[int, Between(1, 10_000_000, also=-1)] = -1
    """Optimizer steps between two prunings; -1: such that there are about 40 of them."""
    cooldown_epochs: Annotated[int, Between(0, 10_000_000, also=-1)] = -1
    """Last epochs, in which the zeros stay where they are; -1: half of what follows the start of the pruning."""
    min_sparsity: Annotated[float, SHARE] = 0.0
    """Every layer has at least this share of zeros at the end."""
    max_sparsity: Annotated[float, SHARE] = 0.98
    """No layer has more than this share of zeros."""
    exclude_weights: tuple[str, ...] = ()
    """Layers that stay dense, as patterns of their names (model.24.*)."""
    block_reduction: Literal["mean", "sum", "max"] = "mean"
    """Score of a block from those of its weights."""
    progressive: bool = False
    """Spread each pruning over (up to) four smaller ones, the least important blocks first."""
    lock_zeros: bool = False
    """Keep the zeros that the weights came with, and make no others."""
    group_lasso: Annotated[float, FACTOR] = 0.0
    """Factor of the group lasso on the blocks until the target is reached (0: off), times the root of the block's size;
    NxM patterns only."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in ("pruning_frequency", "cooldown_epochs"):
            if not isinstance(getattr(self, name), int):
                raise UserError(f"Option {name} is {getattr(self, name)!r}; it must be a whole number.")
        choices = {"pruning_scope": ("global", "layer", "local"), "block_reduction": ("mean", "sum", "max")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"Option {name} is {shown(getattr(self, name))}; choose one of {', '.join(allowed)}.")
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
                f"Option target_sparsity is {target}; it must lie between min_sparsity ({low}) and max_sparsity "
                f"({high})."
            )


@dataclass(frozen=True)
class OneShotSettings:
    """Weights that are zeroed at once, without training, smallest first (Ultralytics' `prune`, with masks).

    Raises:
        UserError: an option out of its range, named.
    """

    unstructured: Annotated[float, SHARE] = 0.0
    """Share of the weights of every convolution to zero; 0: none."""
    pattern: str = "1x1"
    """Blocks that are zeroed together, as --pruning-pattern of the training."""
    scope: Literal["layer", "global", "local"] = "layer"
    """layer (or local: each convolution loses the share) or global (one threshold for all)."""
    exclude: Suppress[tuple[str, ...]] = ()
    """Layers that stay dense, as patterns of their names (model.24.*); `secateur prune` gives them by --exclude."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.unstructured == 1:
            raise UserError("--unstructured is 1, which leaves no weight; give a share under 1.")
        if self.scope not in ("layer", "global", "local"):
            raise UserError(f"--scope {self.scope} is unknown; choose one of layer, global, local.")
