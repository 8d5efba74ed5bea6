"""The tables of a comparison: one line per detector, and one line per layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from secateur.deploy.profiling import LayerTime
from secateur.deploy.speed.reasons import Machine
from secateur.evaluation.cost import LayerWork
from secateur.evaluation.latency import Latency

_LEFT = ("model", "runtime", "layer", "kind", "")


@dataclass(frozen=True)
class BenchRow:
    """One model of a comparison. None means unknown.

    Attributes:
        name: as given by the user.
        runtime: name of the runtime, such as "ONNX Runtime".
        latency: its latency.
        ratio: images per second relative to the first model on the same runtime.
        flops_ratio: FLOPs of that model divided by its own.
        parameters: number of trainable values.
        gflops: billions of operations per image.
        file_mb: size in megabytes (10^6 bytes): of an exported file, or of a checkpoint's tensors in fp16.
        accuracy: main metric from the last history entry that recorded one.
        figure: name of the main metric.
        note: a remark, such as a fixed batch size.
    """

    name: str
    runtime: str
    latency: Latency
    ratio: float
    flops_ratio: float | None = None
    parameters: int | None = None
    gflops: float | None = None
    file_mb: float | None = None
    accuracy: float | None = None
    figure: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the latency values at the same level."""
        data = asdict(self)
        del data["latency"]
        return data | self.latency.to_dict()


def bench_table(rows: Sequence[BenchRow]) -> str:
    """One line per model under one row of headings. Columns without any known value are omitted."""
    columns: dict[str, list[str]] = {
        "model": [row.name for row in rows],
        "runtime": [row.runtime for row in rows],
        "ms": [f"{row.latency.median_ms:.2f}" for row in rows],
        "p10-p90": [f"{row.latency.p10:.2f}-{row.latency.p90:.2f}" for row in rows],
        "images/s": [_number(row.latency.images_per_second) for row in rows],
        "speed": [f"{row.ratio:.2f}x" for row in rows],
        "FLOPs": [_times(row.flops_ratio) for row in rows],
        "parameters": [f"{row.parameters:,}" if row.parameters is not None else "" for row in rows],
        "GFLOPs": [_number(row.gflops) for row in rows],
        "MB": [_number(row.file_mb) for row in rows],
    }
    for figure in dict.fromkeys(row.figure for row in rows if row.accuracy is not None):
        columns[figure] = [
            f"{row.accuracy:.3f}" if row.accuracy is not None and row.figure == figure else "" for row in rows
        ]
    columns[""] = [row.note for row in rows]
    return _text(columns)


def layer_table(layers: Sequence[LayerTime], machine: Machine) -> str:
    """All layers of a call, with their share of the total time and their inefficiencies."""
    total = sum(layer.ms for layer in layers)
    columns = {
        "layer": [layer.name for layer in layers],
        "kind": [layer.kind for layer in layers],
        "width": [_width(layer.work) for layer in layers],
        "map": [_map(layer.work) for layer in layers],
        "GFLOPs": [_gflops(layer.work) for layer in layers],
        "ms": [f"{layer.ms:.3f}" for layer in layers],
        "share": [f"{layer.ms / total:.1%}" for layer in layers],
        "GFLOP/s": [_rate(layer, machine) for layer in layers],
        "": [machine.flags(layer.work) for layer in layers],
    }
    return f"{_text(columns)}\n{total:.2f} ms in total"


def layer_tables(dense: Sequence[LayerTime], small: Sequence[LayerTime], machine: Machine) -> str:
    """Layers of two detectors in one table, matched by name, first detector first. Inefficiencies are those of the
    second.
    """
    first, second = ({(layer.name, layer.kind): layer for layer in layers} for layers in (dense, small))
    keys = list(dict.fromkeys([*first, *second]))
    pairs = [(first.get(key), second.get(key)) for key in keys]
    times = [sum(layer.ms for layer in layers) for layers in (dense, small)]
    columns = {"layer": [name for name, _ in keys], "kind": [kind for _, kind in keys]}
    for number, figures in (("1", [a for a, _ in pairs]), ("2", [b for _, b in pairs])):
        columns[f"width {number}"] = [_width(layer.work) if layer else "" for layer in figures]
    columns["map"] = [_map((b or a).work) if (b or a) is not None else "" for a, b in pairs]  # type: ignore[union-attr]
    for number, total, figures in (("1", times[0], [a for a, _ in pairs]), ("2", times[1], [b for _, b in pairs])):
        columns[f"GFLOPs {number}"] = [_gflops(layer.work) if layer else "" for layer in figures]
        columns[f"ms {number}"] = [f"{layer.ms:.3f}" if layer else "" for layer in figures]
        columns[f"share {number}"] = [f"{layer.ms / total:.1%}" if layer else "" for layer in figures]
        columns[f"GFLOP/s {number}"] = [_rate(layer, machine) if layer else "" for layer in figures]
    columns["speed"] = [_times(a.ms / b.ms) if a and b and b.ms else "" for a, b in pairs]
    columns[""] = [machine.flags(b.work) if b else "" for _, b in pairs]
    return f"{_text(columns)}\n{times[0]:.2f} ms and {times[1]:.2f} ms in total"


def layers_to_dict(layers: Sequence[LayerTime], machine: Machine) -> list[Mapping[str, Any]]:
    """Plain data for JSON."""
    return [layer.to_dict() | {"flags": machine.flags(layer.work)} for layer in layers]


def _text(columns: Mapping[str, Sequence[str]]) -> str:
    """Cells under headings, without empty columns."""
    columns = {title: cells for title, cells in columns.items() if any(cells)}
    widths = {title: max(len(title), *(len(cell) for cell in cells)) for title, cells in columns.items()}
    lines = []
    for cells in [list(columns), *zip(*columns.values(), strict=True)]:
        parts = [
            f"{cell:<{width}}" if title in _LEFT else f"{cell:>{width}}"
            for cell, (title, width) in zip(cells, widths.items(), strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _width(work: LayerWork | None) -> str:
    return f"{work.reads} -> {work.emits}" if work else ""


def _map(work: LayerWork | None) -> str:
    return f"{work.map[0]}x{work.map[1]}" if work else ""


def _gflops(work: LayerWork | None) -> str:
    return f"{work.flops / 1e9:.3f}" if work else ""


def _rate(layer: LayerTime, machine: Machine) -> str:
    """Billions of operations per second."""
    return f"{machine.images * layer.work.flops / layer.ms / 1e6:.0f}" if layer.work and layer.ms else ""


def _times(value: float | None) -> str:
    return f"{value:.2f}x" if value is not None else ""


def _number(value: float | None) -> str:
    """Three significant digits: 0.131, 4.53, 16.4, 1234."""
    if value is None:
        return ""
    digits = next((digits for digits, limit in ((3, 1), (2, 10), (1, 100)) if abs(value) < limit), 0)
    return f"{value:.{digits}f}"
