"""Bytes of the exported files of a network: what a format takes for an entry of each kind of tensor; plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from secateur.errors import UserError, told


@dataclass(frozen=True)
class Stored:
    """Bytes that a format takes for the tensors of a network.

    Attributes:
        weight: for an entry of the weight of a layer that emits channels which can go.
        channel: for a channel that such a layer emits: its bias, with the norm behind the layer folded into it, and
            what a quantised layer keeps for each channel. Formats that keep norms as they are count their tensors here.
        other: for an entry of any other parameter: the last layers, which a quantisation leaves in float, and norms
            that follow no layer.
    """

    weight: float
    channel: float
    other: float


@dataclass(frozen=True)
class SizeTable:
    """How large the file of a network is, and of all that is cut from it: `fixed + layer x layers + tensors`.

    Attributes:
        kind: format and precision ("onnx-int8").
        stored: bytes of the tensors.
        fixed: bytes of what no layer brings: the decoding with its constants, which grow with the image, names of
            classes, and other metadata of the file.
        layer: bytes of the description of a convolution or linear layer and the operations around it.
    """

    kind: str
    stored: Stored
    fixed: float
    layer: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> SizeTable:
        """The inverse of `to_dict`.

        Raises:
            UserError: the data is no table.
        """
        try:
            stored = Stored(**{name: float(value) for name, value in data["stored"].items()})
            table = SizeTable(str(data["kind"]), stored, float(data["fixed"]), float(data["layer"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"This is no table of file sizes ({type(error).__name__}: {told(error)}).") from error
        if not all(map(math.isfinite, (table.fixed, table.layer, *asdict(stored).values()))):
            raise UserError("This table of file sizes has numbers that are not finite.")
        return table
