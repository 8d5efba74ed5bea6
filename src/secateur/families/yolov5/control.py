"""The control of a pruning: a dense detector scaled to the same size only by its widths."""

from __future__ import annotations

import dataclasses
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from typing import Any

import torch

from secateur.errors import UserError
from secateur.evaluation.cost import count
from secateur.families.yolov5.architecture import YOLOv5, topology_of
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import NARROWED, Checkpoint

LOG = logging.getLogger("secateur")

TOLERANCE = Fraction(1, 100)
"""Share by which the FLOPs of a control may exceed the target, and below which a smaller control counts as equal."""
MULTIPLES = (8, 4, 2, 1)
"""Multiples for widths: first the usual one of the family, which is fast on CPUs; finer ones if needed."""
VARIED = 6  # number of the widest widths that are rounded both up and down; they have the finest relative steps

Widths = tuple[int, ...]
Price = Callable[[Widths], float]


@dataclass(frozen=True)
class Narrowing:
    """How to scale the widths of a dense detector.

    Attributes:
        multiplier: factor of all widths, before rounding up or down.
        multiple: widths are multiples of it (except widths that are not changed).
        widths: designed width -> width.
        flops: FLOPs of the narrow detector for one image.
        target: FLOPs of the detector that it is compared with.
    """

    multiplier: float
    multiple: int
    widths: dict[int, int]
    flops: int
    target: int

    @property
    def share(self) -> float:
        """Its FLOPs as a share of the target."""
        return self.flops / self.target

    @property
    def distance(self) -> float:
        """Distance from the target, as a share of it; any excess counts as farther than any shortfall."""
        return abs(self.share - 1) + (1e6 if self.share > 1 + TOLERANCE else 0)

    def note(self) -> str:
        """Suffix for the title of a row; empty if the FLOPs are nearly equal."""
        return "" if abs(self.share - 1) <= TOLERANCE else f", {100 * self.share:.0f} % of the FLOPs"

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        pairs = [list(pair) for pair in self.widths.items()]
        return dataclasses.asdict(self) | {"widths": pairs, "share": self.share}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Narrowing:
        """The inverse of `to_dict`."""
        fields = {name: value for name, value in data.items() if name not in ("share", "note")}
        return cls(**fields | {"widths": {int(a): int(b) for a, b in data["widths"]}})

    def __str__(self) -> str:
        pairs = ", ".join(f"{a} -> {b}" for a, b in self.widths.items())
        return (
            f"{self.multiplier:.3f} of the dense widths, in multiples of {self.multiple} ({pairs}): "
            f"{100 * self.share:.1f} % of the FLOPs"
        )


def check_narrowing(dense: Checkpoint) -> None:
    """Checks that the widths of a detector can be scaled.

    Raises:
        UserError: the detector is not of the YOLOv5 family, or its blocks cannot be narrowed.
    """
    topology = _topology(dense)
    half = {width: max(8, math.ceil(width / 16) * 8) for width in topology.widths}
    try:
        _network(topology.with_widths(half))
    except UserError as error:
        raise UserError(f"--control is not possible for this network: {error}") from error


def narrow_widths(dense: Checkpoint, final: Checkpoint, image_size: int) -> Narrowing:
    """The widths with which the dense detector has the FLOPs of the final one, or at most 1 % more.

    One multiplier scales all widths, as `width_multiple` does. Each width is then rounded up or down to a multiple of
    8, such that the FLOPs are closest. If multiples of 8 stay more than 1 % below the target, multiples of 4, 2 or 1
    are used. The number of blocks is not changed.

    Args:
        image_size: image size in pixels for the FLOPs.

    Raises:
        UserError: the detector is not of the YOLOv5 family.
    """
    topology = _topology(dense)
    target = count(final.build(), image_size).flops
    price = _pricing(topology, image_size)
    best: Narrowing | None = None
    for multiple, multiplier in _multipliers(topology.widths, price, target):
        if best is not None and not best.note():
            break
        for widths in _roundings(topology.widths, multiplier, multiple):
            if not math.isfinite(price(widths)):
                continue
            pairs = dict(zip(topology.widths, widths, strict=True))
            found = Narrowing(float(multiplier), multiple, pairs, int(price(widths)), target)
            if best is None or found.distance < best.distance:
                best = found
    if best is None:
        raise UserError("--control is not possible for this network: its blocks cannot be narrowed.")
    LOG.info("Control: %s", best)
    return best


def narrow_start(dense: Checkpoint, start: Checkpoint, narrowing: Narrowing, seed: int) -> Checkpoint:
    """The narrow detector before its training: tensors of `start` where name and shape match, the others initialised.

    Args:
        dense: provides blocks, classes and image size.
        start: checkpoint that the run started from, for example official weights.
    """
    torch.manual_seed(seed)
    network = Detector(_topology(dense).with_widths(narrowing.widths), dense.names)
    kept = tuple(entry for entry in dense.history if entry.verb == NARROWED)
    fresh = Checkpoint.of(network, image_size=dense.image_size, training={"single_cls": dense.single_cls}, history=kept)
    same = {
        name: start.tensors[name].to(tensor.dtype)
        for name, tensor in fresh.tensors.items()
        if name in start.tensors and start.tensors[name].shape == tensor.shape
    }
    LOG.info(
        "Control: %d of %d tensors are from the start of the run, the others are initialised",
        len(same),
        len(fresh.tensors),
    )
    return dataclasses.replace(fresh, tensors={**fresh.tensors, **same})


def _topology(dense: Checkpoint) -> Topology:
    if not isinstance(dense.architecture, YOLOv5):
        raise UserError(
            f"--control scales the widths of a YOLOv5 network, but this is a {dense.architecture}. Omit --control."
        )
    return topology_of(dense)


def _network(topology: Topology) -> Detector:
    """A network of shapes without values."""
    with torch.device("meta"), warnings.catch_warnings():
        # A network that is too narrow raises a UserError below, but PyTorch warns first.
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return Detector(topology)


def _pricing(topology: Topology, image_size: int) -> Price:
    """FLOPs of the network by its widths (in the order of `topology.widths`); infinite if it cannot be built."""
    known: dict[Widths, float] = {}

    def price(widths: Widths) -> float:
        if widths not in known:
            try:
                narrow = topology.with_widths(dict(zip(topology.widths, widths, strict=True)))
                known[widths] = count(_network(narrow), image_size).flops
            except UserError:  # too narrow for a block, or not a multiple of its groups
                known[widths] = math.inf
        return known[widths]

    return price


def _multipliers(designed: Widths, price: Price, target: int) -> Iterator[tuple[int, Fraction]]:
    """Candidates (multiple, multiplier), best first.

    For each multiple, bisection finds the largest multiplier whose widths, rounded up, stay within the target. Its
    neighbours follow, because rounding may bring them closer.
    """
    for multiple in MULTIPLES:
        # Rounding only changes where a width is a multiple, so one multiplier represents each interval between two such
        # points. Fractions avoid missing one.
        steps = {Fraction(k * multiple, width) for width in designed for k in range(width // multiple + 1)}
        multipliers = [(a + b) / 2 for a, b in pairwise(sorted({*steps, Fraction(1)}))] + [Fraction(1)]
        low, high = 0, len(multipliers)  # the first is tried even if it costs too much
        while high - low > 1:
            middle = (low + high) // 2
            upwards = tuple(_rounded(width, multipliers[middle], multiple)[-1] for width in designed)
            if price(upwards) <= (1 + TOLERANCE) * target:
                low = middle
            else:
                high = middle
        for place in (low, low - 1, low + 1, low - 2, low + 2):
            if 0 <= place < len(multipliers):
                yield multiple, multipliers[place]


def _roundings(designed: Widths, multiplier: Fraction, multiple: int) -> Iterator[Widths]:
    """All choices of rounding each width up or down; only the widest few are varied, the others are rounded up."""
    choices = [_rounded(width, multiplier, multiple) for width in designed]
    return product(
        *[both if width in designed[-VARIED:] else both[-1:] for width, both in zip(designed, choices, strict=True)]
    )


def _rounded(width: int, multiplier: Fraction, multiple: int) -> Widths:
    """The multiples below and above the scaled width, from one multiple to the full width; a single one if it is
    exact."""
    parts = multiplier * width / multiple
    return tuple(sorted({min(width, max(1, part) * multiple) for part in (math.floor(parts), math.ceil(parts))}))
