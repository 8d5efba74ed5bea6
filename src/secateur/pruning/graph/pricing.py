"""Cost of any selection of units: parameters and FLOPs as sums of products of kept counts, evaluated in one pass."""

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
"""Side of a square image in pixels, height and width, or None for the inputs that the network was traced with."""


@dataclass(frozen=True)
class Price:
    """Cost of a network.

    `flops` is 2 x multiply-adds of convolutions and linear layers for one image, without the products inside attention.
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
    """`coefficient` x kept entries of axis `first` x kept entries of axis `second` (axis 0 counts as 1)."""

    coefficient: int
    first: int
    second: int


class Pricing:
    """Parameters and FLOPs as sums of products of two kept counts, evaluated in one pass."""

    def __init__(self, parameters: Mapping[str, int], axes: tuple[Axis, ...], work: Sequence[Work]) -> None:
        """Args:
        parameters: number of entries of each parameter, by name.
        axes: axes of all tensors that can shrink.
        work: the operations to count.
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
        """Pricing of the network that keeps these units, bool [units]; `axes` are the axes of its tensors."""
        counts = self._counts(keep)
        parameters = dict(zip(self._names, _evaluate(self._parameters, counts).tolist(), strict=True))
        elements = _evaluate(self._operations, counts).tolist()
        work = [
            replace(item, operation=replace(item.operation, elements=left))
            for item, left in zip(self._work, elements, strict=True)
        ]
        return Pricing(parameters, axes, work)

    def price(self, keep: Bools, image_size: ImageSize = None) -> Price:
        """See `ChannelGraph.price`; `keep` is bool [units]."""
        counts = self._counts(keep)
        parameters = _evaluate(self._parameters, counts)
        flops = 2 * _evaluate(self._operations, counts) * self._positions(image_size)
        return Price(int(parameters.sum()), int(flops.sum()))

    @property
    def names(self) -> list[str]:
        """Names of the parameters, in the order of the vectors that `weighted` uses."""
        return list(self._names)

    def weighted(self, keep: Bools | None, weights: Floats) -> Floats:
        """Kept entries of each parameter times a weight: float64 [parameters].

        Args:
            keep: bool [units]; None: all.
            weights: weight per entry, [parameters], such as bytes per entry in a file.
        """
        return weights * _evaluate(self._parameters, self._counts(keep))

    def weighted_savings(self, weights: Floats, units: int) -> Floats:
        """First-order saving in the sum of `weighted` when only that unit is removed: float64 [units]."""
        return self._savings(self._parameters, weights, units)

    def parameter_savings(self, units: int) -> Floats:
        """First-order saving in parameters when only that unit is removed: float64 [units]."""
        return self._savings(self._parameters, np.ones(self._parameters.shape[1], dtype=np.float64), units)

    def flop_savings(self, units: int, image_size: ImageSize = None) -> Floats:
        """First-order saving in FLOPs when only that unit is removed: float64 [units]."""
        return self._savings(self._operations, 2.0 * self._positions(image_size).astype(np.float64), units)

    def parameters_inside(self, module: str) -> int:
        """Parameters of the module with this name, in the network as it is."""
        return _inside(module, self._names, _evaluate(self._parameters, self._counts(None)))

    def flops_inside(self, module: str, image_size: ImageSize = None) -> int:
        """FLOPs of the module with this name, in the network as it is."""
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
    """One operation with its positions at four image sizes, from which the number at any size follows exactly.

    Attributes:
        operation: the operation, with its positions at the traced inputs.
        sizes: a small and a large side; None if the network does not take one image, or accepts only one size.
        seen: positions for images of height and width (small, small), (large, small), (small, large) and (large,
            large); () for the second and third if the network accepts only square images.
    """

    operation: Operation
    sizes: tuple[int, int] | None = None
    seen: tuple[tuple[int, ...], ...] = ()

    def positions(self, sides: Sides | None) -> int:
        """Number of positions at an image size.

        Each side of a map, and each number of rows, grows linearly with the height or the width of the image, with
        their product, or with a sum of these (attention along both axes reads height + width positions).

        Raises:
            UserError: the positions at this size cannot be derived from the measured ones.
        """
        if sides is None:
            return math.prod(self.operation.positions)
        if self.sizes is None:
            raise UserError(
                "The cost of this network is only available for the inputs that it was traced with. Trace it with "
                "inputs of the size you need."
            )
        small, large = self.sizes
        high, broad = (side - small for side in sides)
        if all(self.seen):
            return math.prod(_grow(corners, high, broad, large - small) for corners in zip(*self.seen, strict=True))
        if high != broad:
            raise UserError(
                f"This network accepts only square images, so it has no cost at {' x '.join(map(str, sides))} px. Set "
                "one number as the image size."
            )
        first, second = self.seen[0], self.seen[-1]
        if len(first) == 2:
            return math.prod(a + _steps((b - a) * high, large - small) for a, b in zip(first, second, strict=True))
        a, b = math.prod(first), math.prod(second)
        return a + _steps((b - a) * (sides[0] ** 2 - small**2), large**2 - small**2)


def _grow(corners: tuple[int, ...], high: int, broad: int, step: int) -> int:
    """Interpolates the positions of `Work.seen` to an image that is larger than the small square by these numbers of
    steps."""
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
        raise UserError(f"The image size must be a multiple of {steps[0]}.")
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
