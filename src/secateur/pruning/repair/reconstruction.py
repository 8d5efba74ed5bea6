"""Reconstruction: layers that lost inputs get the weights that best reproduce their outputs from the remaining inputs.

The kept channels can partly replace the contribution of a removed channel. A linear regression on the inputs of the
layer in the whole network finds the weights (https://arxiv.org/abs/1707.06168). There is no training: the second
moments of the inputs are measured once, and are used for every cut of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.layers import evaluating, without_gradients
from secateur.pruning.depth.selection import without_removed_blocks
from secateur.pruning.graph import trace
from secateur.pruning.plan import Plan
from secateur.pruning.repair.correction import Shorter

Network = TypeVar("Network", bound=nn.Module)
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Layer = Convolution | nn.Linear
PIXELS = 200
"""Number of positions of a map, or tokens, sampled per image. Neighbours are strongly correlated, and each one costs
time."""
WIDEST = 2400
"""Maximum inputs x taps of a layer for separate moments per tap of the kernel; above it, all taps share moments."""
MOST_FEATURES = 4096
"""Maximum inputs of a linear layer for moments, which take 8 bytes x inputs squared; above it, samples are stored
instead."""
MOST_READINGS = 2400
"""Maximum number of stored samples; the first ones are used."""
EVEN = 0.05
"""Base weight of every position, where 1 is the mean weight from gradients."""
TINY = 1e-30
RIDGE = 0.05
"""Weight of the regularisation towards the old weights, relative to the mean square of an input."""


@dataclass
class Moments:
    """Second moments of the inputs of a convolution or linear layer, over positions and images.

    Attributes:
        by_tap: rows are inputs x taps of the kernel; otherwise inputs, with all taps combined.
        centred: whether moments are about the mean, if a norm or the bias of the layer compensates means.
        moves_bias: whether the bias changes with the weights.
        count: sum of the sample weights.
        sums: double [D].
        products: double [D, D]; empty if samples are stored.
        readings: for a linear layer with more than `MOST_FEATURES` inputs, the samples [D, N] and their weights [N], in
            pieces, float32 on the CPU; otherwise None.
    """

    by_tap: bool
    centred: bool
    moves_bias: bool
    count: float
    sums: Tensor
    products: Tensor
    readings: list[tuple[Tensor, Tensor]] | None = None

    @staticmethod
    def of(layer: Layer, normed: bool = True) -> Moments:
        """Moments without samples.

        Args:
            normed: whether the network has batch norms. If so, a convolution without a bias is assumed to have one
                after it, and the bias of a convolution without a batch norm is not changed: it belongs to a detection
                head, see `correct_`.
        """
        taps = 1 if isinstance(layer, nn.Linear) else int(np.prod(layer.kernel_size))
        by_tap = layer.weight.shape[1] * taps <= WIDEST
        size = layer.weight.shape[1] * (taps if by_tap else 1)
        alone = isinstance(layer, nn.Linear) or not normed
        moves_bias = alone and layer.bias is not None
        centred = moves_bias if alone else layer.bias is None
        kept = isinstance(layer, nn.Linear) and size > MOST_FEATURES
        sums, products = (torch.zeros(shape, dtype=torch.float64) for shape in ([size], [0 if kept else size] * 2))
        return Moments(by_tap, centred, moves_bias, 0, sums, products, [] if kept else None)

    def add(self, patches: Tensor, weights: Tensor) -> None:
        """Adds patches, float [B, C, taps, P], with one weight per position, [B, P]."""
        patches = patches.flatten(1, 2) if self.by_tap else patches.flatten(2)
        per_row = weights if self.by_tap else weights.repeat(1, patches.shape[2] // weights.shape[1])
        rows, each = patches.transpose(0, 1).flatten(1), per_row.flatten()
        if self.readings is not None:
            left = MOST_READINGS - sum(len(weights) for _, weights in self.readings)
            rows, each = rows[:, :left], each[:left]
            self.readings.append((rows.cpu(), each.cpu()))
        weighted = rows * each
        self.count += float(each.sum())
        self.sums += weighted.sum(1).cpu().double()
        if self.readings is None:
            self.products += (weighted @ rows.T).cpu().double()

    def matrix(self) -> Tensor:
        """The moments: double [D, D]."""
        matrix = self.products / self.count
        return matrix - torch.outer(self.sums, self.sums) / self.count**2 if self.centred else matrix

    def fitted(self, rows: Tensor, index: Tensor) -> Tensor:
        """The weights [O, K] on the entries `index` [K] that best reproduce the outputs of the weights `rows` [O,
        D]."""
        if self.readings is not None:
            return self._fitted_to_readings(rows, index)
        matrix = self.matrix()
        ridge = RIDGE * matrix.diagonal().mean().clamp_min(TINY)
        left = matrix[index][:, index] + ridge * torch.eye(len(index), dtype=torch.float64)
        right = matrix[index] @ rows.T + ridge * rows[:, index].T
        return torch.linalg.solve(left, right).T

    def _fitted_to_readings(self, rows: Tensor, index: Tensor) -> Tensor:
        """The same from fewer samples than inputs: with H = X X', (H_KK + l I)^-1 X_K = X_K (X_K' X_K + l I)^-1."""
        assert self.readings is not None
        values, weights = (torch.cat(parts, -1).double() for parts in zip(*self.readings, strict=True))
        if self.centred:
            values -= (self.sums / self.count)[:, None]
        values *= (weights / self.count).sqrt()
        ridge = RIDGE * (values.square().sum() / len(values)).clamp_min(TINY)
        gone = torch.ones(len(values), dtype=torch.bool).index_fill_(0, index, False)
        missing, kept = rows[:, gone] @ values[gone], values[index]
        left = kept.T @ kept + ridge * torch.eye(len(weights), dtype=torch.float64)
        return rows[:, index] + torch.linalg.solve(left, missing.T).T @ kept.T


def moments_of_inputs(
    network: Network, batches: Iterable[Any], loss: Callable[[Network, Any], Tensor], without: Iterable[str] = ()
) -> dict[str, Moments]:
    """Moments of the inputs of the ungrouped convolutions and the linear layers of a network, by name.

    A position is weighted by the norm of the gradient of the loss in the output of the layer at that position, plus a
    small constant, so that objects matter more than the background. For a linear layer with inputs [..., K], a position
    is one row.

    Args:
        network: not changed.
        loss: takes the network (in eval mode) and a batch, returns a scalar.
        without: names of layers to skip.
    """
    left_out, normed = set(without), any(isinstance(module, _BatchNorm) for module in network.modules())
    found = {name: Moments.of(module, normed) for name, module in _layers(network).items() if name not in left_out}
    if not found:
        return {}
    # Samples of convolutions must not depend on which other layers exist.
    generators = {flat: torch.Generator().manual_seed(0) for flat in (True, False)}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            assert isinstance(module, Layer)
            # The closure must not reference a tensor that holds the hook: autograd never frees such a cycle.
            layer, sides = module, output.shape[2:]
            random = generators[isinstance(module, nn.Conv2d)]
            places = torch.randperm(_number_of_places(layer, output), generator=random)[:PIXELS].to(output.device)
            read = inputs[0].detach()
            if isinstance(layer, nn.Linear):
                read = _by_place(layer, read)[:, :, None, places].float()  # a copy, so that the rest can be freed

            def add(gradient: Tensor) -> None:
                slopes = _by_place(layer, gradient)[:, :, places].float().norm(dim=1)
                weights = slopes / slopes.mean().clamp_min(TINY) + EVEN
                patches = read if isinstance(layer, nn.Linear) else _patches(read, layer, places, sides)
                found[name].add(patches, weights)

            answer = _with_gradient(output)
            if answer.requires_grad:
                answer.register_hook(add)
            return answer

        return note

    with evaluating(network), without_gradients(network), ExitStack() as stack:
        for name in found:
            handle = network.get_submodule(name).register_forward_hook(look(name))
            stack.callback(handle.remove)
        for batch in batches:
            with torch.enable_grad():
                loss(network, batch).backward()
    return {name: moments for name, moments in found.items() if moments.count}


def reconstruct_(
    smaller: nn.Module,
    whole: nn.Module,
    plan: Plan,
    moments: Mapping[str, Moments],
    shorter: Shorter | None = None,
    *,
    share: float = 0.5,
) -> list[str]:
    """Sets new weights of the layers of `smaller` that lost inputs, from the moments of their inputs in `whole`.

    With H the moments of all inputs, K the remaining inputs, W the old weights and l a share of the mean diagonal of H:

        (H_KK + l I) W' = (H + l I)_K,: W

    The solution is the regression of the old outputs on the remaining inputs, regularised towards the old weights. The
    weights move `share` of the way, because a mean over all positions mostly describes the background
    (docs/results.md). Correct the norms afterwards. Where no norm follows, the bias changes too, so that the mean
    output is preserved. Layers that lost no inputs, are grouped or have no moments are not changed.

    Args:
        smaller: the network that `plan` leaves of `whole`, changed in place.
        shorter: the whole network without the removed blocks and its graph, if available.

    Returns:
        The names of the changed layers in `smaller`.

    Raises:
        UserError: the plan is for another network.
    """
    if shorter is None:
        network = without_removed_blocks(whole, plan)
        shorter = network, trace(network)
    keep = np.append(plan.keep(shorter[1]), True)
    kept = {(axis.tensor, axis.dim): np.flatnonzero(keep[axis.units]) for axis in shorter[1].axes}
    changed = []
    for name, module in _layers(smaller).items():
        read, known = kept.get((f"{name}.weight", 1)), moments.get(plan.removal.original(name))
        if read is None or known is None:
            continue
        old = whole.get_submodule(plan.removal.original(name))
        weight = old.get_parameter("weight").detach()
        if len(read) == weight.shape[1] or weight.shape != shorter[0].get_submodule(name).get_parameter("weight").shape:
            continue  # it lost no inputs, or reads a sum of several inputs, for which there are no moments
        given = torch.from_numpy(kept.get((f"{name}.weight", 0), np.arange(len(weight)))).to(weight.device)
        solved, offset = _solved(weight[given], torch.from_numpy(read), known)
        with torch.no_grad():
            module.weight.lerp_(solved.to(module.weight), share)
            if known.moves_bias and module.bias is not None:
                bias = old.get_parameter("bias").detach()[given].cpu().double() + offset
                module.bias.lerp_(bias.to(module.bias), share)
        changed.append(name)
    return changed


def _solved(weight: Tensor, read: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
    """New weights [O, K, ...] for the inputs `read` [K] of a layer with the weight [O, C, ...], and the resulting
    difference in the mean output, double [O]."""
    taps = weight[0, 0].numel()
    wide = weight.cpu().double()
    if moments.by_tap:
        rows, index = wide.flatten(1), (read[:, None] * taps + torch.arange(taps)).flatten()
    else:
        rows, index = wide.movedim(1, -1).flatten(0, -2), read
    solved, means = moments.fitted(rows, index), moments.sums / moments.count
    offset = (rows @ means - solved @ means[index]).reshape(len(weight), -1).sum(1)
    if moments.by_tap:
        return solved.reshape(len(weight), len(read), *weight.shape[2:]), offset
    return solved.reshape(len(weight), *weight.shape[2:], len(read)).movedim(-1, 1), offset


def _with_gradient(output: Tensor) -> Tensor:
    """The same values in a tensor that has a gradient and can be modified in place, unlike a leaf."""
    return output if output.requires_grad else output - output.new_zeros(()).requires_grad_()


def _number_of_places(layer: Layer, output: Tensor) -> int:
    """Number of positions per entry of the first dimension of the output of a layer."""
    if isinstance(layer, nn.Linear):
        return output.numel() // (output.shape[-1] * (len(output) if output.ndim > 1 else 1))
    return output[0, 0].numel()


def _by_place(layer: Layer, values: Tensor) -> Tensor:
    """Input or output of a layer as [B, channels, positions]; B is the first dimension, unless that is the channel
    dimension."""
    if isinstance(layer, nn.Linear):
        return values.reshape(len(values) if values.ndim > 1 else 1, -1, values.shape[-1]).transpose(1, 2)
    return values.flatten(2)


def _patches(maps: Tensor, convolution: Convolution, places: Tensor, sides: Sequence[int]) -> Tensor:
    """The inputs of a convolution, in maps [B, C, ...], for some output positions: float32 [B, C, taps, P].

    Args:
        places: int64 [P], row-major indices into an output with these `sides`.
    """
    padding = convolution.padding
    assert not isinstance(padding, str)
    padded = functional.pad(maps.float(), [width for width in reversed(padding) for _ in range(2)])
    starts: list[Tensor] = []
    for side, step in zip(reversed(sides), reversed(convolution.stride), strict=True):
        starts.insert(0, places % side * step)
        places = places // side
    taps = []
    for tap in product(*(range(length) for length in convolution.kernel_size)):
        steps = zip(starts, tap, convolution.dilation, strict=True)
        index: tuple[Any, ...] = (..., *(start + i * gap for start, i, gap in steps))
        taps.append(padded[index])
    return torch.stack(taps, 2)


def _layers(network: nn.Module) -> dict[str, Layer]:
    """The layers that can be reconstructed, by name, in order."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        or (
            isinstance(module, Convolution)
            and module.groups == 1
            and not isinstance(module.padding, str)
            and module.padding_mode == "zeros"
        )
    }
