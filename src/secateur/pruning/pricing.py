"""What any choice of units costs: parameters and FLOPs as sums of products of kept counts, all evaluated at once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateur.errors import UserError
from secateur.pruning.operators import Ids, Operation

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Price:
    """What a network costs.

    `flops` is 2 x multiply-adds of convolutions and linear layers for one image, without those inside an attention.
    """

    parameters: int
    flops: int


@dataclass(frozen=True, eq=False)
class Axis:
    """Dimension `dim` of a parameter or buffer: entry i belongs to unit `units[i]`, or to none (-1, frozen)."""

    tensor: str
    dim: int
    units: Ids

    @property
    def layer(self) -> str:
        """Name of the module that owns the tensor."""
        return self.tensor.rpartition(".")[0]


@dataclass(frozen=True, eq=False)
class Term:
    """`coefficient` x kept entries of axis vector `first` x kept entries of `second` (vector 0 counts 1)."""

    coefficient: int
    first: int
    second: int


class Pricing:
    """Parameters and FLOPs as sums of products of two kept counts, all evaluated at once."""

    def __init__(self, network: nn.Module, axes: tuple[Axis, ...], work: list[Work]) -> None:
        vectors: list[Ids] = [np.array([-1], dtype=np.int64)]
        known: dict[bytes, int] = {vectors[0].tobytes(): 0}
        of_tensor: dict[str, list[int]] = defaultdict(list)
        for axis in axes:
            key = axis.units.tobytes()
            if key not in known:
                known[key] = len(vectors)
                vectors.append(axis.units)
            of_tensor[axis.tensor].append(known[key])

        def term(tensor: str, elements: int) -> Term:
            indices = of_tensor.get(tensor, [])
            for index in indices:
                elements //= len(vectors[index])
            return Term(elements, *[*indices, 0, 0][:2])

        self._entries = np.concatenate(vectors)
        self._starts = np.cumsum([0] + [len(vector) for vector in vectors[:-1]])
        self._parameters = _columns([term(name, value.numel()) for name, value in network.named_parameters()])
        self._operations = _columns([term(item.operation.weight, item.operation.elements) for item in work])
        self._work = work
        self._known_positions: dict[int | tuple[int, int], Ids] = {}

    def price(self, keep: Bools, image_size: int | tuple[int, int]) -> Price:
        """See `ChannelGraph.price`."""
        counts = self._counts(keep)
        parameters = _evaluate(self._parameters, counts)
        flops = 2 * _evaluate(self._operations, counts) * self._positions(image_size)
        return Price(int(parameters.sum()), int(flops.sum()))

    def marginal(self, units: int, image_size: int | tuple[int, int]) -> tuple[Floats, Floats]:
        """Parameters and FLOPs that the removal of one unit alone saves, to first order: two vectors [units]."""
        counts = self._counts(np.ones(units, dtype=bool))
        savings: list[Floats] = []
        for terms, scale in (
            (self._parameters, np.ones(self._parameters.shape[1])),
            (self._operations, 2.0 * self._positions(image_size)),
        ):
            per_axis = np.zeros(len(counts))
            coefficient, first, second = terms
            np.add.at(per_axis, first, coefficient * counts[second] * scale)
            np.add.at(per_axis, second, coefficient * counts[first] * scale)
            per_entry = np.repeat(per_axis, np.diff(np.append(self._starts, len(self._entries))))
            used = self._entries >= 0
            savings.append(np.bincount(self._entries[used], weights=per_entry[used], minlength=units).astype(float))
        return savings[0], savings[1]

    def _counts(self, keep: Bools) -> Ids:
        # Entry -1 (frozen) reads the value appended at the end.
        return np.add.reduceat(np.append(keep, True)[self._entries].astype(np.int64), self._starts)

    def _positions(self, image_size: int | tuple[int, int]) -> Ids:
        if image_size not in self._known_positions:
            height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
            positions = np.array([item.positions(height, width) for item in self._work], dtype=np.int64)
            self._known_positions[image_size] = positions
        return self._known_positions[image_size]


@dataclass(frozen=True)
class Work:
    """One operation with its positions at two square image sizes, from which those at any size follow exactly."""

    operation: Operation
    sizes: tuple[int, int]
    first: tuple[int, ...]
    second: tuple[int, ...]

    def positions(self, height: int, width: int) -> int:
        """Number of positions at an image size: each side grows evenly with the image's side, rows with its area."""
        first, (small, large) = self.first, self.sizes
        if len(first) == 2:
            pairs = zip(first, self.second, (height, width), strict=True)
            return int(np.prod([_grow(a, b, small, large, side) for a, b, side in pairs]))
        before, after = int(np.prod(first)), int(np.prod(self.second))
        return _grow(before, after, small**2, large**2, height * width)


def _grow(before: int, after: int, small: int, large: int, wanted: int) -> int:
    steps, rest = divmod((after - before) * (wanted - small), large - small)
    if rest:
        raise UserError(f"The cost is exact only for image sizes that are multiples of {large - small}; round yours.")
    return before + steps


def _columns(terms: list[Term]) -> Ids:
    rows = [(term.coefficient, term.first, term.second) for term in terms]
    return np.array(rows, dtype=np.int64).reshape(-1, 3).T


def _evaluate(terms: Ids, counts: Ids) -> Ids:
    coefficient, first, second = terms
    products: Ids = coefficient * counts[first] * counts[second]
    return products
