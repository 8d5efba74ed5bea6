"""Trial cuts that verify assumptions of the graph: does the code of the network adapt when channels are removed?

The code of a network can hold numbers: borders of a split, the number of heads of a reshape, or a width computed from
another width. Tracing cannot see where such a number comes from. If there are any, units are removed on trial, and
units for which the narrowed network and the silenced network differ are frozen.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.layers import all_digits
from secateur.pruning.graph.flow import Ids, Number
from secateur.pruning.graph.inputs import Call
from secateur.pruning.graph.narrowing import narrowed, silenced
from secateur.pruning.graph.pricing import Axis

_TOLERANCE = 1e-3


class Trial:
    """Compares cuts and masks of a randomised copy of a network."""

    def __init__(
        self,
        network: nn.Module,
        call: Call,
        axes: Sequence[Axis],
        numbers: Sequence[Number],
        norms: Sequence[str],
        layer_norms: dict[str, Ids],
    ) -> None:
        """Copies the network.

        Args:
            call: inputs of the network, and the outputs to compare.
            axes, numbers, norms, layer_norms: as in the graph under test; -1 is no unit.
        """
        self.network = lively(network)
        generator = torch.Generator().manual_seed(0)
        self.inputs = pytree.tree_map_only(Tensor, lambda tensor: _random(tensor, generator), call.inputs)
        self.axes, self.numbers, self.norms, self.layer_norms = axes, numbers, norms, layer_norms
        self.answers = call.answers

    def refused(self, spaces: Sequence[Ids], doubtful: Sequence[bool], units: int) -> list[Ids]:
        """The spaces from which nothing may be removed, so that all other spaces can be cut together.

        Args:
            spaces: units of each space, int64 [units of the space].
            doubtful: which of them are at places whose code holds numbers; the others are tried first, all at once.
            units: number of units of the network.
        """
        admitted: list[int] = []
        refused: list[Ids] = []
        going = _going(spaces)

        def admit(group: list[int]) -> None:
            if self._holds([going[number] for number in [*admitted, *group]], units):
                admitted.extend(group)
            elif len(group) == 1:
                refused.append(spaces[group[0]])
            else:
                half = len(group) // 2
                admit(group[:half])
                admit(group[half:])

        for wanted in (False, True):
            group = [number for number, doubt in enumerate(doubtful) if doubt is wanted]
            if group:
                admit(group)
        return refused

    def _holds(self, going: Sequence[Ids], units: int) -> bool:
        keep = np.ones(units, dtype=bool)
        for space in going:
            keep[space] = False
        try:
            # With matrix products rounded to ten bits, correct widths would differ by more than wrong ones.
            with torch.no_grad(), all_digits():
                mine = self._answers(narrowed(self.network, self.axes, self.numbers, keep))
                theirs = self._answers(silenced(self.network, self.axes, self.norms, self.layer_norms, keep))
        except Exception:  # the code of the network may raise anything at an unexpected width
            return False
        return len(mine) == len(theirs) and all(map(_same, mine, theirs))

    def _answers(self, network: nn.Module) -> list[Tensor]:
        outputs = self.answers(network(*self.inputs))
        return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _going(spaces: Sequence[Ids]) -> list[Ids]:
    """The units of each space to remove on trial: a third, plus one more for each further space of the same width.

    Equal numbers would hide that the code uses one number for the widths of several spaces.
    """
    going, seen = [], Counter[int]()
    for space in spaces:
        width = len(space)
        count = 1 + (width // 3 + seen[width]) % (width - 1) if width > 1 else 0
        going.append(space[:: width // count][:count] if count else space[:0])
        seen[width] += 1
    return going


def lively(network: nn.Module) -> nn.Module:
    """A copy in eval mode with random tensors, so that zeros cannot hide a difference."""
    copied = copy.deepcopy(network).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*copied.named_parameters(), *copied.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                value = 0.5 + noise.abs()
            elif tensor.ndim < 2:
                value = 0.3 * noise + (1.0 if name.endswith("weight") else 0.0)
            else:
                value = noise / math.sqrt(max(1, tensor[0].numel()))
            tensor.copy_(value)
    return copied


def _random(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return torch.rand(tensor.shape, generator=generator).to(tensor)


def _same(mine: Tensor, theirs: Tensor) -> bool:
    if mine.shape != theirs.shape:
        return False
    mine, theirs = mine.double(), theirs.double()
    scale = float(theirs.abs().max()) if theirs.numel() else 0.0
    return torch.allclose(mine, theirs, rtol=_TOLERANCE, atol=_TOLERANCE * max(scale, 1e-6))
