"""Kinds of blocks of a topology, by name; each file in this folder registers its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from secateur.networks.formats.records import Record
from secateur.registry import Registry


@dataclass(frozen=True)
class Site:
    """Context in which a block is built.

    Attributes:
        widths: channels of each input.
        repeats: how often the block, or its inner block, is repeated.
        args: arguments of the row of the topology; the first one of a wide kind is its output width.
        activation: activation of the convolutions of the network.
        nc: number of classes.
        anchors: one row per level, (width, height) pairs in pixels.
    """

    widths: tuple[int, ...]
    repeats: int
    args: tuple[Any, ...]
    activation: str = "SiLU"
    nc: int = 0
    anchors: tuple[tuple[float, ...], ...] = ()


Builder = Callable[[Site], tuple[nn.Module, int]]
"""(site) -> (new modules, output width)."""

Reader = Callable[[tuple[Any, ...], Record, Sequence[Record]], tuple[Any, ...]]
"""(arguments of a row, its layer in a YOLOv5 file, the members of the chain of that layer) -> corrected arguments."""


@dataclass(frozen=True)
class Link:
    """Properties of a block in a chain: consecutive blocks of the same kind, some of which can be removed.

    Attributes:
        module: class of the block.
        residual: whether the block adds its input to the output of its branch.
        ends: names, inside the block, of the `Conv`s at the end of the branch.
    """

    module: type[nn.Module]
    residual: Callable[[Any], bool]
    ends: tuple[str, ...]


@dataclass(frozen=True)
class BlockKind:
    """One kind of block.

    Attributes:
        build: creates the modules of a row.
        wide: whether the first argument is an output width, which the width multiple scales.
        joins: whether it takes a list of inputs.
        head: whether it turns feature maps into predictions; the last row, and only the last, must be one.
        inner: name of its inner `nn.Sequential` with the repeats, a chain that may become empty; without a name the row
            itself is repeated (or the block uses the number differently).
        link: set for a block in chains, as a row of the topology or inside another block.
        shortcuts: index of the argument that enables residual sums: True (if the widths match), False, or a list with
            one entry per link of the chain; 0 for a kind without such an argument.
        read: corrects the arguments of a row from the layer of a YOLOv5 file, which may differ from the YAML.
        compared: attributes, by module class, that must match in a layer of a YOLOv5 file.
        foreign: classes inside such a block in YOLOv5 files, besides the class that the kind is named after.
    """

    build: Builder
    wide: bool = False
    joins: bool = False
    head: bool = False
    inner: str = ""
    link: Link | None = None
    shortcuts: int = 0
    read: Reader | None = None
    compared: Mapping[type[nn.Module], tuple[str, ...]] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()


BLOCKS: Registry[BlockKind] = Registry("block", "secateur.families.yolov5.blocks")


def link_of(block: nn.Module) -> Link | None:
    """The chain properties of a module; None if it is not part of a chain."""
    links = (kind.link for kind in BLOCKS.values())
    return next((link for link in links if link is not None and isinstance(block, link.module)), None)


def chained(module: Callable[..., nn.Module], *, activation: bool = True, shortcuts: int = 0) -> Builder:
    """Builder of a chain of blocks `module(c1, width, *args)`; with `activation`, they also take `act=`.

    With `shortcuts`, as in `BlockKind`, each block gets its entry of a list of shortcuts.
    """

    def build(site: Site) -> tuple[nn.Module, int]:
        width, *rest = site.args
        options = {"act": site.activation} if activation else {}
        inputs = [site.widths[0]] + [width] * (site.repeats - 1)
        arguments = [rest] * len(inputs)
        if 0 < shortcuts <= len(rest):
            before, after = rest[: shortcuts - 1], rest[shortcuts:]
            arguments = [[*before, own, *after] for own in one_each(rest[shortcuts - 1], len(inputs))]
        return _in_a_row([module(c1, width, *own, **options) for c1, own in zip(inputs, arguments, strict=True)]), width

    return build


def one_each(shortcut: bool | Sequence[bool], count: int) -> list[bool]:
    """The shortcuts of `count` links: one value for all, or one per link from a list.

    Raises:
        ValueError: the list has a different length.
    """
    flags = list(shortcut) if isinstance(shortcut, list | tuple) else [shortcut] * count
    if len(flags) != count:
        raise ValueError(f"{len(flags)} shortcuts are given for {count} blocks")
    return [bool(flag) for flag in flags]


def repeated(module: Callable[..., nn.Module]) -> Builder:
    """Builder of one block `module(c1, width, repeats, *args, act=)` that repeats its inner block."""

    def build(site: Site) -> tuple[nn.Module, int]:
        width, *rest = site.args
        return module(site.widths[0], width, site.repeats, *rest, act=site.activation), width

    return build


def of_same_width(module: Callable[..., nn.Module]) -> Builder:
    """Builder of modules `module(*args)` that keep the width."""

    def build(site: Site) -> tuple[nn.Module, int]:
        return _in_a_row([module(*site.args) for _ in range(site.repeats)]), site.widths[0]

    return build


def _in_a_row(modules: list[nn.Module]) -> nn.Module:
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def with_argument(args: tuple[Any, ...], place: int, value: Any, defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments after the width with one replaced; unchanged if it already has that value.

    Args:
        args: arguments of a row, the width first.
        place: index of the argument.
        value: the new value.
        defaults: defaults of the constructor for the indices 1, 2, ... up to `place`, for arguments that the row omits.
    """
    if len(args) > place:
        truth = isinstance(value, bool) and not isinstance(args[place], tuple)
        same = (bool(args[place]) if truth else args[place]) == value
        return args if same else (*args[:place], value, *args[place + 1 :])
    return args if value == defaults[place - 1] else (*args, *defaults[len(args) - 1 : place - 1], value)
