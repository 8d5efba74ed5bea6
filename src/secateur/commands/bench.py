"""`secateur bench`: compares the latency of checkpoints and exported files on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from secateur import sizes
from secateur.commands import Summary, command
from secateur.ranges import BATCH, ROUNDS, THREADS, Advanced
from secateur.runs.fields import Device, ImageSize
from secateur.runs.folders import OutputOptions, finish

if TYPE_CHECKING:
    from secateur.deploy.speed.comparison import BatchComparison, SpeedComparison

ITS_SIZE = "(default: the size that the exported files require, then the size stored in the checkpoints, then 640)"


@dataclass(frozen=True)
class BenchOptions:
    """Compare the speed of detectors on this machine: interleaved calls, medians, speed relative to FLOPs, and why a
    network with fewer FLOPs is not faster.
    """

    files: Positional[tuple[str, ...]] = ()
    """Checkpoints (.safetensors, .pt) and exported files (.onnx, ...). The first file on each runtime is the reference
    for the other files on that runtime.
    """
    image_size: Annotated[ImageSize, arg(help_behavior_hint=ITS_SIZE)] = 0
    runtime: tuple[str, ...] = ()
    """Runtimes for checkpoints, one or several: torch, onnx, or any other format of `secateur export` that can run here
    (default: onnx if installed, otherwise torch). Exported files run in their own runtime.
    """
    batch_size: Annotated[tuple[int, ...], arg(aliases=["--batch"]), BATCH] = (1,)
    """Images per call. Several values print one table each."""
    rounds: Advanced[Annotated[int, ROUNDS]] = 30
    """Measurements per model."""
    threads: Annotated[int, THREADS] = 0
    """CPU threads (0: all CPUs granted to this process). With fewer threads, the process is also limited to as many
    cores.
    """
    device: Device = "cpu"
    precision: str = "fp32"
    """Precision of checkpoints that run in PyTorch: fp32, bf16, or fp16 on a GPU."""
    layers: bool = False
    """Also print the time of every layer (ONNX Runtime and PyTorch, on the CPU). Two files are shown in one table."""
    place: OutputOptions = field(default_factory=OutputOptions)


@command("bench", "compare the speed of detectors on this machine", lambda: BenchOptions, order=110)
def bench(options: BenchOptions) -> Summary:
    """Times all files in interleaved rounds and prints one table per batch size."""
    from secateur.deploy.speed.comparison import compare_files
    from secateur.deploy.speed.timed import BenchSettings
    from secateur.machine import cpu_threads, pick_device, processor

    asked = BenchSettings(
        options.runtime,
        options.image_size,
        options.batch_size,
        options.rounds,
        options.threads or cpu_threads(),
        pick_device(options.device),
        options.precision,
    )
    result = compare_files(options.files, asked, layers=options.layers)
    machine = processor() if asked.device.type == "cpu" else str(asked.device)
    for block in result.blocks:
        pixels = sizes.in_words(result.sides)
        threads = f"{asked.threads} thread{'s' if asked.threads > 1 else ''}"
        print(f"{machine}, {threads}, batch {block.batch}, {pixels} px, {asked.precision}")
        _show(block, layers=options.layers)
    table = [entry for block in result.blocks for entry in _entries(block)]
    summary = {
        "command": "bench",
        "machine": machine,
        "threads": asked.threads,
        "image_size": sizes.as_data(result.sides),
        "runtime": result.runtimes[0],
        "runtimes": list(result.runtimes),
        "table": table,
        "reasons": [reason for block in result.blocks for reason in block.reasons],
        "model": table[0]["model"],
        "speed_ms": _speed(table),
    }
    if options.layers:
        summary["layers"] = _layers(result)
    with options.place.new("bench") as folder:
        return finish(folder, summary)


def _show(block: BatchComparison, *, layers: bool) -> None:
    from secateur.deploy.speed.table import bench_table, layer_table, layer_tables

    print(bench_table(block.rows))
    for reason in block.reasons:
        print(reason)
    for place, found in block.layers.items() if layers else ():
        row, first = block.rows[place], block.firsts[place]
        others = [other for other in block.layers if block.firsts[other] == first and other != first]
        if place == first and not others:
            print(f"\n{row.name} on {row.runtime}\n{layer_table(found, block.machine)}")
        elif place != first:
            print(f"\n1: {block.rows[first].name}, 2: {row.name}, on {row.runtime}")
            print(layer_tables(block.layers[first], found, block.machine))


def _entries(block: BatchComparison) -> list[dict[str, Any]]:
    """The rows of the table as entries of the summary."""
    return [
        {"file": row.name, "model": model, "faster": row.ratio, "batch": block.batch, **row.to_dict()}
        for row, model in zip(block.rows, block.models, strict=True)
    ]


def _speed(table: list[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds by file. Keys include the runtime or the batch size if a file was measured with several."""
    found: dict[str, float] = {}
    for row in table:
        name = row["file"] if row["file"] not in found else f"{row['file']}, {row['runtime']}, batch {row['batch']}"
        found[name] = row["median_ms"]
    return found


def _layers(result: SpeedComparison) -> list[dict[str, Any]]:
    """The layers of every profiled file."""
    from secateur.deploy.speed.table import layers_to_dict

    return [
        {
            "file": block.rows[place].name,
            "runtime": block.rows[place].runtime,
            "batch": block.batch,
            "balance": block.machine.balance,
            "block": block.machine.block,
            "layers": layers_to_dict(layers, block.machine),
        }
        for block in result.blocks
        for place, layers in block.layers.items()
    ]
