"""Layer pruning: which bottlenecks of a detector can go, which ones do, and the detector without them.

A bottleneck x + F(x) is a correction of its input, so it can be taken out whole; chains may become empty. Channel
pruning knows nothing of this: it traces the shorter detector like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from secateur.detector.blocks import Bottleneck, CrossConv
from secateur.detector.checkpoint import Checkpoint
from secateur.detector.ghost import GhostBottleneck
from secateur.detector.model import Detector
from secateur.errors import UserError
from secateur.pruning.layer_scores import layer_scores, observed
from secateur.pruning.removal import Removal, member_name
from secateur.pruning.repair import match_means_
from secateur.pruning.settings import PruneSettings

BLOCKS = (Bottleneck, CrossConv, GhostBottleneck)
"""Blocks that may be taken out of a chain."""

_PROBE_SIZE = 256  # px; a multiple of every stride that the family has


@dataclass(frozen=True)
class Candidate:
    """A block of a chain.

    Attributes:
        name: of the block, e.g. "model.4.m.1".
        chain: name of the chain, e.g. "model.4.m".
        index: place in the chain, from 0.
        length: blocks of the chain.
        residual: whether it adds its input to its output.
        inputs: (channels, height, width) that it reads from a 256 px image.
        outputs: (channels, height, width) that it gives.
        designed: whether the topology, before any cut, gives it one width; else its sums would be built otherwise.
    """

    name: str
    chain: str
    index: int
    length: int
    residual: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    designed: bool = True

    @property
    def passable(self) -> bool:
        """Whether the input could take the place of the output."""
        return self.designed and self.inputs == self.outputs


@dataclass(frozen=True)
class Selection:
    """Blocks to remove, in the order of the detector, their scores, and what there is to say about the choice."""

    blocks: tuple[str, ...]
    scores: dict[str, float]
    notes: tuple[str, ...] = ()


def members(detector: Detector) -> tuple[Candidate, ...]:
    """Every bottleneck-like block of every chain, in the order of the detector, removable or not."""
    shapes = _shapes(detector)
    with torch.device("meta"):
        designed = _shapes(Detector(detector.topology, detector.names))
    found = []
    for chain, blocks in _chains(detector):
        for index, block in enumerate(blocks):
            name = member_name(chain, index, len(blocks))
            first, last = designed[name]
            found.append(
                Candidate(name, chain, index, len(blocks), _is_residual(block), *shapes[name], designed=first == last)
            )
    return tuple(found)


def candidates(detector: Detector, *, any_layer: bool = False) -> tuple[Candidate, ...]:
    """Blocks that can be removed one by one: residual ones and, with `any_layer`, all that keep the shape.

    A detector without chains of bottlenecks (yolov3-tiny) has none.
    """
    return tuple(c for c in members(detector) if _is_free(c, any_layer))


def select(
    detector: Detector,
    settings: PruneSettings,
    batches: Iterable[Any] | None = None,
    loss: Callable[[Detector, Any], Tensor] | None = None,
) -> Selection:
    """The `settings.layers` blocks (or chains) of lowest score, within the guards.

    Args:
        settings: `layers`, `layer_score`, `any_layer`, `min_bottlenecks` and `chains` are read.
        batches: what the score reads: see `layer_scores.Evidence`.
        loss: as there.

    Raises:
        UserError: unknown score, or one without the images that it reads.
    """
    known = members(detector)
    notes = []
    narrow = [c.name for c in known if not c.passable]
    if settings.any_layer and narrow:
        notes.append(f"Not removable, because the widths before and after them differ: {', '.join(narrow)}.")
    free = [c for c in known if _is_free(c, settings.any_layer)]
    scores = layer_scores(detector, [c.name for c in free], settings.layer_score, batches, loss)
    choice = choose(
        free, scores, settings.layers, min_bottlenecks=settings.min_bottlenecks, whole_chains=settings.chains
    )
    return replace(choice, notes=(*notes, *choice.notes))


def choose(
    free: Sequence[Candidate],
    scores: Mapping[str, float],
    count: int,
    *,
    min_bottlenecks: int = 0,
    whole_chains: bool = False,
) -> Selection:
    """The `count` blocks of lowest score, or chains of lowest summed score; equal scores: the later ones stay.

    Args:
        free: blocks that may go, in the order of the detector.
        scores: of each of them.
        count: blocks, or chains with `whole_chains`, to remove; fewer go, with a note, where the guards leave fewer.
        min_bottlenecks: blocks that every chain keeps.
        whole_chains: the blocks of a chain go together, if all of them may.
    """
    units = [[c] for c in free]
    if whole_chains:
        chains = [list(chain) for _, chain in groupby(free, key=lambda c: c.chain)]
        units = [chain for chain in chains if len(chain) == chain[0].length]
    left = {c.chain: c.length for c in free}
    gone: set[str] = set()
    removed = 0
    for unit in sorted(units, key=lambda unit: sum(scores[c.name] for c in unit)):
        chain = unit[0].chain
        if removed < count and left[chain] - len(unit) >= min_bottlenecks:
            left[chain] -= len(unit)
            gone |= {c.name for c in unit}
            removed += 1
    notes = []
    if removed < count:
        what = "chains of bottlenecks" if whole_chains else "bottlenecks"
        notes.append(f"{count} {what} were to go; {removed} can, and are removed.")
    blocks = tuple(c.name for c in free if c.name in gone)
    return Selection(blocks, {c.name: scores[c.name] for c in free}, tuple(notes))


def removal_of(detector: Detector, blocks: Iterable[str]) -> Removal:
    """The removal of these blocks, checked: what is left of each chain has to fit together.

    Raises:
        UserError: a name is no block of a chain, or the widths around the removed blocks differ.
    """
    known = members(detector)
    removal = Removal.of(blocks, {c.chain: c.length for c in known})
    for chain, kept in removal.kept.items():
        inside = [c for c in known if c.chain == chain]
        shape = inside[0].inputs
        for c in (inside[i] for i in kept):
            if c.inputs != shape:
                raise UserError(f"{c.name} reads {c.inputs[0]} channels and would get {shape[0]}; keep what is before.")
            shape = c.outputs
        gone = [c for c in inside if c.index not in kept]
        if shape != inside[-1].outputs or not all(c.designed for c in gone):
            raise UserError(f"{gone[-1].name} changes the width, so it cannot be removed.")
    return removal


def remove(detector: Detector, blocks: Iterable[str], images: Tensor | None = None) -> Detector:
    """A new detector without these blocks; the old one is left alone.

    Tensors of all other layers are copied bit for bit, unless `images` [B, C, H, W] in 0..1 are given: what the removed
    blocks added on average is then made up for (`repair.match_means_`).

    Raises:
        UserError: as `removal_of`.
    """
    removal = removal_of(detector, blocks)
    whole = Checkpoint.of(detector)
    shorter = replace(whole, topology=removal.topology(whole.topology), tensors=removal.tensors(whole.tensors))
    smaller = shorter.detector().to(detector.head.anchors).train(detector.training)
    for name, parameter in detector.named_parameters():
        new = removal.renamed(name)
        if new is not None:
            smaller.get_parameter(new).requires_grad_(parameter.requires_grad)
    if images is not None and removal.blocks:
        match_means_(smaller, detector, removal.tensors({n: n for n, _ in detector.named_modules()}), images)
    return smaller


def _is_free(candidate: Candidate, any_layer: bool) -> bool:
    return candidate.passable and (candidate.residual or any_layer)


def _is_residual(block: nn.Module) -> bool:
    return isinstance(block.shortcut, nn.Identity) if isinstance(block, GhostBottleneck) else bool(block.add)


def _chains(detector: Detector) -> list[tuple[str, list[nn.Module]]]:
    """Chains by name: rows of the topology that are such blocks, and what is inside of stages."""
    found: list[tuple[str, list[nn.Module]]] = []
    for number, row in enumerate(detector.model):
        inner = getattr(row, "m", None)
        name, chain = (f"model.{number}.m", inner) if isinstance(inner, nn.Sequential) else (f"model.{number}", row)
        blocks = list(chain) if isinstance(chain, nn.Sequential) else [chain]
        if blocks and all(isinstance(block, BLOCKS) for block in blocks):
            found.append((name, blocks))
    return found


def _shapes(detector: Detector) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes [C, H, W] of input and output of every block of every chain."""
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def watch(name: str, x: Tensor, y: Tensor) -> None:
        shapes[name] = tuple(x.shape[1:]), tuple(y.shape[1:])

    blocks = {member_name(name, i, len(chain)): b for name, chain in _chains(detector) for i, b in enumerate(chain)}
    with observed(blocks, watch):
        detector.run_shapes(_PROBE_SIZE)
    return shapes
