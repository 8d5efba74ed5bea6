"""Turns a topology into modules: a table from the kind of a block to the function that builds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from secateur.detector import blocks as B
from secateur.detector.attention import C3TR
from secateur.detector.ghost import C3Ghost, GhostBottleneck, GhostConv
from secateur.detector.head import Detect
from secateur.detector.topology import Topology
from secateur.errors import UserError


@dataclass(frozen=True)
class Site:
    """Where a block is to stand: widths of its inputs, repeats, arguments, and the model's activation."""

    widths: tuple[int, ...]
    repeats: int
    args: tuple[Any, ...]
    activation: str


Builder = Callable[[Site], tuple[nn.Module, int]]


def _repeated(block: Callable[..., nn.Module]) -> Builder:
    """Blocks that repeat what is inside them."""

    def build(site: Site) -> tuple[nn.Module, int]:
        width, *rest = site.args
        return block(site.widths[0], width, site.repeats, *rest, act=site.activation), width

    return build


def _chained(block: Callable[..., nn.Module], *, activation: bool = True) -> Builder:
    """Blocks that are repeated one after the other."""

    def build(site: Site) -> tuple[nn.Module, int]:
        width, *rest = site.args
        options = {"act": site.activation} if activation else {}
        inputs = [site.widths[0]] + [width] * (site.repeats - 1)
        chain = [block(c1, width, *rest, **options) for c1 in inputs]
        return (chain[0] if len(chain) == 1 else nn.Sequential(*chain)), width

    return build


def _conv(site: Site) -> tuple[nn.Module, int]:
    """Conv, whose last optional argument switches its activation off (or names another)."""
    args, activation = site.args, site.activation
    if len(args) == 7:
        last, args = args[6], args[:6]
        activation = {True: activation, False: "Identity"}[last] if isinstance(last, bool) else str(last)
    return _chained(B.Conv)(Site(site.widths, site.repeats, args, activation))


def _plain(module: Callable[..., nn.Module]) -> Builder:
    """Modules that keep the width."""

    def build(site: Site) -> tuple[nn.Module, int]:
        chain = [module(*site.args) for _ in range(site.repeats)]
        return (chain[0] if len(chain) == 1 else nn.Sequential(*chain)), site.widths[0]

    return build


def _concat(site: Site) -> tuple[nn.Module, int]:
    dimension = site.args[0] if site.args else 1
    return B.Concat(dimension), sum(site.widths) if dimension == 1 else site.widths[0]


def _batch_norm(site: Site) -> tuple[nn.Module, int]:
    return nn.BatchNorm2d(site.widths[0]), site.widths[0]


BUILDERS: dict[str, Builder] = {
    "Conv": _conv,
    "DWConv": _chained(B.DWConv),
    "DWConvTranspose2d": _chained(B.DWConvTranspose2d, activation=False),
    "CrossConv": _chained(B.CrossConv),
    "Bottleneck": _chained(B.Bottleneck),
    "BottleneckCSP": _repeated(B.BottleneckCSP),
    "C3": _repeated(B.C3),
    "C3x": _repeated(B.C3x),
    "C3TR": _repeated(C3TR),
    "C3SPP": _chained(B.C3SPP),
    "C3Ghost": _repeated(C3Ghost),
    "GhostConv": _chained(GhostConv),
    "GhostBottleneck": _chained(GhostBottleneck),
    "SPP": _chained(B.SPP),
    "SPPF": _chained(B.SPPF),
    "Focus": _chained(B.Focus),
    "Concat": _concat,
    "nn.Conv2d": _chained(nn.Conv2d, activation=False),
    "nn.ConvTranspose2d": _chained(nn.ConvTranspose2d, activation=False),
    "nn.Upsample": _plain(nn.Upsample),
    "nn.MaxPool2d": _plain(nn.MaxPool2d),
    "nn.ZeroPad2d": _plain(nn.ZeroPad2d),
    "nn.Identity": _plain(nn.Identity),
    "nn.BatchNorm2d": _batch_norm,
}


def build_blocks(topology: Topology) -> nn.ModuleList:
    """Fresh modules, one a block.

    Raises:
        UserError: a block does not take its arguments.
    """
    modules: list[nn.Module] = []
    widths: list[int] = []
    for i, (block, sources) in enumerate(zip(topology.blocks, topology.absolute_sources(), strict=True)):
        inputs = tuple(topology.channels if s < 0 else widths[s] for s in sources)
        if block.kind == "Detect":
            modules.append(Detect(topology.nc, topology.anchors, inputs))
            continue
        try:
            module, width = BUILDERS[block.kind](Site(inputs, block.repeats, block.args, topology.activation))
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            raise UserError(
                f"Block {i} ({block.kind}) does not take the arguments {list(block.args)}: {error}."
            ) from error
        if width < 1 or any(p.numel() == 0 for p in module.parameters()):
            raise UserError(f"Block {i} ({block.kind}) is so narrow that a layer in it has no channels; widen it.")
        modules.append(module)
        widths.append(width)
    for module in nn.ModuleList(modules).modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03
    return nn.ModuleList(modules)
