"""Reconstruction: layers that lost inputs get the weights that answer best with those that are left.

What a removed channel said can be said in part by those beside it. A linear regression on what the layer read in the
whole network finds the weights (https://arxiv.org/abs/1707.06168). Nothing is trained: the second moments of the inputs
are measured once, and serve every cut of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur.pruning.depth.carving import without_removed_blocks
from secateur.pruning.graph import trace
from secateur.pruning.plan import Plan
from secateur.pruning.repair.correction import Shorter, evaluating

Network = TypeVar("Network", bound=nn.Module)
PIXELS = 200
"""Places of a map at which an image is read: neighbours say nearly the same, and every one costs."""
WIDEST = 2400
"""Inputs x taps of a layer up to which each tap of its kernel has moments of its own; over it all share the inputs'."""
EVEN = 0.05
"""What every place counts, where 1 is the mean of what its gradient makes it count."""
TINY = 1e-30
RIDGE = 0.05
"""Weight of the pull towards the old weights, relative to the mean square of an input."""


@dataclass
class Moments:
    """Second moments of what a convolution reads, over places and images.

    Attributes:
        by_tap: rows are inputs x taps of the kernel; else inputs alone, all taps together.
        centred: about the mean: a norm follows, which takes care of means by itself.
        count: of the readings, by their weights.
        sums: double [D].
        products: double [D, D].
    """

    by_tap: bool
    centred: bool
    count: float
    sums: Tensor
    products: Tensor

    @staticmethod
    def of(convolution: nn.Conv2d) -> Moments:
        """Nothing read yet."""
        taps = int(np.prod(convolution.kernel_size))
        by_tap = convolution.in_channels * taps <= WIDEST
        size = convolution.in_channels * (taps if by_tap else 1)
        zeros = torch.zeros(size, dtype=torch.float64)
        return Moments(by_tap, convolution.bias is None, 0, zeros, torch.zeros(size, size, dtype=torch.float64))

    def add(self, patches: Tensor, weights: Tensor) -> None:
        """Takes patches [B, C, taps, P] in, each with a weight: [B, P]."""
        patches = patches.flatten(1, 2) if self.by_tap else patches.flatten(2)
        per_row = weights if self.by_tap else weights.repeat(1, patches.shape[2] // weights.shape[1])
        rows, each = patches.transpose(0, 1).flatten(1), per_row.flatten()
        weighted = rows * each
        self.count += float(each.sum())
        self.sums += weighted.sum(1).cpu().double()
        self.products += (weighted @ rows.T).cpu().double()

    def matrix(self) -> Tensor:
        """The moments, double [D, D]."""
        matrix = self.products / self.count
        return matrix - torch.outer(self.sums, self.sums) / self.count**2 if self.centred else matrix


def moments_of_inputs(
    network: Network, batches: Iterable[Any], loss: Callable[[Network, Any], Tensor], without: Iterable[str] = ()
) -> dict[str, Moments]:
    """What the ungrouped 2-d convolutions of a network read, by name.

    A place counts by the norm of the loss's gradient in what the layer gives there, and a little more, so that it is
    what matters that decides, and not the background.

    Args:
        network: left as it is.
        loss: takes the network (in eval mode) and a batch, gives a scalar.
        without: names of layers that no one will ask for.
    """
    left_out = set(without)
    found = {name: Moments.of(module) for name, module in _convolutions(network).items() if name not in left_out}
    if not found:
        return {}
    random = torch.Generator().manual_seed(0)

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert isinstance(module, nn.Conv2d)
            # No tensor that carries the hook may be named in it: a circle through autograd is never freed.
            convolution, maps, across = module, inputs[0].detach(), output.shape[3]
            places = torch.randperm(output[0, 0].numel(), generator=random)[:PIXELS].to(output.device)

            def add(gradient: Tensor) -> None:
                slopes = gradient.flatten(2)[:, :, places].float().norm(dim=1)
                weights = slopes / slopes.mean().clamp_min(TINY) + EVEN
                found[name].add(_patches(maps, convolution, places, across), weights)

            (output if output.requires_grad else output.requires_grad_()).register_hook(add)

        return note

    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with evaluating(network), ExitStack() as stack:
        stack.callback(lambda: [parameter.requires_grad_() for parameter in trained])
        network.requires_grad_(False)
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
    """Gives the layers of `smaller` that lost inputs new weights, from the moments of what they read in `whole`.

    With H the moments of all inputs, K those that are left, W the old weights, l a share of the mean diagonal of H:

        (H_KK + l I) W' = (H + l I)_K,: W

    The solution is the regression of what the layer gave on what it still reads, pulled towards the old weights. They
    move `share` of the way: a mean over all places speaks of background (docs/results.md). Norms are corrected after
    it. Layers that lost nothing, read through groups, or have no moments stay as they are.

    Args:
        smaller: what `plan` leaves of `whole`, changed in place.
        shorter: the whole network without the removed blocks and its graph, where they are at hand.

    Returns:
        The names of the layers that changed, in `smaller`.

    Raises:
        UserError: the plan is for another network.
    """
    if shorter is None:
        network = without_removed_blocks(whole, plan)
        shorter = network, trace(network)
    keep = np.append(plan.keep(shorter[1]), True)
    kept = {(axis.tensor, axis.dim): np.flatnonzero(keep[axis.units]) for axis in shorter[1].axes}
    changed = []
    for name, module in _convolutions(smaller).items():
        read, known = kept.get((f"{name}.weight", 1)), moments.get(plan.removal.original(name))
        if read is None or known is None:
            continue
        old = whole.get_submodule(plan.removal.original(name)).get_parameter("weight").detach()
        if len(read) == old.shape[1]:
            continue
        given = kept.get((f"{name}.weight", 0), np.arange(len(old)))
        solved = _solved(old[torch.from_numpy(given).to(old.device)], torch.from_numpy(read), known)
        with torch.no_grad():
            module.weight.lerp_(solved.to(module.weight), share)
        changed.append(name)
    return changed


def _solved(weight: Tensor, read: Tensor, moments: Moments) -> Tensor:
    """New weights [O, K, h, w] for the inputs `read` [K] of a layer with the weight [O, C, h, w]."""
    taps = weight[0, 0].numel()
    wide = weight.cpu().double()
    if moments.by_tap:
        rows, index = wide.flatten(1), (read[:, None] * taps + torch.arange(taps)).flatten()
    else:
        rows, index = wide.movedim(1, 3).flatten(0, 2), read
    matrix = moments.matrix()
    ridge = RIDGE * matrix.diagonal().mean().clamp_min(TINY)
    left = matrix[index][:, index] + ridge * torch.eye(len(index), dtype=torch.float64)
    right = matrix[index] @ rows.T + ridge * rows[:, index].T
    solved = torch.linalg.solve(left, right).T
    shape = (len(weight), len(read), *weight.shape[2:])
    if moments.by_tap:
        return solved.reshape(shape)
    return solved.reshape(len(weight), *weight.shape[2:], len(read)).movedim(3, 1)


def _patches(maps: Tensor, convolution: nn.Conv2d, places: Tensor, across: int) -> Tensor:
    """What the convolution reads of maps [B, C, H, W] for some places of its output: float32 [B, C, taps, P].

    Args:
        places: int64 [P], row by row of an output that is `across` wide.
    """
    assert not isinstance(convolution.padding, str)
    (high, wide), (down, right) = convolution.kernel_size, convolution.stride
    (pad_rows, pad_columns), (row_step, column_step) = convolution.padding, convolution.dilation
    padded = functional.pad(maps.float(), (pad_columns, pad_columns, pad_rows, pad_rows))
    rows, columns = places // across * down, places % across * right
    taps = [padded[:, :, rows + i * row_step, columns + j * column_step] for i in range(high) for j in range(wide)]
    return torch.stack(taps, 2)


def _convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """The layers that can be reconstructed, by name, in order."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.groups == 1
        and not isinstance(module.padding, str)
        and module.padding_mode == "zeros"
    }
