"""The options of sparse training; imports no torch, so the command line can read it fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SparsifySettings:
    """The L1 penalty on BatchNorm scales while training (Liu et al., ICCV 2017)."""

    rate: float = 0.0
    """Penalty factor s at the nominal batch of 64; 0: such that it suits the length of the training (see --reach)."""
    reach: float = 0.15
    """With --rate 0: how far the penalty alone would move a scale, in units of the median scale."""
    schedule: str = "linear"
    """Course of s over the epochs: constant, linear (down to 0.1 s), cosine (down to 0.2 s), step or local."""
    ramp: float = 0.0
    """Epochs over which s rises from 0 at the start."""
    penalty: Literal["gamma", "conv", "both"] = "gamma"
    """What the penalty acts on: BatchNorm scales, convolution weights (L1), or both."""
    conv_rate: float = 1e-5
    """Factor of the L1 penalty on convolution weights."""
    mode: Literal["subgradient", "proximal"] = "subgradient"
    """subgradient (added to the gradient) or proximal (soft threshold after the step: exact zeros)."""
    beta: float = 0.0
    """Penalty on the BatchNorm shifts, as a multiple of --rate (the slimming scripts used 10)."""
    soft_mask: bool = False
    """Every other epoch, scale down channels whose scale is under a threshold (Pruned-YOLO)."""
    mask_alpha: float = 0.2
    """Threshold of the soft mask, in units of the mean scale of all channels."""
    mask_factor: float = 0.1
    """What the soft mask multiplies scales and shifts with; 0 is a hard mask."""
    mask_period: int = 2
    """Epochs between two soft masks."""
    mask_start: int = 1
    """First epoch (from 0) of the soft mask."""
    mask_stop: int = -1
    """Epoch from which the soft mask rests; -1: it acts to the end."""
    mask_anneal: bool = False
    """Let the factor fall from 1 to --mask-factor between start and stop."""


@dataclass(frozen=True)
class WeightSettings:
    """Weights that training drives to exact zeros, alone or in blocks (Intel Neural Compressor's methods)."""

    target_sparsity: float = 0.0
    """Share of the weights to be zero at the end; 0 switches weight pruning off."""
    pruning_pattern: str = "4x1"
    """Blocks: 1x1, 4x1, NxM, channelx1, 1xchannel; or N:M such as 2:4, where N of M weights are kept."""
    pruning_criterion: str = "snip_momentum"
    """Importance of a weight: magnitude, gradient, snip or snip_momentum."""
    pruning_schedule: str = "exp"
    """Course of the sparsity: oneshot, linear, cosine, exp, cubic (Zhu and Gupta) or cube (Intel's)."""
    pruning_scope: str = "global"
    """global (one threshold for all layers) or layer (each layer has the target)."""
    pruning_start: float = -1.0
    """Epoch at which the first weights go; -1: after the warm-up."""
    pruning_frequency: int = -1
    """Optimizer steps between two prunings; -1: such that there are 40 of them."""
    cooldown_epochs: int = -1
    """Last epochs, in which the zeros stay where they are; -1: half of the training."""
    min_sparsity: float = 0.0
    """Every layer has at least this share of zeros at the end."""
    max_sparsity: float = 0.98
    """No layer has more than this share of zeros."""
    exclude_weights: tuple[str, ...] = ()
    """Layers that stay dense, as patterns of their names (model.24.*)."""
    block_reduction: Literal["mean", "sum", "max"] = "mean"
    """Score of a block from those of its weights."""
    progressive: bool = False
    """Spread each pruning over four smaller ones."""
    lock_zeros: bool = False
    """Keep the zeros that the weights came with, and no others."""
    group_lasso: float = 0.0
    """Factor of the group lasso on the blocks (0: off)."""
