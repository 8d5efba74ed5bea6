"""Selects and removes bottlenecks, and builds the network without them or without everything that a plan removes.

A bottleneck x + F(x) refines its input, so it can be removed as a whole; a chain may become empty. Channel pruning does
not depend on this: it traces the shorter network like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from secateur.errors import UserError
from secateur.pruning.depth.chains import ChainBlock, chained, left_of
from secateur.pruning.depth.means import match_means_
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.layer_scores import layer_scores
from secateur.pruning.plan import Plan
from secateur.pruning.removal import Removal
from secateur.pruning.settings import LayerSettings
from secateur.pruning.surgery import cut

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Selection:
    """Blocks to remove, in network order, their scores, and notes about the selection."""

    blocks: tuple[str, ...]
    scores: dict[str, float]
    notes: tuple[str, ...] = ()


def members(network: nn.Module) -> tuple[ChainBlock, ...]:
    """All blocks of all chains, removable or not, in network order.

    Raises:
        UserError: the network does not list its chains.
    """
    return tuple(chained(network).chain_blocks())


def candidates(network: nn.Module, *, any_layer: bool = False) -> tuple[ChainBlock, ...]:
    """Blocks that can be removed one at a time: residual blocks and, with `any_layer`, all blocks that preserve the
    shape.

    The result is empty for a detector without chains of bottlenecks (yolov3-tiny).

    Raises:
        UserError: the network does not list its chains.
    """
    return tuple(block for block in members(network) if _is_free(block, any_layer))


def select(
    network: nn.Module,
    settings: LayerSettings,
    batches: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
) -> Selection:
    """Selects the `settings.layers` blocks (or chains) with the lowest scores, within the guards.

    Args:
        network: a network that lists its chains (`Chained`).
        settings: number of blocks, score and guards.
        batches: input of the score, on the device of the network; see `layer_scores.LayerEvidence`.
        loss: see `layer_scores.LayerEvidence`.

    Raises:
        UserError: the network has no chains, the score is unknown, or the score needs images and none are given.
    """
    known = members(network)
    notes = []
    narrow = [block.name for block in known if not _is_passable(block)]
    if settings.any_layer and narrow:
        notes.append(f"Not removable, because input and output widths differ: {', '.join(narrow)}.")
    free = [block for block in known if _is_free(block, settings.any_layer)]
    scores = layer_scores(network, [block.name for block in free], settings.layer_score, batches, loss)
    choice = choose(
        free, scores, settings.layers, min_bottlenecks=settings.min_bottlenecks, whole_chains=settings.chains
    )
    return replace(choice, notes=(*notes, *choice.notes))


def choose(
    free: Sequence[ChainBlock],
    scores: Mapping[str, float],
    count: int,
    *,
    min_bottlenecks: int = 0,
    whole_chains: bool = False,
) -> Selection:
    """Selects the `count` blocks with the lowest scores, or the chains with the lowest summed scores; on a tie, later
    ones stay.

    Args:
        free: removable blocks, in network order.
        scores: score of each of them.
        count: number of blocks, or of chains with `whole_chains`, to remove; if the guards allow fewer, fewer are
            removed and a note is added.
        min_bottlenecks: minimum number of blocks in every chain.
        whole_chains: remove all blocks of a chain together, and only chains whose blocks can all be removed.
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
        notes.append(f"{count} {what} requested, but only {removed} can be removed.")
    blocks = tuple(c.name for c in free if c.name in gone)
    return Selection(blocks, {c.name: scores[c.name] for c in free}, tuple(notes))


def removal_of(network: nn.Module, blocks: Iterable[str]) -> Removal:
    """The removal of these blocks, after checking that the widths of the remaining blocks of each chain match.

    Raises:
        UserError: a name is not a block of a chain, or the widths around the removed blocks differ.
    """
    known = members(network)
    collapsing = [block.chain for block in known if block.collapses]
    removal = Removal.of(blocks, {block.chain: block.length for block in known}, collapsing)
    for chain, kept in removal.kept.items():
        inside = [block for block in known if block.chain == chain]
        shape = inside[0].inputs
        for block in (inside[i] for i in kept):
            if block.inputs != shape:
                raise UserError(
                    f"{block.name} reads {block.inputs[0]} channels but would get {shape[0]}. Keep the block before it."
                )
            shape = block.outputs
        gone = [block for block in inside if block.index not in kept]
        if shape != inside[-1].outputs or not all(block.designed for block in gone):
            raise UserError(f"{gone[-1].name} cannot be removed: its input and output widths differ.")
    return removal


def remove(network: Network, blocks: Iterable[str], images: Tensor | None = None) -> Network:
    """A new network without these blocks; the given network is not changed.

    All other tensors are copied bit for bit, except columns that are summed (`Joining`).

    Args:
        images: float [B, C, H, W] in 0..1, on the device of the network. If given, the mean contribution of the removed
            blocks is compensated for (`match_means_`).

    Raises:
        UserError: see `removal_of`.
    """
    removal = removal_of(network, blocks)
    kept = left_of(network, removal, network.state_dict())
    smaller = cast(Network, chained(network).without_blocks(removal.kept, kept)).train(network.training)
    for name, parameter in network.named_parameters():
        new = removal.renamed(name)
        if new is not None:
            smaller.get_parameter(new).requires_grad_(parameter.requires_grad)
    if images is not None and removal.blocks:
        match_means_(smaller, network, removal.tensors({name: name for name, _ in network.named_modules()}), images)
    return smaller


def without_removed_blocks(network: Network, plan: Plan) -> Network:
    """The network without the blocks that the plan removes; the network itself if there are none."""
    return remove(network, plan.removed_blocks) if plan.removed_blocks else network


def carve(network: Network, plan: Plan, traced: Callable[[Network], ChannelGraph] = trace) -> Network:
    """A new network without the blocks and channels that the plan removes; the given network is not changed.

    Raises:
        UserError: the plan was made for another network.
    """
    shorter = without_removed_blocks(network, plan)
    return cut(shorter, traced(shorter), plan)


def _is_passable(block: ChainBlock) -> bool:
    """Whether the input of a block can replace its output."""
    return block.designed and block.inputs == block.outputs


def _is_free(block: ChainBlock, any_layer: bool) -> bool:
    return _is_passable(block) and (block.residual or any_layer)
