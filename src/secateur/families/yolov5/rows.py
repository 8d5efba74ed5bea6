"""Blocks of a detector as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from secateur.families.summary import BlockRow
from secateur.families.yolov5.model import Detector
from secateur.layers import hooked


def block_rows(detector: Detector, flops: Mapping[str, int] | None) -> tuple[BlockRow, ...]:
    """One row per block of a detector, with its FLOPs if counted."""
    widths = block_widths(detector)
    rows = []
    for i, block in enumerate(detector.topology.blocks):
        prefix = f"model.{i}"
        own = None
        if flops is not None:
            own = sum(n for name, n in flops.items() if name == prefix or name.startswith(f"{prefix}."))
        count = sum(p.numel() for p in detector.model[i].parameters())
        rows.append(BlockRow(i, block.sources, block.repeats, block.kind, block.args, widths[i], count, own))
    return tuple(rows)


def block_widths(detector: Detector) -> tuple[int, ...]:
    """Output channels of every block, from its tensors; for Detect, of one level."""
    widths: dict[int, int] = {}

    def record(i: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor | list[Tensor]) -> None:
            widths[i] = output.shape[1] if isinstance(output, Tensor) else detector.na * detector.no

        return hook

    with hooked(module.register_forward_hook(record(i)) for i, module in enumerate(detector.model)):
        detector.run_shapes(int(max(detector.strides)) * 2)
    return tuple(widths[i] for i in range(len(detector.model)))
