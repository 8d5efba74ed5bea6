"""Summary of a network: blocks and cost, as a table and as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from secateur.families.family import family_of
from secateur.networks.checkpoint import Checkpoint
from secateur.sizes import ImageSize, as_data, in_words


@dataclass(frozen=True)
class BlockRow:
    """One block: its sources, repeats, kind and cost."""

    index: int
    sources: tuple[int, ...]
    repeats: int
    kind: str
    args: tuple[Any, ...]
    channels: int
    parameters: int
    flops: int | None


@dataclass(frozen=True)
class Summary:
    """Size of a network.

    Attributes:
        image_size: image size in pixels for `flops`: one side, or height and width.
        layers: number of modules without submodules.
        parameters: number of parameters.
        gradients: number of parameters that require gradients.
        flops: 2 x multiply-accumulates for one image; None if not counted.
        sparsity: share of parameters that are zero.
        rows: one per block; empty if the network has no topology.
    """

    image_size: ImageSize
    layers: int
    parameters: int
    gradients: int
    flops: int | None
    sparsity: float
    rows: tuple[BlockRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON data, without the rows."""
        return {
            "layers": self.layers,
            "parameters": self.parameters,
            "gradients": self.gradients,
            "gflops": None if self.flops is None else round(self.flops / 1e9, 4),
            "image_size": as_data(self.image_size),
            "sparsity": round(self.sparsity, 6),
        }

    def line(self) -> str:
        """All figures in one line: "157 layers, 1,872,157 parameters, 0 gradients, 4.5 GFLOPs at 640 px"."""
        parts = [f"{self.layers} layers", f"{self.parameters:,} parameters", f"{self.gradients:,} gradients"]
        if self.flops is not None:
            parts.append(f"{gflops(self.flops)} GFLOPs at {in_words(self.image_size)} px")
        if self.sparsity > 0:
            parts.append(f"sparsity {self.sparsity:.1%}")
        return ", ".join(parts)

    def table(self) -> str:
        """One row per block: number, sources, repeats, parameters, MFLOPs, output channels, kind and arguments."""
        lines = [f"{'':>4} {'from':>14} {'n':>3} {'parameters':>12} {'MFLOPs':>10} {'channels':>9}  block"]
        for row in self.rows:
            sources = ", ".join(map(str, row.sources))
            flops = "" if row.flops is None else f"{row.flops / 1e6:,.1f}"
            args = ", ".join(map(str, row.args))
            lines.append(
                f"{row.index:>4} {sources:>14} {row.repeats:>3} {row.parameters:>12,} {flops:>10} {row.channels:>9}"
                f"  {row.kind}({args})"
            )
        return "\n".join(lines)


def gflops(flops: float) -> str:
    """Billions of operations with one decimal; below 1, with two significant digits."""
    billions = flops / 1e9
    return f"{billions:.1f}" if billions >= 1 else f"{billions:.2g}"


def summary(
    source: nn.Module | Checkpoint, image_size: ImageSize = 640, flops: Mapping[str, int] | None = None
) -> Summary:
    """Summarises a network or a checkpoint.

    Args:
        source: the network or checkpoint; rows are included if its family describes blocks.
        image_size: image size in pixels; only stored in the result.
        flops: FLOPs by module name at that size, see `evaluation.cost.layer_flops`.
    """
    network = source.build() if isinstance(source, Checkpoint) else source
    parameters = list(network.parameters())
    total = sum(p.numel() for p in parameters)
    zeros = sum(int((p == 0).sum()) for p in parameters)
    return Summary(
        image_size=image_size,
        layers=sum(1 for m in network.modules() if not any(m.children()) and not isinstance(m, nn.Identity)),
        parameters=total,
        gradients=sum(p.numel() for p in parameters if p.requires_grad),
        flops=None if flops is None else sum(flops.values()),
        sparsity=zeros / total if total else 0.0,
        rows=family_of(network).rows(network, flops),
    )
