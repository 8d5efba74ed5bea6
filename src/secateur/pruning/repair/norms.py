"""Repair without labels: constants of removed channels move into their consumers, batch norms learn new statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.layers import evaluating, hooked
from secateur.pruning.depth.means import move_
from secateur.pruning.graph import Bools, ChannelGraph
from secateur.pruning.graph.inputs import grey
from secateur.pruning.plan import Plan
from secateur.pruning.settings import RepairSettings

Network = TypeVar("Network", bound=nn.Module)


def absorb_offsets(network: Network, graph: ChannelGraph, plan: Plan) -> Network:
    """A copy, not yet cut, whose consumers carry the constants of the channels that the plan removes.

    A channel whose gamma is about 0 gives the constant act(beta) everywhere; whoever reads it sees the sum of its
    weights times that constant. That sum is taken off the consumer's running mean (or added to its bias where it has
    one). Exact for gamma = 0 inside the image; beside the border, where zero padding hides part of the constant from
    kernels larger than 1x1, it is too large. Kept consumers only: grouped ones lose whole groups and need nothing. A
    consumer with neither a batch norm of its own nor a bias keeps its error.

    The constants are read where they arrive, at the centre of each consumer's input while the network sees grey, so
    they take part in every sum, concatenation, pooling and upsampling on the way; the removed channels' gammas are set
    to zero for the reading.
    """
    keep = plan.keep(graph)
    repaired = copy.deepcopy(network)
    if keep.all():
        return repaired
    probe = copy.deepcopy(network).eval()
    _flatten_(probe, graph, keep)
    constants = _constants(probe, graph)
    modules = dict(repaired.named_modules())
    gone = np.append(~keep, False)
    with torch.no_grad():
        for axis in graph.consumers:
            removed = torch.from_numpy(np.flatnonzero(gone[axis.units]))
            if len(removed) == 0 or axis.layer not in constants:
                continue
            convolution = modules[axis.layer]
            weight = convolution.get_parameter("weight").detach().movedim(axis.dim, 1)
            weight = weight.flatten(2).sum(2).cpu().double() if weight.ndim > 2 else weight.cpu().double()
            offset = weight[:, removed] @ constants[axis.layer][removed]
            norm = modules.get(graph.norm_after.get(axis.layer, ""))
            if isinstance(norm, _BatchNorm) and norm.running_mean is not None:
                move_(norm.running_mean, -offset)
            elif isinstance(convolution.bias, Tensor):
                move_(convolution.bias, offset)
    return repaired


def reestimate_batchnorm_(
    network: nn.Module,
    images: Iterable[Tensor],
    limit: int | None = None,
    *,
    share: float = RepairSettings.correction_share,
) -> int:
    """Moves the running statistics of all batch norms by `share` towards the average over batches [B, C, H, W] in 0..1.

    With `share` 1 the old statistics are gone, as in EagleEye (https://arxiv.org/abs/2007.02491). In a detector that
    can overshoot: false positives rise, and less than without repair is left. Half way was better on the detector that
    was measured (docs/results.md). The images lie on the network's device and should be augmented as in the training,
    for that is what the statistics stand for.

    Everything else runs in eval mode and nothing is learnt. Give batches of equal size, shuffled: every batch counts
    the same. Modes, momenta and counters are as before when it returns. Without a batch the statistics stay untouched.

    Returns:
        The number of batches used, at most `limit`.
    """
    iterator = iter(islice(images, limit))
    first = next(iterator, None)
    if first is None:
        return 0
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    running = [
        statistic for norm in norms for statistic in (norm.running_mean, norm.running_var) if statistic is not None
    ]
    trained = [statistic.clone() for statistic in running]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    used = 0
    with evaluating(network), torch.no_grad():
        try:
            for norm in norms:
                norm.train()
                # Momentum None means: cumulative average over the batches counted by num_batches_tracked.
                norm.momentum, norm.num_batches_tracked = None, torch.tensor(0, device=first.device)
            for batch in chain([first], iterator):
                network(batch)
                used += 1
            for statistic, old in zip(running, trained, strict=True):
                statistic.lerp_(old, 1 - share)
        finally:
            for norm, (momentum, counter) in zip(norms, before, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, counter
    return used


def _flatten_(probe: nn.Module, graph: ChannelGraph, keep: Bools) -> None:
    """Makes removed channels constant: gamma zero or, where no batch norm follows, the filter zero."""
    gone = np.append(~keep, False)
    tensors = dict(probe.named_parameters())
    zeroed = [(f"{layer}.weight", 0, units) for layer, units in graph.norms.items()]
    zeroed += [
        (axis.tensor, axis.dim, axis.units) for layer, axis in graph.filters.items() if layer not in graph.norm_after
    ]
    with torch.no_grad():
        for name, dim, units in zeroed:
            index = torch.from_numpy(np.flatnonzero(gone[units])).to(tensors[name].device)
            tensors[name].index_fill_(dim, index, 0.0)


def _constants(probe: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """Value of each input channel of each consumer at the centre of its map, double [C] on the CPU; of a linear layer
    the mean over all rows.

    The network sees grey, twice as large as it was traced, so that every map has a centre far from its borders; one
    that takes no other size sees grey of the traced one.
    """
    sums: dict[str, Tensor] = {}
    calls: dict[str, int] = {}
    consumers = {axis.layer for axis in graph.consumers}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            value = inputs[0].flatten(0, -2) if isinstance(module, nn.Linear) else inputs[0]
            for side in value.shape[2:]:
                value = value.select(2, side // 2)
            value = value.cpu().double()
            sums[name] = sums.get(name, torch.zeros_like(value[0])) + value.sum(0)
            calls[name] = calls.get(name, 0) + len(value)

        return note

    watched = ((name, module) for name, module in probe.named_modules() if name in consumers)
    with hooked(module.register_forward_pre_hook(watch(name)) for name, module in watched), torch.no_grad():
        try:
            probe(*grey(graph.inputs, probe, factor=2))
        except RuntimeError:  # shapes that do not fit
            sums.clear()
            calls.clear()
            probe(*grey(graph.inputs, probe))
    return {name: value / calls[name] for name, value in sums.items()}
