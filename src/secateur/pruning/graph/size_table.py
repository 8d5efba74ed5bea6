"""Size tables: bytes of exported files per tensor entry, for each kind of tensor, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from secateur.errors import UserError, told


@dataclass(frozen=True)
class Stored:
    """Bytes that a format uses for the tensors of a network.

    Attributes:
        weight: per weight entry of a layer with prunable output channels.
        channel: per output channel of such a layer: its bias, including the folded norm, and per-channel data of
            quantised layers. For formats that keep norms as they are, their tensors are included.
        other: per entry of any other parameter: the last layers, which quantisation leaves in float, and norms that
            follow no layer.
    """

    weight: float
    channel: float
    other: float


@dataclass(frozen=True)
class SizeTable:
    """File size of a network and of all networks cut from it: `fixed + layer x layers + tensors`.

    Attributes:
        kind: format and precision ("onnx-int8").
        stored: bytes of the tensors.
        fixed: bytes that do not depend on layers: the decoder with its constants, which grow with the image, class
            names, and other metadata.
        layer: bytes of the description of a convolution or linear layer and the operations around it.
    """

    kind: str
    stored: Stored
    fixed: float
    layer: float

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> SizeTable:
        """The inverse of `to_dict`.

        Raises:
            UserError: the data is not a size table.
        """
        try:
            stored = Stored(**{name: float(value) for name, value in data["stored"].items()})
            table = SizeTable(str(data["kind"]), stored, float(data["fixed"]), float(data["layer"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"This is not a size table ({type(error).__name__}: {told(error)}).") from error
        if not all(map(math.isfinite, (table.fixed, table.layer, *asdict(stored).values()))):
            raise UserError("This size table contains numbers that are not finite. Measure it again.")
        return table
