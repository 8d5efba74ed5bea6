"""Topology of a detector as plain data: the blocks of the YOLOv5 YAML format with its multiples applied."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secateur.errors import UserError, shown, told
from secateur.families.yolov5.activations import canonical_activation
from secateur.families.yolov5.blocks import BLOCKS, BlockKind
from secateur.files import usable_path
from secateur.limits import (
    MAX_ARGUMENT,
    MAX_ARGUMENTS,
    MAX_BLOCKS,
    MAX_CLASSES,
    MAX_LEVELS,
    MAX_LINKS,
    MAX_REPEATS,
)
from secateur.yaml_files import read_yaml

MAX_ANCHORS = 100
"""Anchors of a level; published detectors have 2 to 4, a search for good ones tries up to 15."""
MAX_PIXELS = 1_000_000
"""Side of an anchor in pixels; no image has such a side."""
CONFIGS = Path(__file__).parent / "configs"
MAX_ANCHORS = 100
"""Maximum anchors per level; published detectors have 2 to 4, a search tries up to 15."""
MAX_PIXELS = 1_000_000
"""Maximum side of an anchor in pixels."""
NEUTRAL_ANCHORS = (
    "The anchors are placeholders: the model file leaves them to be computed (anchors: a number), and no training on "
    "labelled images has done that yet. Boxes will be poor. Train on labelled images first."
)


@dataclass(frozen=True)
class Block:
    """One row of a topology.

    Attributes:
        sources: blocks to read; -1 is the previous one (the image for the first), -2 the one before that.
        repeats: how often the block, or its inner block, is repeated; 0 for a stage with an empty inner chain.
        kind: name in the YAML format, such as "C3" or "nn.Upsample".
        args: arguments after the input width; the first one of a wide kind is its output width.
    """

    sources: tuple[int, ...]
    repeats: int
    kind: str
    args: tuple[Any, ...]


@dataclass(frozen=True, repr=False)
class Topology:
    """A detector without its tensors.

    Attributes:
        nc: number of classes.
        blocks: rows in order; the last one is Detect.
        anchors: one row per level, (width, height) pairs in pixels.
        activation: canonical name of the activation of all convolution blocks.
        channels: image channels.
        anchors_pending: whether the anchors are placeholders that a training replaces by anchors for its boxes.
        trained_classes: number of classes covered by the objectness, if the head has only some of them; 0: all.
    """

    nc: int
    blocks: tuple[Block, ...]
    anchors: tuple[tuple[float, ...], ...]
    activation: str = "SiLU"
    channels: int = 3
    anchors_pending: bool = False
    trained_classes: int = 0

    @classmethod
    def from_yaml(cls, path_or_name: str | Path, nc: int | None = None, anchors: int = 0) -> Topology:
        """Reads "yolov5n", "yolov5n.yaml" or a file in the YOLOv5 format; `nc` overrides the number of classes.

        With a positive `anchors`, each level has this number of anchors, computed from the boxes of a training, as for
        a file with a number instead of anchors.

        Raises:
            UserError: there is no such model or file, or a row is invalid; the message names the row.
        """
        data, origin = _read_config(path_or_name)
        return parse_topology({**data, "anchors": anchors} if anchors > 0 else data, origin, nc)

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        return {
            "nc": self.nc,
            "channels": self.channels,
            "activation": self.activation,
            "anchors": [list(row) for row in self.anchors],
            "blocks": [[list(b.sources), b.repeats, b.kind, _thaw(b.args)] for b in self.blocks],
            **({"anchors_pending": True} if self.anchors_pending else {}),
            **({"trained_classes": self.trained_classes} if self.trained_classes else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Topology:
        """The inverse of `to_dict`.

        Raises:
            UserError: the data does not describe a topology.
        """
        try:
            blocks = tuple(
                Block(tuple(int(v) for v in s), int(n), str(kind), _freeze(args)) for s, n, kind, args in data["blocks"]
            )
            topology = cls(
                nc=int(data["nc"]),
                blocks=blocks,
                anchors=tuple(tuple(float(v) for v in row) for row in data["anchors"]),
                activation=canonical_activation(str(data["activation"])),
                channels=int(data["channels"]),
                anchors_pending=bool(data.get("anchors_pending", False)),
                trained_classes=int(data.get("trained_classes", 0)),
            )
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UserError(f"The stored topology is damaged ({told(repr(error))}).") from error
        refuse_impossible(topology, "The stored topology")
        return topology

    def absolute_sources(self) -> tuple[tuple[int, ...], ...]:
        """Sources as block indices; -1 for the image."""
        return tuple(tuple(s if s >= 0 else i + s for s in block.sources) for i, block in enumerate(self.blocks))

    def with_classes(self, nc: int) -> Topology:
        """The same network for another number of classes, all covered by the objectness."""
        return replace(self, nc=nc, trained_classes=0)

    @property
    def widths(self) -> tuple[int, ...]:
        """The distinct output widths of its blocks, as designed, ascending."""
        return tuple(sorted({block.args[0] for block in self.blocks if BLOCKS[block.kind].wide}))

    def with_widths(self, widths: Mapping[int, int]) -> Topology:
        """The same network with the width `widths[a]` for blocks of the width a; equal widths stay equal, so sums
        stay valid."""
        blocks = tuple(
            replace(block, args=(widths[block.args[0]], *block.args[1:])) if BLOCKS[block.kind].wide else block
            for block in self.blocks
        )
        return replace(self, blocks=blocks)

    def __repr__(self) -> str:
        levels = f"{len(self.anchors)} levels of {len(self.anchors[0]) // 2} anchors" if self.anchors else "no levels"
        return f"Topology({len(self.blocks)} blocks, {self.nc} classes, {levels}, {self.activation})"


def _freeze(value: Any) -> Any:
    return tuple(_freeze(v) for v in value) if isinstance(value, list | tuple) else value


def _thaw(value: Any) -> Any:
    return [_thaw(v) for v in value] if isinstance(value, list | tuple) else value


def model_names() -> tuple[str, ...]:
    """Names of the built-in models."""
    return tuple(sorted(name for file in CONFIGS.glob("*.yaml") for name in _load(file).get("models", {})))


def _load(file: Path) -> dict[str, Any]:
    data = read_yaml(file, "model file")
    if not isinstance(data, dict):
        raise UserError(f"The model file {file} is not a mapping with the keys nc, anchors, backbone and head.")
    return data


def _read_config(path_or_name: str | Path) -> tuple[dict[str, Any], str]:
    """The file of the user if it exists, otherwise the built-in model of that name."""
    path = usable_path(path_or_name)
    if path.is_file():
        return _load(path), str(path)
    name = path.stem if path.suffix in (".yaml", ".yml") else path.name
    if path.parent == Path():
        for file in sorted(CONFIGS.glob("*.yaml")):
            data = _load(file)
            models = data.pop("models")
            if name in models:
                return {**data, **models[name]}, name
    raise UserError(
        f"There is no model file {path_or_name} and no built-in model of that name. Available: "
        f"{', '.join(model_names())}."
    )


def parse_topology(data: Mapping[str, Any], origin: str, nc: int | None = None) -> Topology:
    """A topology from the content of a YOLOv5 YAML file; `origin` names it in errors.

    Raises:
        UserError: a row is invalid; the message names the file and the row.
    """
    for key in ("backbone", "head"):
        if not isinstance(data.get(key), list) or (key == "head" and not data[key]):
            raise UserError(f"{origin} has no list {key!r}. A YOLOv5 model file needs nc, anchors, backbone and head.")
    classes = data.get("nc") if nc is None else nc
    if not isinstance(classes, int) or isinstance(classes, bool) or not 1 <= classes <= MAX_CLASSES:
        raise UserError(f"{origin}: nc must be a whole number from 1 to {MAX_CLASSES:,}, not {shown(classes)}.")
    depth, width = (_number(data, key, origin) for key in ("depth_multiple", "width_multiple"))
    multiple = data.get("channel_multiple") or 8
    channels = data.get("ch", 3)
    if not all(isinstance(value, int) and 1 <= value <= MAX_ARGUMENT for value in (multiple, channels)):
        raise UserError(f"{origin}: channel_multiple and ch must be whole numbers from 1 to {MAX_ARGUMENT:,}.")
    rows = [*data["backbone"], *data["head"]]
    given = data.get("anchors", 3)
    anchors = _anchors(given, rows, origin)
    outputs = len(anchors[0]) // 2 * (classes + 5)
    try:
        written = data.get("activation") or "SiLU"
        activation = canonical_activation(written if isinstance(written, str) else shown(written))
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None

    blocks = []
    for i, row in enumerate(rows):
        source, repeats, kind, args = _row(row, i, origin)
        if repeats > 1:
            repeats = max(round(min(repeats, MAX_REPEATS + 1) * depth), 1)
        values = [_value(v, classes) for v in args]
        if BLOCKS[kind].wide:
            wide = values[0] if values and isinstance(values[0], int) and not isinstance(values[0], bool) else 0
            if not 1 <= wide <= MAX_ARGUMENT:
                raise UserError(
                    f"{origin}, block {i} ({kind}): the first argument must be its width, 1 to {MAX_ARGUMENT:,}."
                )
            if wide != outputs:
                values[0] = math.ceil(wide * width / multiple) * multiple
        blocks.append(Block(source, repeats, kind, () if BLOCKS[kind].head else _freeze(values)))
    topology = Topology(classes, tuple(blocks), anchors, activation, channels, isinstance(given, int))
    refuse_impossible(topology, origin)
    return topology


def _number(data: Mapping[str, Any], key: str, origin: str) -> float:
    value = data.get(key, 1.0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= MAX_REPEATS:
        raise UserError(f"{origin}: {key} must be a number above 0, at most {MAX_REPEATS:,}, not {shown(value)}.")
    return float(value)


def _row(row: Any, i: int, origin: str) -> tuple[tuple[int, ...], int, str, list[Any]]:
    """Checks one row [from, number, module, args]."""
    if not isinstance(row, list | tuple) or len(row) != 4 or not isinstance(row[3], list | tuple):
        raise UserError(f"{origin}, block {i}: expected [from, number, module, [args]], found {shown(row)}.")
    source, repeats, kind, args = row
    sources = tuple(source) if isinstance(source, list | tuple) else (source,)
    kind = kind.removeprefix("models.common.").removeprefix("torch.") if isinstance(kind, str) else kind
    if not isinstance(kind, str) or kind not in BLOCKS:
        near = difflib.get_close_matches(kind[:50], BLOCKS, 3, 0) if isinstance(kind, str) else list(BLOCKS)[:3]
        raise UserError(f"{origin}, block {i}: unknown block {shown(kind)}. Supported: {', '.join(near)} and others.")
    if not sources or not all(isinstance(s, int) and not isinstance(s, bool) for s in sources):
        raise UserError(f"{origin}, block {i} ({kind}): 'from' must be block numbers, not {shown(source)}.")
    if not isinstance(repeats, int) or isinstance(repeats, bool):
        raise UserError(
            f"{origin}, block {i} ({kind}): the number of repeats must be a whole number, not {shown(repeats)}."
        )
    return sources, repeats, kind, list(args)


def _value(value: Any, nc: int) -> Any:
    """Converts the words None, nc and similar ones, which YAML reads as text."""
    words = {"None": None, "True": True, "False": False, "nc": nc}
    return words.get(value, value) if isinstance(value, str) else value


def _anchors(value: Any, rows: Sequence[Any], origin: str) -> tuple[tuple[float, ...], ...]:
    """Anchor rows in pixels; for a count, placeholders that a training replaces."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ANCHORS:
        last = rows[-1]
        levels = len(last[0]) if isinstance(last, list | tuple) and last and isinstance(last[0], list | tuple) else 1
        finest = 8 if levels <= 3 else 4
        sizes = [[finest * 2**level * 1.5 * 2 ** (k / value) for k in range(value)] for level in range(levels)]
        return tuple(tuple(v for size in row for v in (size, size)) for row in sizes)
    try:
        anchors = tuple(tuple(float(v) for v in row) for row in value)
    except (TypeError, ValueError, OverflowError):
        anchors = ()
    if not anchors or any(len(row) != len(anchors[0]) or len(row) % 2 or not row for row in anchors):
        raise UserError(
            f"{origin}: anchors must be a count up to {MAX_ANCHORS}, or one list of width, height pairs per level, all "
            "with the same length."
        )
    return anchors


def refuse_impossible(topology: Topology, origin: str) -> None:
    """Checks constraints of all topologies; `origin` names the source in errors.

    Raises:
        UserError: a constraint is violated; the message names the block.
    """
    blocks = topology.blocks
    _check_limits(topology, origin)
    for i, block in enumerate(blocks):
        if block.kind not in BLOCKS:
            raise UserError(f"{origin}, block {i}: unknown block {shown(block.kind)}.")
    if [i for i, block in enumerate(blocks) if BLOCKS[block.kind].head] != [len(blocks) - 1]:
        raise UserError(f"{origin}: the last block, and only that, must be {_named(lambda kind: kind.head)}.")
    head = blocks[-1]
    if len(head.sources) != len(topology.anchors):
        raise UserError(
            f"{origin}: {head.kind} reads {len(head.sources)} levels, but anchors has {len(topology.anchors)} rows."
        )
    for i, block in enumerate(blocks):
        if len(block.sources) > 1 and not BLOCKS[block.kind].joins:
            joining = _named(lambda kind: kind.joins)
            raise UserError(f"{origin}, block {i} ({block.kind}): only {joining} can read several blocks.")
        least = 0 if BLOCKS[block.kind].inner else 1
        if not least <= block.repeats <= MAX_REPEATS:
            raise UserError(
                f"{origin}, block {i} ({block.kind}): the number of repeats must be {least} to {MAX_REPEATS}, "
                f"not {shown(block.repeats)}."
            )
        for source in block.sources:
            resolved = source if source >= 0 else i + source
            if not (0 <= resolved < i or (i == 0 and source == -1)):
                raise UserError(
                    f"{origin}, block {i} ({block.kind}): there is no earlier block {shown(source)} to read from."
                )


def _check_limits(topology: Topology, origin: str) -> None:
    """Checks the limits of a topology before anything is built."""
    if not 1 <= topology.nc <= MAX_CLASSES or not 1 <= topology.channels <= MAX_ARGUMENT:
        raise UserError(
            f"{origin}: invalid number of classes {shown(topology.nc)} or channels {shown(topology.channels)}."
        )
    links = sum(block.repeats for block in topology.blocks)
    if not 1 <= len(topology.blocks) <= MAX_BLOCKS or links > MAX_LINKS:
        raise UserError(
            f"{origin}: it has {len(topology.blocks):,} blocks and {shown(links)} repeats, but at most {MAX_BLOCKS:,} "
            f"and {MAX_LINKS:,} are supported."
        )
    anchors = topology.anchors
    if not 1 <= len(anchors) <= MAX_LEVELS or not all(2 <= len(row) <= 2 * MAX_ANCHORS for row in anchors):
        raise UserError(f"{origin}: anchors must be for 1 to {MAX_LEVELS} levels, with 1 to {MAX_ANCHORS} each.")
    if not all(0 < size < MAX_PIXELS for row in anchors for size in row):
        raise UserError(f"{origin}: an anchor must have a width and height above 0 and below {MAX_PIXELS:,} px.")
    for i, block in enumerate(topology.blocks):
        if not isinstance(block.args, tuple) or not _is_plain(block.args):
            raise UserError(f"{origin}, block {i} ({told(block.kind, 30)}): invalid arguments {shown(block.args)}.")
        numbers = list(numbers_of(block.args))
        if len(numbers) > MAX_ARGUMENTS or not all(abs(number) <= MAX_ARGUMENT for number in numbers):
            raise UserError(
                f"{origin}, block {i} ({told(block.kind, 30)}): its arguments {shown(block.args)} exceed the limit of "
                f"{MAX_ARGUMENTS} numbers or the maximum value {MAX_ARGUMENT:,}."
            )


def _is_plain(value: Any) -> bool:
    """Whether an argument has a supported type: a number, a string, None, or a list of these."""
    return all(map(_is_plain, value)) if isinstance(value, tuple) else isinstance(value, int | float | str | None)


def numbers_of(value: Any) -> Iterator[float]:
    """The numbers in the arguments of a row, including those in lists."""
    if isinstance(value, tuple):
        for inner in value:
            yield from numbers_of(inner)
    elif isinstance(value, int | float):
        yield value


def _named(having: Callable[[BlockKind], bool]) -> str:
    """Names of the kinds of blocks with a property."""
    return " or ".join(name for name, kind in BLOCKS.items() if having(kind))
