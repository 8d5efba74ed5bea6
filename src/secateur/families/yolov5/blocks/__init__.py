"""The kinds of blocks that a topology is made of, by name: each file here registers its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from secateur.networks.formats.records import Record
from secateur.registry import Registry


@dataclass(frozen=True)
class Site:
    """Where a block is to stand.

    Attributes:
        widths: channels of each input.
        repeats: how often the block, or what is inside it, is repeated.
        args: what the row of the topology gives it; the first one of a wide kind is its output width.
        activation: of the convolutions of the network.
        nc: number of classes.
        anchors: one row a level, (width, height) pairs in pixels.
    """

    widths: tuple[int, ...]
    repeats: int
    args: tuple[Any, ...]
    activation: str = "SiLU"
    nc: int = 0
    anchors: tuple[tuple[float, ...], ...] = ()


Builder = Callable[[Site], tuple[nn.Module, int]]
"""(site) -> (fresh modules, output width)."""

Reader = Callable[[tuple[Any, ...], Record, Sequence[Record]], tuple[Any, ...]]
"""(arguments of a row, its layer in a YOLOv5 file, the members of that layer's chain) -> the layer's arguments."""


@dataclass(frozen=True)
class Link:
    """What makes a block a link of a chain: blocks of one kind after one another, of which some may be taken out.

    Attributes:
        module: class of the block.
        residual: whether this block adds its input to what its branch gives.
        ends: names, inside the block, of the `Conv`s whose outputs are the output of the branch.
    """

    module: type[nn.Module]
    residual: Callable[[Any], bool]
    ends: tuple[str, ...]


@dataclass(frozen=True)
class BlockKind:
    """One kind of block.

    Attributes:
        build: makes the modules of a row.
        wide: whether the first argument is an output width, which the width multiple scales.
        joins: whether it takes a list of inputs.
        head: whether it turns feature maps into predictions: the last row, and only that, is one.
        inner: name of the `nn.Sequential` inside it that holds its repeats, a chain that may become empty; without a
            name the row itself is repeated (or the block does something of its own with the number).
        link: set for a block that stands in chains, as a row of the topology or inside another block.
        shortcuts: place among the arguments of the one that asks for residual sums: True (where the widths agree),
            False, or a list with one of these for each link of the chain; 0 for a kind without such an argument.
        read: corrects the arguments of a row by the layer of a YOLOv5 file, where layers may differ from the YAML.
        compared: for classes of modules in it, the attributes in which a layer of a YOLOv5 file has to agree.
        foreign: classes that YOLOv5 files hold inside such a block, beside the one that the kind is named after.
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
    """What makes this module a link of a chain; None if it is none."""
    links = (kind.link for kind in BLOCKS.values())
    return next((link for link in links if link is not None and isinstance(block, link.module)), None)


def chained(module: Callable[..., nn.Module], *, activation: bool = True, shortcuts: int = 0) -> Builder:
    """Blocks `module(c1, width, *args)` repeated one after the other; with `activation` they take `act=` too.

    With `shortcuts`, as in `BlockKind`, each block gets its own of the shortcuts that are given as a list.
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
    """The shortcuts of `count` links, of which all have the same, or each one of a list.

    Raises:
        ValueError: the list has another length.
    """
    flags = list(shortcut) if isinstance(shortcut, list | tuple) else [shortcut] * count
    if len(flags) != count:
        raise ValueError(f"{len(flags)} shortcuts are given for {count} blocks")
    return [bool(flag) for flag in flags]


def repeated(module: Callable[..., nn.Module]) -> Builder:
    """One block `module(c1, width, repeats, *args, act=)` that repeats what is inside it."""

    def build(site: Site) -> tuple[nn.Module, int]:
        width, *rest = site.args
        return module(site.widths[0], width, site.repeats, *rest, act=site.activation), width

    return build


def of_same_width(module: Callable[..., nn.Module]) -> Builder:
    """Modules `module(*args)` that keep the width."""

    def build(site: Site) -> tuple[nn.Module, int]:
        return _in_a_row([module(*site.args) for _ in range(site.repeats)]), site.widths[0]

    return build


def _in_a_row(modules: list[nn.Module]) -> nn.Module:
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def with_argument(args: tuple[Any, ...], place: int, value: Any, defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments after the width with one set; unchanged where it has that value already.

    Args:
        args: of a row, the width first.
        place: of the argument in them.
        value: what it is to be.
        defaults: of the constructor for the places 1, 2, ... up to `place`; they fill what the row leaves out.
    """
    if len(args) > place:
        truth = isinstance(value, bool) and not isinstance(args[place], tuple)
        same = (bool(args[place]) if truth else args[place]) == value
        return args if same else (*args[:place], value, *args[place + 1 :])
    return args if value == defaults[place - 1] else (*args, *defaults[len(args) - 1 : place - 1], value)
