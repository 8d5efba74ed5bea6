"""Validates descriptions of networks of Ultralytics before they reach the parser of the package.

The parser evaluates strings of the description and looks up class names in it. So only known blocks, numbers within
bounds, and the few strings of published descriptions are accepted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from secateur.errors import UserError, shown
from secateur.limits import MAX_CLASSES

HEADS = {
    "Detect": "detect",
    "v10Detect": "detect",
    "Segment": "segment",
    "Segment26": "segment",
    "Pose": "pose",
    "Pose26": "pose",
    "OBB": "obb",
    "OBB26": "obb",
    "Classify": "classify",
}
"""Heads and their tasks."""

_OF_KERNELS = frozenset(
    (
        *("Conv", "DWConv", "ConvTranspose", "GhostConv", "Focus", "SPP", "SPPF", "SCDown", "AConv", "ADown", "Concat"),
        *("CBFuse", "Silence", "nn.Upsample", "nn.Identity", "nn.MaxPool2d", "nn.AvgPool2d", "nn.ZeroPad2d"),
        *("nn.BatchNorm2d", "nn.Conv2d", "nn.ConvTranspose2d"),
    )
)
"""Blocks whose arguments after the first are kernel sizes, strides and similar numbers."""
BLOCKS = _OF_KERNELS | frozenset(
    (
        *("Bottleneck", "BottleneckCSP", "GhostBottleneck", "C1", "C2", "C2f", "C2fCIB", "C2fPSA", "C2PSA", "PSA"),
        *("C3", "C3k2", "C3x", "C3Ghost", "C3TR", "RepC3", "ELAN1", "RepNCSPELAN4", "SPPELAN", "A2C2f", "CBLinear"),
    )
)
"""Blocks that a description may name besides a head."""

MAX_ROWS, MAX_REPEATS, MAX_WIDTH, MAX_KERNEL, MAX_ARGUMENTS = 300, 60, 8_192, 64, 12
MAX_SCALE = 8
_WORDS = frozenset(("nc", "kpt_shape", "None", "True", "False", "nearest", "bilinear"))
_ACTIVATION = re.compile(
    r"(torch\.)?nn\.(SiLU|ReLU|ReLU6|LeakyReLU|Hardswish|Mish|GELU|ELU|SELU|CELU|Sigmoid|Tanh|Softplus|Identity)"
    r"\((\d{1,3}(\.\d{1,6})?|inplace=(True|False))?\)"
)
_KEYS = (
    *("nc", "scale", "scales", "depth_multiple", "width_multiple", "activation", "reg_max", "end2end", "kpt_shape"),
    *("backbone", "head"),
)


def checked_description(data: Any) -> dict[str, Any]:
    """The parts of a description that the parser reads.

    Args:
        data: a model YAML as a dict; the content is not trusted.

    Raises:
        UserError: a block is unknown, or a value is invalid; the message starts with "its".
    """
    if not isinstance(data, Mapping) or not all(isinstance(data.get(part), list) for part in ("backbone", "head")):
        raise UserError("its model.yaml has no backbone and head")
    found = {key: data[key] for key in _KEYS if data.get(key) is not None}
    rows = [*data["backbone"], *data["head"]]
    if not 2 <= len(rows) <= MAX_ROWS:
        raise UserError(f"its model.yaml has {len(rows):,} rows, but must have 2 to {MAX_ROWS}")
    checked = [_row(place, row, last=place == len(rows) - 1) for place, row in enumerate(rows)]
    split = len(data["backbone"])
    found["backbone"], found["head"] = checked[:split], checked[split:]
    _number(found.get("nc"), "nc", 1, MAX_CLASSES, whole=True)
    for key in ("depth_multiple", "width_multiple"):
        _number(found.get(key, 1.0), key, 0, MAX_SCALE)
    _number(found.get("reg_max", 16), "reg_max", 1, MAX_KERNEL, whole=True)
    if not isinstance(found.get("end2end", False), bool):
        raise UserError(f"its model.yaml has end2end: {shown(found['end2end'])}, but it must be true or false")
    _scales(found)
    _activation(found)
    _key_points(found)
    return found


def task_of(description: Mapping[str, Any]) -> str:
    """The task of a checked description: "detect", "segment", "pose", "obb" or "classify"."""
    return HEADS[[*description["backbone"], *description["head"]][-1][2]]


def is_end_to_end(description: Mapping[str, Any]) -> bool:
    """Whether its boxes are final."""
    head = [*description["backbone"], *description["head"]][-1][2]
    return head == "v10Detect" or bool(description.get("end2end", False))


def _row(place: int, row: Any, last: bool) -> list[Any]:
    """[sources, repeats, block, arguments] of one layer."""
    where = f"row {place} of its model.yaml"
    if not isinstance(row, list | tuple) or len(row) != 4:
        raise UserError(f"{where} is {shown(row)}, but must be [from, repeats, block, arguments]")
    sources, repeats, kind, arguments = row
    known = HEADS if last else BLOCKS
    if not isinstance(kind, str) or kind not in known:
        what = "head" if last else "block"
        raise UserError(f"{where} names the unknown {what} {shown(kind)}")
    for source in sources if isinstance(sources, list | tuple) and sources else (sources,):
        if not _is_whole(source) or not -max(place, 1) <= source < place or (place == 0 and source != -1):
            raise UserError(f"{where} reads {shown(source)}, but must read -1 or an earlier row")
    _number(repeats, f"repeats in {where}", 1, MAX_REPEATS, whole=True)
    if not isinstance(arguments, list | tuple) or len(arguments) > MAX_ARGUMENTS:
        raise UserError(f"{where} has the arguments {shown(arguments)}, but must have a short list")
    most = [MAX_WIDTH] + [MAX_KERNEL if kind in _OF_KERNELS else MAX_WIDTH] * MAX_ARGUMENTS
    if kind == "nn.Upsample":
        most = [MAX_WIDTH, *[MAX_SCALE] * MAX_ARGUMENTS]
    plain = [_argument(value, where, limit) for value, limit in zip(arguments, most, strict=False)]
    return [list(sources) if isinstance(sources, list | tuple) else sources, repeats, kind, plain]


def _argument(value: Any, where: str, most: float) -> Any:
    """A number, an accepted word, or a list of numbers."""
    if value is None or isinstance(value, bool) or (isinstance(value, str) and value in _WORDS):
        return value
    if isinstance(value, list | tuple) and len(value) <= MAX_ARGUMENTS:
        return [_number(part, f"an argument in {where}", -1, most, whole=True) for part in value]
    return _number(value, f"an argument in {where}", -1, most)


def _number(value: Any, what: str, least: float, most: float, whole: bool = False) -> Any:
    """A number within bounds."""
    is_number = _is_whole(value) or (not whole and isinstance(value, float) and math.isfinite(value))
    if not is_number or not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise UserError(f"{what} is {shown(value)}, but must be {kind} from {least:g} to {most:g}")
    return value


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _scales(found: dict[str, Any]) -> None:
    """Scales by name: depth, width and maximum channels. Only the used scale is kept."""
    scales, scale = found.pop("scales", None), found.pop("scale", None)
    if not scales:
        return
    if not isinstance(scales, Mapping):
        raise UserError(f"its model.yaml has scales: {shown(scales)}, but must have rows by name")
    name = scale or next(iter(scales))
    row = scales.get(name) if isinstance(name, str) and len(name) <= 20 else None
    if not isinstance(row, list | tuple) or len(row) != 3:
        raise UserError(f"its model.yaml has no scale {shown(name)} of three numbers")
    for value, most in zip(row, (MAX_SCALE, MAX_SCALE, 1_000_000), strict=True):
        _number(value, "a scale in its model.yaml", 0, most)
    found["scale"], found["scales"] = name, {name: list(row)}


def _activation(found: Mapping[str, Any]) -> None:
    """An activation of PyTorch with at most one number, because the parser evaluates it."""
    activation = found.get("activation")
    if activation is not None and not (isinstance(activation, str) and _ACTIVATION.fullmatch(activation)):
        raise UserError(f"its model.yaml has the activation {shown(activation)}, which is not an activation of PyTorch")


def _key_points(found: dict[str, Any]) -> None:
    shape = found.get("kpt_shape")
    if shape is None:
        return
    if not isinstance(shape, list | tuple) or len(shape) != 2:
        raise UserError(f"its model.yaml has kpt_shape: {shown(shape)}, but must have two numbers")
    _number(shape[0], "kpt_shape", 1, MAX_WIDTH, whole=True)
    _number(shape[1], "kpt_shape", 2, 3, whole=True)
    found["kpt_shape"] = list(shape)
