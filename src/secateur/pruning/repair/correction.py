"""Paired correction: the statistics of a cut network's norms, moved by what the cut changed on the same images.

Re-estimated statistics are those of the few images at hand; the ones of the training were better. Here the dense
network sees the same images, so that what the images themselves bring cancels out, and only what the cut changed is
left: the means move by the difference, the variances by the ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.layers import evaluating, hooked
from secateur.pruning.depth.selection import without_removed_blocks
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.plan import Plan
from secateur.pruning.settings import RepairSettings

Shorter = tuple[nn.Module, ChannelGraph]
See = Callable[[str, nn.Module, Tensor], None]
TINY = 1e-12
"""A channel whose variance is smaller is constant: its ratio says nothing."""


@dataclass(frozen=True)
class Counterpart:
    """Where the channels of a norm come from.

    Attributes:
        name: of the norm in the whole network.
        channels: int64 [c], which of its channels stayed.
    """

    name: str
    channels: Tensor


def counterparts(whole: nn.Module, plan: Plan, shorter: Shorter | None = None) -> dict[str, Counterpart]:
    """For every norm of the cut network that keeps statistics, by name, what it was cut from.

    Args:
        plan: leads from `whole` to the cut network, removed blocks included.
        shorter: the whole network without the removed blocks and its graph, where they are at hand.

    Raises:
        UserError: the plan is for another network.
    """
    if shorter is None:
        network = without_removed_blocks(whole, plan)
        shorter = network, trace(network)
    network, graph = shorter
    keep = np.append(plan.keep(graph), True)
    found = {}
    for name, module in network.named_modules():
        if not isinstance(module, _BatchNorm) or module.running_mean is None:
            continue
        units = graph.norms.get(name)
        kept = np.arange(module.num_features) if units is None else np.flatnonzero(keep[units])
        found[name] = Counterpart(plan.removal.original(name), torch.from_numpy(kept))
    return found


def correct_(
    smaller: nn.Module,
    whole: nn.Module,
    pairs: Mapping[str, Counterpart],
    images: Iterable[Tensor],
    *,
    share: float = RepairSettings.correction_share,
) -> int:
    """Corrects the statistics of all norms of `smaller` against `whole`.

    With m and v the mean and the variance of what a norm reads, m_d and v_d those of the same channels in the whole
    network, and the statistics that its training left there:

        running mean <- trained mean + (m - m_d)        running variance <- trained variance * v / v_d

    In order of execution: a norm that is corrected acts at once, so each one is measured behind corrected ones. Batches
    stream through both networks; means and variances are those of all images so far, so the memory is that of one
    batch. In the end the statistics stay `share` of the way: means over whole images speak of background, and half way
    is better for what is on it (docs/results.md).

    A convolution without a norm, such as those of a detector's head, is left alone: what its bias would have to give
    depends on where the objects are, and moving it by a mean over all pixels costs accuracy (docs/results.md).

    Args:
        smaller: changed in place.
        whole: left as it is, bit for bit.
        pairs: of `counterparts`; norms without one are left alone.
        images: batches [B, C, H, W] in 0..1, not augmented and without grey borders, on the networks' device.
        share: 0 to 1.

    Returns:
        The number of images; 0 without pairs, for then nothing is read.
    """
    if not pairs:
        return 0
    beside = _Beside(smaller, whole, pairs)
    used = 0
    with torch.no_grad(), evaluating(whole), evaluating(smaller), ExitStack() as stack:
        stack.enter_context(_watched(whole, {pair.name: beside.measure for pair in pairs.values()}))
        stack.enter_context(_watched(smaller, dict.fromkeys(pairs, beside.correct)))
        for batch in images:
            whole(batch)
            smaller(batch)
            used += len(batch)
        if used:
            beside.keep(share)
    return used


class _Beside:
    """Two networks that see the same images, and what their norms have read so far."""

    def __init__(self, smaller: nn.Module, whole: nn.Module, pairs: Mapping[str, Counterpart]) -> None:
        self.smaller, self.pairs = smaller, pairs
        self.theirs = {pair.name: Spread() for pair in pairs.values()}
        self.mine = {name: Spread() for name in pairs}
        self.trained = {
            name: tuple(value[pair.channels] for value in _statistics(whole.get_submodule(pair.name)))
            for name, pair in pairs.items()
        }

    def measure(self, name: str, norm: nn.Module, maps: Tensor) -> None:
        """What a norm of the whole network reads."""
        self.theirs[name].add(maps)

    def correct(self, name: str, norm: nn.Module, maps: Tensor) -> None:
        """What a norm of the smaller one reads; its statistics are moved before it acts."""
        self.mine[name].add(maps)
        pair, (old_mean, old_variance) = self.pairs[name], self.trained[name]
        mean, variance = self.mine[name].values()
        other_mean, other_variance = (value[pair.channels] for value in self.theirs[pair.name].values())
        usable = (variance > TINY) & (other_variance > TINY)
        ratio = torch.where(usable, variance / other_variance.clamp_min(TINY), torch.ones_like(variance))
        _write_(norm, old_mean + (mean - other_mean), old_variance * ratio)

    def keep(self, share: float) -> None:
        """Leaves the statistics a share of the way from the trained to the corrected ones."""
        for name, trained in self.trained.items():
            norm = self.smaller.get_submodule(name)
            _write_(norm, *(old.lerp(new, share) for old, new in zip(trained, _statistics(norm), strict=True)))


@dataclass
class Spread:
    """Mean and variance of every channel over all maps so far, in double precision on the CPU."""

    count: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, maps: Tensor) -> None:
        """Takes maps [B, C, ...] in."""
        count = maps.numel() // maps.shape[1]
        mean, variance = _moments(maps.detach().float(), count)
        mean, variance = mean.cpu().double(), variance.cpu().double()
        self.sums = self.sums + mean * count
        self.squares = self.squares + (variance + mean.square()) * count
        self.count += count

    def values(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, [C] each."""
        mean = self.sums / self.count
        return mean, (self.squares / self.count - mean.square()).clamp_min(0)


def _moments(maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel of a batch, without the digits that sums of squares would lose."""
    mean, variance = maps.new_zeros(maps.shape[1]), maps.new_zeros(maps.shape[1])
    if count == 1:
        return maps.flatten(), variance
    # With momentum 1 a norm leaves just what it saw; it is several times faster than `torch.var_mean`.
    functional.batch_norm(maps, mean, variance, training=True, momentum=1.0)
    return mean, variance * ((count - 1) / count)


def _statistics(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Running mean and variance, double, on the CPU."""
    assert isinstance(norm.running_mean, Tensor) and isinstance(norm.running_var, Tensor)
    return norm.running_mean.detach().cpu().double(), norm.running_var.detach().cpu().double()


def _write_(norm: nn.Module, mean: Tensor, variance: Tensor) -> None:
    assert isinstance(norm.running_mean, Tensor) and isinstance(norm.running_var, Tensor)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def _watched(network: nn.Module, see: Mapping[str, See]) -> AbstractContextManager[None]:
    """Shows what norms read."""

    def hook(name: str, look: See) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, inputs: look(name, module, inputs[0])

    return hooked(network.get_submodule(name).register_forward_pre_hook(hook(name, look)) for name, look in see.items())
