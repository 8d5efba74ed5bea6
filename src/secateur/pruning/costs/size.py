"""Megabytes of an exported file, from the size table of its format that is attached to the graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from secateur.errors import UserError
from secateur.pruning.costs import cost

if TYPE_CHECKING:
    from secateur.pruning.graph import Bools, ChannelGraph, Floats, ImageSize
    from secateur.pruning.graph.size_table import SizeTable

_FACTORS = {"b": 1e-6, "k": 1e-3, "kb": 1e-3, "kib": 1024e-6, "m": 1.0, "mb": 1.0, "mib": 1.048576}
_FACTORS |= {"g": 1e3, "gb": 1e3, "gib": 1073.741824}
_CAUTION = 1.0005
"""Safety factor: a file can be this much larger than the sum, because its numbers are written with varying digits."""


@cost(
    "size",
    unit="MB",
    help="Size of the exported file: 2MB, 2MB:onnx-int8 (default: onnx-fp16) or a share (0.5).",
    absolute="2MB",
    least=1e-3,
    factors=_FACTORS,
    strict=True,
    files=True,
)
@dataclass(frozen=True)
class FileSize:
    """Size in megabytes (10^6 bytes) of an exported file, or of all files of an exported folder.

    `price` takes a mask, bool [units]; `savings` returns float64 [units], in megabytes.
    """

    graph: ChannelGraph
    image_size: ImageSize = None
    name: str = "size"
    unit: str = "MB"

    def price(self, keep: Bools) -> float:
        tensors = float(self.graph.pricing.weighted(keep, self._bytes).sum())
        return _CAUTION * (self._table.fixed + self._table.layer * len(self.graph.filters) + tensors) / 1e6

    def savings(self) -> Floats:
        saved: Floats = self.graph.pricing.weighted_savings(self._bytes, self.graph.units) / 1e6
        return saved

    def inside(self, module: str) -> float:
        places = [name.startswith(f"{module}.") for name in self.graph.pricing.names]
        tensors = float(self.graph.pricing.weighted(None, self._bytes)[places].sum())
        layers = sum(layer.startswith(f"{module}.") for layer in self.graph.filters)
        return (tensors + self._table.layer * layers) / 1e6

    @property
    def _table(self) -> SizeTable:
        if self.graph.sizing is None:
            raise UserError(
                "A file-size budget needs the size table of its format attached to the graph: "
                "dataclasses.replace(graph, sizing=secateur.file_size(model))."
            )
        return self.graph.sizing

    @cached_property
    def _bytes(self) -> Floats:
        """Bytes per entry of each parameter: float64 [parameters]."""
        import numpy as np  # imported here because the command line loads this file for its options

        graph, stored = self.graph, self._table.stored
        folded = set(graph.norm_after.values())
        found = []
        for name in graph.pricing.names:
            layer, _, kind = name.rpartition(".")
            prunable = layer in graph.emitted and bool((graph.emitted[layer] >= 0).any())
            if layer in folded:
                found.append(stored.channel if kind == "bias" else 0.0)
            elif prunable and kind == "weight":
                found.append(stored.weight)
            elif prunable:  # a bias before a norm is folded with the norm
                found.append(0.0 if layer in graph.norm_after else stored.channel)
            elif layer in graph.norms:
                found.append(2 * stored.other)  # includes its running statistics
            else:
                found.append(stored.other)
        return np.array(found, dtype=np.float64)
