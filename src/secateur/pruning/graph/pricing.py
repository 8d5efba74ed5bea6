"""What any choice of units costs: parameters and FLOPs as sums of products of kept counts, all evaluated at once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from secateur.errors import UserError
from secateur.pruning.graph.flow import Ids, Operation

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Sides = tuple[int, int]
"""Height and width of an image in pixels."""
ImageSize = int | Sides | None
"""Pixels of a square image, height and width of another, or None: the inputs that the network was traced with."""


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
class CostTerm:
    """`coefficient` x kept entries of axis vector `first` x kept entries of `second` (vector 0 counts 1)."""

    coefficient: int
    first: int
    second: int


class Pricing:
    """Parameters and FLOPs as sums of products of two kept counts, all evaluated at once."""

    def __init__(self, parameters: Mapping[str, int], axes: tuple[Axis, ...], work: Sequence[Work]) -> None:
        """Args:
        parameters: number of entries of each parameter, by name.
        axes: of all tensors that shrink.
        work: the operations that count.
        """
        vectors: list[Ids] = [np.array([-1], dtype=np.int64)]
        known: dict[bytes, int] = {vectors[0].tobytes(): 0}
        of_tensor: dict[str, list[int]] = defaultdict(list)
        for axis in axes:
            key = axis.units.tobytes()
            if key not in known:
                known[key] = len(vectors)
                vectors.append(axis.units)
            of_tensor[axis.tensor].append(known[key])

        self._names = list(parameters)

        def term(tensor: str, elements: int) -> CostTerm:
            indices = of_tensor.get(tensor, [])
            for index in indices:
                elements //= len(vectors[index])
            return CostTerm(elements, *[*indices, 0, 0][:2])

        self._entries = np.concatenate(vectors)
        self._starts = np.cumsum([0] + [len(vector) for vector in vectors[:-1]])
        self._parameters = _columns([term(name, entries) for name, entries in parameters.items()])
        self._operations = _columns([term(item.operation.weight, item.operation.elements) for item in work])
        self._work = work
        self._known_positions: dict[ImageSize, Ids] = {}

    def remaining(self, keep: Bools, axes: tuple[Axis, ...]) -> Pricing:
        """Of the network that keeps these units; `axes` are those of its tensors."""
        counts = self._counts(keep)
        parameters = dict(zip(self._names, _evaluate(self._parameters, counts).tolist(), strict=True))
        elements = _evaluate(self._operations, counts).tolist()
        work = [
            replace(item, operation=replace(item.operation, elements=left))
            for item, left in zip(self._work, elements, strict=True)
        ]
        return Pricing(parameters, axes, work)

    def price(self, keep: Bools, image_size: ImageSize = None) -> Price:
        """See `ChannelGraph.price`."""
        counts = self._counts(keep)
        parameters = _evaluate(self._parameters, counts)
        flops = 2 * _evaluate(self._operations, counts) * self._positions(image_size)
        return Price(int(parameters.sum()), int(flops.sum()))

    @property
    def names(self) -> list[str]:
        """Of the parameters, in the order of what `weighted` takes."""
        return list(self._names)

    def weighted(self, keep: Bools | None, weights: Floats) -> Floats:
        """Entries of each parameter that the network keeps (None: all), times a weight: [parameters].

        Args:
            weights: of one entry, [parameters], such as the bytes that a file takes for it.
        """
        return weights * _evaluate(self._parameters, self._counts(keep))

    def weighted_savings(self, weights: Floats, units: int) -> Floats:
        """What the removal of one unit alone saves of the sum of `weighted`, to first order: [units]."""
        return self._savings(self._parameters, weights, units)

    def parameter_savings(self, units: int) -> Floats:
        """Parameters that the removal of one unit alone saves, to first order: [units]."""
        return self._savings(self._parameters, np.ones(self._parameters.shape[1], dtype=np.float64), units)

    def flop_savings(self, units: int, image_size: ImageSize = None) -> Floats:
        """FLOPs that the removal of one unit alone saves, to first order: [units]."""
        return self._savings(self._operations, 2.0 * self._positions(image_size).astype(np.float64), units)

    def parameters_inside(self, module: str) -> int:
        """Parameters of the module of this name, as the network is."""
        return _inside(module, self._names, _evaluate(self._parameters, self._counts(None)))

    def flops_inside(self, module: str, image_size: ImageSize = None) -> int:
        """FLOPs of the module of this name, as the network is."""
        flops = 2 * _evaluate(self._operations, self._counts(None)) * self._positions(image_size)
        return _inside(module, [item.operation.weight for item in self._work], flops)

    def _savings(self, terms: Ids, scale: Floats, units: int) -> Floats:
        counts = self._counts(None)
        per_axis = np.zeros(len(counts))
        coefficient, first, second = terms
        np.add.at(per_axis, first, coefficient * counts[second] * scale)
        np.add.at(per_axis, second, coefficient * counts[first] * scale)
        per_entry = np.repeat(per_axis, np.diff(np.append(self._starts, len(self._entries))))
        used = self._entries >= 0
        return np.bincount(self._entries[used], weights=per_entry[used], minlength=units).astype(float)

    def _counts(self, keep: Bools | None) -> Ids:
        if keep is None:
            return np.diff(np.append(self._starts, len(self._entries)))
        # Entry -1 (frozen) reads the value appended at the end.
        return np.add.reduceat(np.append(keep, True)[self._entries].astype(np.int64), self._starts)

    def _positions(self, image_size: ImageSize) -> Ids:
        if image_size not in self._known_positions:
            sides = (image_size, image_size) if isinstance(image_size, int) else image_size
            positions = np.array([item.positions(sides) for item in self._work], dtype=np.int64)
            self._known_positions[image_size] = positions
        return self._known_positions[image_size]


@dataclass(frozen=True)
class Work:
    """One operation with its positions at four sizes of an image, from which those at any size follow exactly.

    Attributes:
        operation: what is computed at every position; it knows those of the inputs that were traced.
        sizes: a small and a large side; None where the network does not take one image, or only of one size.
        seen: positions for images of height and width (small, small), (large, small), (small, large) and (large,
            large); () for the second and third where the network takes squares alone.
    """

    operation: Operation
    sizes: tuple[int, int] | None = None
    seen: tuple[tuple[int, ...], ...] = ()

    def positions(self, sides: Sides | None) -> int:
        """Number of positions at an image size.

        Each side of a map grows evenly with the image's height, its width, their product or several of them (an
        attention along both axes reads height + width places), and so do rows.

        Raises:
            UserError: positions at this size do not follow from those that were seen.
        """
        if sides is None:
            return math.prod(self.operation.positions)
        if self.sizes is None:
            raise UserError(
                "What this network costs is known for the inputs that it was traced with only; trace it with inputs of "
                "the size that you want to know."
            )
        small, large = self.sizes
        high, broad = (side - small for side in sides)
        if all(self.seen):
            return math.prod(_grow(corners, high, broad, large - small) for corners in zip(*self.seen, strict=True))
        if high != broad:
            raise UserError(
                f"This network takes square images only, so it has no cost at {' x '.join(map(str, sides))} px; give "
                "one number for the image size."
            )
        first, second = self.seen[0], self.seen[-1]
        if len(first) == 2:
            return math.prod(a + _steps((b - a) * high, large - small) for a, b in zip(first, second, strict=True))
        a, b = math.prod(first), math.prod(second)
        return a + _steps((b - a) * (sides[0] ** 2 - small**2), large**2 - small**2)


def _grow(corners: tuple[int, ...], high: int, broad: int, step: int) -> int:
    """What is as in `Work.seen` where the image is as much higher and broader than the small square."""
    square, tall, wide, large = corners
    return (
        square
        + _steps((tall - square) * high, step)
        + _steps((wide - square) * broad, step)
        + _steps((large - tall - wide + square) * high * broad, step, step)
    )


def _steps(amount: int, *steps: int) -> int:
    whole, rest = divmod(amount, math.prod(steps))
    if rest:
        raise UserError(f"The cost is exact only for image sizes that are multiples of {steps[0]}; round yours.")
    return whole


def _inside(module: str, names: list[str], amounts: Ids) -> int:
    return int(
        sum(amount for name, amount in zip(names, amounts.tolist(), strict=True) if name.startswith(f"{module}."))
    )


def _columns(terms: list[CostTerm]) -> Ids:
    rows = [(term.coefficient, term.first, term.second) for term in terms]
    return np.array(rows, dtype=np.int64).reshape(-1, 3).T


def _evaluate(terms: Ids, counts: Ids) -> Ids:
    coefficient, first, second = terms
    products: Ids = coefficient * counts[first] * counts[second]
    return products
