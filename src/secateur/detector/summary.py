"""What a detector is made of, as a table for people and as data for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from secateur.detector.checkpoint import Checkpoint, Header
from secateur.detector.model import Detector


@dataclass(frozen=True)
class Row:
    """One block: where it reads, how often it repeats, what it is, and what it costs."""

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
    """Size of a detector.

    Attributes:
        image_size: px, the size that `flops` is for.
        layers: modules that hold no other module.
        parameters: trainable values.
        gradients: those that training would change.
        flops: 2 x multiply-accumulates for one image, or None where nobody counted them.
        sparsity: share of parameters that are zero, or None where the values were not read.
        rows: one a block.
    """

    image_size: int
    layers: int
    parameters: int
    gradients: int
    flops: int | None
    sparsity: float | None
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON data, without the rows."""
        return {
            "layers": self.layers,
            "parameters": self.parameters,
            "gradients": self.gradients,
            "gflops": None if self.flops is None else round(self.flops / 1e9, 4),
            "image_size": self.image_size,
            "sparsity": None if self.sparsity is None else round(self.sparsity, 6),
        }

    def line(self) -> str:
        """One line with all figures."""
        parts = [f"{self.layers} layers", f"{self.parameters:,} parameters", f"{self.gradients:,} gradients"]
        if self.flops is not None:
            parts.append(f"{self.flops / 1e9:.1f} GFLOPs at {self.image_size} px")
        if self.sparsity is not None:
            parts.append(f"sparsity {self.sparsity:.1%}")
        return ", ".join(parts)

    def table(self) -> str:
        """A row a block: number, sources, repeats, parameters, MFLOPs, output channels, kind and arguments."""
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


def summary(
    source: Detector | Checkpoint | Header, image_size: int = 640, flops: Mapping[str, int] | None = None
) -> Summary:
    """Measures a detector, a checkpoint, or the header of one, of which no tensor is read.

    Args:
        source: what to measure.
        image_size: px, only passed on to the result.
        flops: FLOPs by module name at that size, as `evaluation.cost.layer_flops` counts them.
    """
    detector = source if isinstance(source, Detector) else source.detector()
    parameters = list(detector.parameters())
    total = sum(p.numel() for p in parameters)
    known = not any(p.is_meta for p in parameters)
    zeros = sum(int((p == 0).sum()) for p in parameters) if known else 0
    return Summary(
        image_size=image_size,
        layers=sum(1 for m in detector.modules() if not any(m.children()) and not isinstance(m, nn.Identity)),
        parameters=total,
        gradients=sum(p.numel() for p in parameters if p.requires_grad),
        flops=None if flops is None else sum(flops.values()),
        sparsity=zeros / total if known and total else None,
        rows=_rows(detector, flops),
    )


def _rows(detector: Detector, flops: Mapping[str, int] | None) -> tuple[Row, ...]:
    widths = block_widths(detector)
    rows = []
    for i, block in enumerate(detector.topology.blocks):
        prefix = f"model.{i}"
        own = None
        if flops is not None:
            own = sum(n for name, n in flops.items() if name == prefix or name.startswith(f"{prefix}."))
        count = sum(p.numel() for p in detector.model[i].parameters())
        rows.append(Row(i, block.sources, block.repeats, block.kind, block.args, widths[i], count, own))
    return tuple(rows)


def block_widths(detector: Detector) -> tuple[int, ...]:
    """Output channels of every block as its tensors give them; for Detect those of one level."""
    widths: dict[int, int] = {}

    def record(i: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor | list[Tensor]) -> None:
            widths[i] = output.shape[1] if isinstance(output, Tensor) else detector.na * detector.no

        return hook

    hooks = [module.register_forward_hook(record(i)) for i, module in enumerate(detector.model)]
    try:
        detector.run_shapes(int(max(detector.strides)) * 2)
    finally:
        for handle in hooks:
            handle.remove()
    return tuple(widths[i] for i in range(len(detector.model)))
