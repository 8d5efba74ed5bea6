"""Activation functions by YAML name, from a table; strings from files are never evaluated."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from torch import nn

from secateur.errors import UserError, shown
from secateur.networks.formats.records import Record

# Canonical name -> constructor; those in _WITH_VALUE take one number: its default, and the attribute that stores it.
_PLAIN: dict[str, Callable[[], nn.Module]] = {
    "SiLU": nn.SiLU,
    "ReLU": nn.ReLU,
    "ReLU6": nn.ReLU6,
    "Hardswish": nn.Hardswish,
    "Hardsigmoid": nn.Hardsigmoid,
    "Hardtanh": nn.Hardtanh,
    "Mish": nn.Mish,
    "GELU": nn.GELU,
    "SELU": nn.SELU,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "Softplus": nn.Softplus,
    "Identity": nn.Identity,
}
_WITH_VALUE: dict[str, tuple[Callable[[float], nn.Module], float, str]] = {
    "LeakyReLU": (nn.LeakyReLU, 0.01, "negative_slope"),
    "ELU": (nn.ELU, 1.0, "alpha"),
    "CELU": (nn.CELU, 1.0, "alpha"),
}
_PATTERN = re.compile(r"\s*(?:torch\.)?(?:nn\.)?(\w+)\s*(?:\(([^()]*)\))?\s*")


def canonical_activation(text: str) -> str:
    """Canonical name of an activation: "nn.LeakyReLU(0.1, inplace=True)" -> "LeakyReLU(0.1)", "nn.SiLU()" -> "SiLU".

    Raises:
        UserError: the name is not in the table, or its argument is not a number.
    """
    match = _PATTERN.fullmatch(text)
    name = match.group(1) if match else ""
    if not match or (name not in _PLAIN and name not in _WITH_VALUE):
        known = ", ".join(sorted([*_PLAIN, *_WITH_VALUE]))
        raise UserError(f"Unknown activation {shown(text)}. Supported: {known}.")
    if name in _PLAIN:
        return name
    value = _WITH_VALUE[name][1]
    for argument in filter(None, (part.strip() for part in (match.group(2) or "").split(","))):
        key, _, number = argument.rpartition("=")
        if key.strip() == "inplace":
            continue
        try:
            value = float(number)
            if not math.isfinite(value):
                raise ValueError
        except ValueError:
            raise UserError(f"The activation {shown(text)} has an argument that is not a number.") from None
    return f"{name}({value:g})"


def make_activation(name: str) -> nn.Module:
    """A new module for an activation, by canonical or YAML name."""
    name = canonical_activation(name)
    kind, _, value = name.rstrip(")").partition("(")
    return _PLAIN[kind]() if kind in _PLAIN else _WITH_VALUE[kind][0](float(value))


def recorded_activation(record: object) -> str:
    """Canonical name of an activation of a foreign file; SiLU if none is recorded."""
    if not isinstance(record, Record):
        return "SiLU"
    name = record.kind.rpartition(".")[2]
    value = record.get(_WITH_VALUE[name][2]) if name in _WITH_VALUE else None
    return name if value is None else f"{name}({value:g})"
