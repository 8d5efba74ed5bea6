"""Paired correction: adjusts batch-norm statistics of a cut network by what the cut changed on the same images.

Re-estimated statistics describe only the few available images; the statistics of the training are better. Here the
dense network reads the same images, so that the effect of the selection of images cancels out and only the effect of
the cut remains: means are shifted by the difference, variances are scaled by the ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
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
"""A channel with a smaller variance is constant, and its ratio is meaningless."""


@dataclass(frozen=True)
class Counterpart:
    """The origin of the channels of a norm.

    Attributes:
        name: name of the norm in the whole network.
        channels: int64 [c], indices of the kept channels.
    """

    name: str
    channels: Tensor


def counterparts(whole: nn.Module, plan: Plan, shorter: Shorter | None = None) -> dict[str, Counterpart]:
    """For every norm with running statistics in the cut network, by name, the norm it was cut from.

    Args:
        plan: the plan from `whole` to the cut network, including removed blocks.
        shorter: the whole network without the removed blocks and its graph, if available.

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
        if not _has_statistics(module):
            continue
        assert isinstance(module, _BatchNorm)
        units = graph.norms.get(name)
        kept = np.arange(module.num_features) if units is None else np.flatnonzero(keep[units])
        found[name] = Counterpart(plan.removal.original(name), torch.from_numpy(kept))
    return found


class WholeStatistics:
    """Means and variances of the inputs of all norms of a network, over the batches read so far.

    Several corrections on the same images share one object, so the network reads every batch only once.

    Args:
        network: not changed.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._spreads = {name: Spread() for name, norm in network.named_modules() if _has_statistics(norm)}
        self._after: list[dict[str, tuple[Tensor, Tensor]]] = []

    def after(self, index: int, batch: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Mean and variance, double [C] each, by name of the norm, over all batches up to this one.

        Args:
            index: number of the batch; batches are read in order.
            batch: float [B, C, H, W]; not read again if this number was read before.
        """
        if index == len(self._after):
            watching = _watched(self.network, dict.fromkeys(self._spreads, self._measure))
            with torch.no_grad(), evaluating(self.network), watching:
                self.network(batch)
            self._after.append({name: spread.values() for name, spread in self._spreads.items() if spread.count})
        return self._after[index]

    def _measure(self, name: str, norm: nn.Module, maps: Tensor) -> None:
        self._spreads[name].add(maps)


def correct_(
    smaller: nn.Module,
    whole: nn.Module,
    pairs: Mapping[str, Counterpart],
    images: Iterable[Tensor],
    *,
    share: float = RepairSettings.correction_share,
    statistics: WholeStatistics | None = None,
) -> int:
    """Corrects the statistics of all norms of `smaller` against `whole`.

    With m and v the mean and the variance of the input of a norm, m_d and v_d those of the same channels in the whole
    network, and the statistics that its training left there:

        running mean <- trained mean + (m - m_d)        running variance <- trained variance * v / v_d

    Norms are corrected in order of execution, and a corrected norm takes effect at once, so each norm is measured after
    the corrected ones before it. Batches are streamed through both networks. Means and variances cover all images so
    far, and the memory use is that of one batch. Finally, the statistics move only `share` of the way: means over whole
    images mostly describe the background, and half way is better for objects (docs/results.md).

    Convolutions without a norm, such as those of a detection head, are not changed: the right bias depends on where the
    objects are, and shifting it by a mean over all pixels reduces accuracy (docs/results.md).

    Args:
        smaller: changed in place.
        whole: not changed.
        pairs: result of `counterparts`; norms without an entry are skipped.
        images: batches, float [B, C, H, W] in 0..1, without augmentation and grey borders, on the device of the
            networks.
        share: 0 to 1.
        statistics: of `whole` on the same images, if several corrections use them.

    Returns:
        The number of images; 0 without pairs, because nothing is read then.
    """
    if not pairs:
        return 0
    beside = _Beside(smaller, whole, pairs)
    statistics = WholeStatistics(whole) if statistics is None else statistics
    used = 0
    with torch.no_grad(), evaluating(smaller), _watched(smaller, dict.fromkeys(pairs, beside.correct)):
        for index, batch in enumerate(images):
            beside.theirs = statistics.after(index, batch)
            smaller(batch)
            used += len(batch)
        if used:
            beside.keep(share)
    return used


class _Beside:
    """A smaller network that reads the same images as the whole one, and the statistics of its norm inputs so far."""

    def __init__(self, smaller: nn.Module, whole: nn.Module, pairs: Mapping[str, Counterpart]) -> None:
        self.smaller, self.pairs = smaller, pairs
        self.theirs: Mapping[str, tuple[Tensor, Tensor]] = {}
        self.mine = {name: Spread() for name in pairs}
        self.trained = {
            name: tuple(value[pair.channels] for value in _statistics(whole.get_submodule(pair.name)))
            for name, pair in pairs.items()
        }

    def correct(self, name: str, norm: nn.Module, maps: Tensor) -> None:
        """Called with the input of a norm of the smaller network; updates its statistics before it runs."""
        self.mine[name].add(maps)
        pair, (old_mean, old_variance) = self.pairs[name], self.trained[name]
        mean, variance = self.mine[name].values()
        other_mean, other_variance = (value[pair.channels] for value in self.theirs[pair.name])
        usable = (variance > TINY) & (other_variance > TINY)
        ratio = torch.where(usable, variance / other_variance.clamp_min(TINY), torch.ones_like(variance))
        _write_(norm, old_mean + (mean - other_mean), old_variance * ratio)

    def keep(self, share: float) -> None:
        """Sets the statistics a share of the way from the trained to the corrected ones."""
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
        """Adds maps [B, C, ...]."""
        count = maps.numel() // maps.shape[1]
        mean, variance = _moments(maps.detach().float(), count)
        mean, variance = mean.cpu().double(), variance.cpu().double()
        self.sums = self.sums + mean * count
        self.squares = self.squares + (variance + mean.square()) * count
        self.count += count

    def values(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, double [C] each."""
        mean = self.sums / self.count
        return mean, (self.squares / self.count - mean.square()).clamp_min(0)


def _moments(maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel of a batch, without the cancellation error of sums of squares."""
    mean, variance = maps.new_zeros(maps.shape[1]), maps.new_zeros(maps.shape[1])
    if count == 1:
        return maps.flatten(), variance
    # With momentum 1 a batch norm stores exactly the batch statistics, several times faster than torch.var_mean.
    functional.batch_norm(maps, mean, variance, training=True, momentum=1.0)
    return mean, variance * ((count - 1) / count)


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _statistics(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Running mean and variance, double, on the CPU."""
    assert isinstance(norm.running_mean, Tensor) and isinstance(norm.running_var, Tensor)
    return norm.running_mean.detach().cpu().double(), norm.running_var.detach().cpu().double()


def _write_(norm: nn.Module, mean: Tensor, variance: Tensor) -> None:
    assert isinstance(norm.running_mean, Tensor) and isinstance(norm.running_var, Tensor)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def _watched(network: nn.Module, see: Mapping[str, See]) -> AbstractContextManager[None]:
    """Calls functions with the inputs of norms."""

    def hook(name: str, look: See) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, inputs: look(name, module, inputs[0])

    return hooked(network.get_submodule(name).register_forward_pre_hook(hook(name, look)) for name, look in see.items())
