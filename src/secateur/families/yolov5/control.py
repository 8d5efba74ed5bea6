"""A dense detector made as small as a pruned one by its widths alone: the control that pruning has to beat."""

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
"""Share of the FLOPs by which a control may be larger, and by which a smaller one is as good as equal."""
MULTIPLES = (8, 4, 2, 1)
"""Of which widths are multiples: first what the family rounds to and what CPUs compute fast, finer where need be."""
VARIED = 6  # widths that are rounded both ways; the widest, for they make the smallest steps

Widths = tuple[int, ...]
Price = Callable[[Widths], float]


@dataclass(frozen=True)
class Narrowing:
    """How the widths of a dense detector are scaled.

    Attributes:
        multiplier: of all widths, before they are rounded up or down.
        multiple: of which the widths are multiples (but for those that stay as designed).
        widths: designed width -> width.
        flops: of the narrow detector, for one image.
        target: FLOPs of the detector that it is to be compared with.
    """

    multiplier: float
    multiple: int
    widths: dict[int, int]
    flops: int
    target: int

    @property
    def share(self) -> float:
        """Its FLOPs against the target's."""
        return self.flops / self.target

    @property
    def distance(self) -> float:
        """How far off it is, as a share of the target; any that is too large is farther than any that is not."""
        return abs(self.share - 1) + (1e6 if self.share > 1 + TOLERANCE else 0)

    def note(self) -> str:
        """What the title of a row adds: nothing where the FLOPs are as good as equal."""
        return "" if abs(self.share - 1) <= TOLERANCE else f", {100 * self.share:.0f} % of the FLOPs"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
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
    """Looks whether the widths of a detector can be scaled at all.

    Raises:
        UserError: it is of another family than YOLOv5's, or its blocks cannot be made narrower.
    """
    topology = _topology(dense)
    half = {width: max(8, math.ceil(width / 16) * 8) for width in topology.widths}
    try:
        _network(topology.with_widths(half))
    except UserError as error:
        raise UserError(f"No control can be made of this network: {error}") from error


def narrow_widths(dense: Checkpoint, final: Checkpoint, image_size: int) -> Narrowing:
    """The widths with which the dense detector has the FLOPs of the final one, or at most 1 % more.

    One multiplier scales all widths, as `width_multiple` does; each is then rounded up or down to a multiple of 8 so
    that the FLOPs are the nearest. Where multiples of 8 stay more than 1 % below, multiples of 4, 2 or 1 are taken. The
    number of blocks stays.

    Args:
        image_size: px for which FLOPs are counted.

    Raises:
        UserError: the detector is of another family than YOLOv5's.
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
        raise UserError("No control can be made of this network: its blocks cannot be made narrower.")
    LOG.info("Control: %s", best)
    return best


def narrow_start(dense: Checkpoint, start: Checkpoint, narrowing: Narrowing, seed: int) -> Checkpoint:
    """The narrow detector before its training: tensors of `start` where name and shape agree, the rest fresh.

    Args:
        dense: whose blocks, classes and image size it has.
        start: what the run started from: official weights, for example.
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
        "Control: %d of %d tensors are those that the run starts from, the rest is fresh", len(same), len(fresh.tensors)
    )
    return dataclasses.replace(fresh, tensors={**fresh.tensors, **same})


def _topology(dense: Checkpoint) -> Topology:
    if not isinstance(dense.architecture, YOLOv5):
        raise UserError(
            f"A control is made by scaling the widths of a YOLOv5 network; this is a {dense.architecture}: "
            "leave --control out."
        )
    return topology_of(dense)


def _network(topology: Topology) -> Detector:
    """A network of shapes alone."""
    with torch.device("meta"), warnings.catch_warnings():
        # One that is too narrow is refused with an error of ours, but PyTorch has its say first.
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return Detector(topology)


def _pricing(topology: Topology, image_size: int) -> Price:
    """FLOPs of the network by its widths (in the order of `topology.widths`), infinite for one that cannot be built."""
    known: dict[Widths, float] = {}

    def price(widths: Widths) -> float:
        if widths not in known:
            try:
                narrow = topology.with_widths(dict(zip(topology.widths, widths, strict=True)))
                known[widths] = count(_network(narrow), image_size).flops
            except UserError:  # too narrow for a block, or no multiple of its groups
                known[widths] = math.inf
        return known[widths]

    return price


def _multipliers(designed: Widths, price: Price, target: int) -> Iterator[tuple[int, Fraction]]:
    """(multiple, multiplier) to look at, the most wanted first.

    For each multiple, the largest multiplier whose widths, rounded up, cost no more than is allowed is found by
    bisection; its neighbours follow, for their widths may be rounded to something nearer.
    """
    for multiple in MULTIPLES:
        # Roundings change where a width is a multiple, so one multiplier between two such places stands for all there.
        # Fractions, so that none is missed.
        steps = {Fraction(k * multiple, width) for width in designed for k in range(width // multiple + 1)}
        multipliers = [(a + b) / 2 for a, b in pairwise(sorted({*steps, Fraction(1)}))] + [Fraction(1)]
        low, high = 0, len(multipliers)  # the first is looked at even where it costs too much
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
    """Every choice of rounding each width up or down; narrow ones beyond the first few are rounded up."""
    choices = [_rounded(width, multiplier, multiple) for width in designed]
    return product(
        *[both if width in designed[-VARIED:] else both[-1:] for width, both in zip(designed, choices, strict=True)]
    )


def _rounded(width: int, multiplier: Fraction, multiple: int) -> Widths:
    """The multiples below and above the scaled width, never none and never more than the width; one where it is one."""
    parts = multiplier * width / multiple
    return tuple(sorted({min(width, max(1, part) * multiple) for part in (math.floor(parts), math.ceil(parts))}))
