"""Chains of residual blocks of a network of Ultralytics: which blocks can be removed, and networks with shorter
chains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UserError, told
from secateur.layers import match_numbers_
from secateur.pruning.depth.chains import ChainBlock

BLOCKS = {
    "Bottleneck": ("cv2",),
    "RepBottleneck": ("cv2",),
    "CIB": ("cv1.4",),
    "PSABlock": ("attn.proj", "ffn.1"),
    "ABlock": ("attn.proj", "mlp.1"),
}
"""Classes of blocks that preserve the width, and the names of the convolutions at the end of their branches."""
_JOIN = frozenset(("C2f", "C3k2", "C2fCIB", "C2fPSA"))
"""Classes whose last convolution reads two halves and the output of every block of the chain."""


@dataclass(frozen=True)
class Chain:
    """A run of blocks in a network of the package.

    Attributes:
        name: name of the run in the module of the package ("model.4.m").
        blocks: its blocks.
        reader: name of the convolution that reads the outputs of all blocks; "" if only the last output is read.
    """

    name: str
    blocks: nn.Sequential | nn.ModuleList
    reader: str = ""


def chains_of(model: nn.Module) -> Iterator[Chain]:
    """The chains of the module of the package, in order."""
    modules = dict(model.named_modules())
    for name, module in modules.items():
        parent, _, last = name.rpartition(".")
        kind = type(modules[parent]).__name__ if name else ""
        joins = kind in _JOIN and last == "m" and isinstance(module, nn.ModuleList)
        if (joins or isinstance(module, nn.Sequential)) and _are_blocks(module):
            yield Chain(name, module, f"{parent}.cv2.conv" if joins else "")


def _are_blocks(chain: nn.Module) -> bool:
    blocks = [type(block).__name__ for block in chain.children()]
    return bool(blocks) and all(kind in BLOCKS for kind in blocks)


def chain_blocks(model: nn.Module, run: Callable[[], object], prefix: str) -> tuple[ChainBlock, ...]:
    """All blocks of all chains.

    Args:
        run: runs a forward pass.
        prefix: prefix of the names in the package.
    """
    chains = list(chains_of(model))
    shapes: dict[nn.Module, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes[module] = tuple(inputs[0].shape[1:]), tuple(output.shape[1:])

    handles = [block.register_forward_hook(note) for chain in chains for block in chain.blocks]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return tuple(
        ChainBlock(
            f"{prefix}{chain.name}.{index}", f"{prefix}{chain.name}", index, len(chain.blocks),
            bool(getattr(block, "add", True)), *shapes[block],
            ends=tuple(
                (f"{prefix}{chain.name}.{index}.{end}.conv", f"{prefix}{chain.name}.{index}.{end}.bn")
                for end in BLOCKS[type(block).__name__]
            ),
        )
        for chain in chains
        for index, block in enumerate(chain.blocks)
    )  # fmt: skip


def joined(
    model: nn.Module, kept: Mapping[str, Sequence[int]], named: Mapping[str, Tensor], prefix: str
) -> dict[str, Tensor]:
    """Tensors or masks, any shape, by name, in which the columns of removed blocks are added to those of their inputs.

    Without its branch, a residual block outputs its input, so two runs of columns read the same values.

    Args:
        kept: indices of the kept blocks, by chain.
        prefix: prefix of the names in the package and in `named`.
    """
    result = dict(named)
    for chain in chains_of(model):
        stay, weight = kept.get(f"{prefix}{chain.name}"), f"{prefix}{chain.reader}.weight"
        if not chain.reader or stay is None or weight not in named:
            continue
        widths = _widths(model, chain)
        first, second, *runs = named[weight].split(widths, dim=1)
        parts = [first, second]
        for index, run in enumerate(runs):
            if index in stay:
                parts.append(run)
            else:
                parts[-1] = parts[-1] + run
        result[weight] = torch.cat(parts, dim=1)
    return result


def _widths(model: nn.Module, chain: Chain) -> list[int]:
    """Channels of the two halves and of the output of every block, in the order of the reader."""
    outputs = [_output(block) for block in chain.blocks]
    total = model.get_submodule(chain.reader).get_parameter("weight").shape[1]
    half = (total - sum(outputs)) // 2
    return [half, half, *outputs]


def _output(block: Any) -> int:
    end = block.get_submodule(BLOCKS[type(block).__name__][-1])
    return int(end.conv.weight.shape[0])


def lengths_of(model: nn.Module) -> dict[str, int]:
    """Number of blocks of each chain."""
    return {chain.name: len(chain.blocks) for chain in chains_of(model)}


def shorten_(model: nn.Module, lengths: Mapping[str, int]) -> None:
    """Removes blocks from the end of chains of an untrained network.

    Raises:
        UserError: a chain does not exist or is too short.
    """
    known = {chain.name: chain for chain in chains_of(model)}
    for name, length in lengths.items():
        chain = known.get(name)
        if chain is None or not 0 <= length <= len(chain.blocks):
            raise UserError(f"its chain {told(name, 60)} cannot have {length} blocks")
        widths = _widths(model, chain) if chain.reader else []
        del chain.blocks[length:]
        if chain.reader:
            reader = model.get_submodule(chain.reader)
            reader.weight = nn.Parameter(
                reader.get_parameter("weight").detach()[:, : sum(widths[: 2 + length])].clone()
            )
            match_numbers_(reader, None)
