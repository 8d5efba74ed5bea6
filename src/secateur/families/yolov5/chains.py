"""Chains of bottlenecks of a detector: their blocks, and topologies with shorter chains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from secateur.families.yolov5.blocks import BLOCKS, Link, link_of
from secateur.families.yolov5.topology import Block, Topology
from secateur.layers import hooked
from secateur.pruning.depth.chains import ChainBlock

Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
"""Shapes [C, H, W] of input and output of blocks by name."""


def chain_blocks(topology: Topology, rows: nn.ModuleList, shapes: Shapes, designed: Shapes) -> tuple[ChainBlock, ...]:
    """All blocks of all chains, in order.

    Args:
        topology: topology of the detector.
        rows: its modules, one per row of the topology.
        shapes: shapes of the current detector (`block_shapes`).
        designed: shapes of the detector before any cut.
    """
    found = []
    for chain, links in _chains(topology, rows):
        for index, (name, block, link) in enumerate(links):
            before, after = designed[name]
            ends = tuple((f"{name}.{end}.conv", f"{name}.{end}.bn") for end in link.ends)
            found.append(
                ChainBlock(
                    name, chain, index, len(links), link.residual(block), *shapes[name],
                    designed=before == after, ends=ends, collapses=chain.count(".") == 1,
                )
            )  # fmt: skip
    return tuple(found)


def block_shapes(topology: Topology, rows: nn.ModuleList, run: Callable[[], object]) -> Shapes:
    """Input and output shapes of all blocks of all chains, recorded during `run`, which runs a forward pass."""
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            shapes[name] = tuple(inputs[0].shape[1:]), tuple(output.shape[1:])

        return note

    links = [link for _, links in _chains(topology, rows) for link in links]
    with hooked(block.register_forward_hook(watch(name)) for name, block, _ in links):
        run()
    return shapes


def shorter_topology(topology: Topology, kept: Mapping[str, Sequence[int]]) -> Topology:
    """The topology whose chains keep only these blocks; a row without blocks becomes an identity, so that row
    numbers stay."""
    rows = list(topology.blocks)
    for chain, indices in kept.items():
        number, inner = int(chain.split(".")[1]), chain.count(".") > 1
        row = replace(rows[number], repeats=len(indices), args=_shorter_arguments(rows[number], indices))
        rows[number] = row if indices or inner else Block(row.sources, 1, "nn.Identity", ())
    return replace(topology, blocks=tuple(rows))


def _shorter_arguments(row: Block, kept: Sequence[int]) -> tuple[Any, ...]:
    """The arguments of a row with only these links; listed shortcuts are removed with their links."""
    place = BLOCKS[row.kind].shortcuts
    if not place or len(row.args) <= place or not isinstance(row.args[place], tuple):
        return row.args
    return (*row.args[:place], tuple(row.args[place][index] for index in kept), *row.args[place + 1 :])


def _chains(topology: Topology, rows: nn.ModuleList) -> Iterator[tuple[str, list[tuple[str, nn.Module, Link]]]]:
    """Chains with their blocks by name: rows that are such blocks, and chains inside stages."""
    for number, (row, module) in enumerate(zip(topology.blocks, rows, strict=True)):
        inner = BLOCKS[row.kind].inner
        name, chain = (f"model.{number}.{inner}", module.get_submodule(inner)) if inner else (f"model.{number}", module)
        if isinstance(chain, nn.Sequential):
            blocks = [(f"{name}.{index}", block) for index, block in enumerate(chain)]
        else:
            blocks = [(name, chain)]
        links = [(name, block, link) for name, block in blocks if (link := link_of(block)) is not None]
        if links and len(links) == len(blocks):
            yield name, links
