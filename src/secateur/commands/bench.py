"""`secateur bench`: latency of checkpoints side by side on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from tyro.conf import Positional

from secateur.commands import Summary, command
from secateur.errors import UserError
from secateur.runs.fields import ImageSize
from secateur.runs.folders import Place, finish

RUNTIMES = {"onnx": "ONNX Runtime", "torch": "PyTorch"}


@dataclass(frozen=True)
class BenchOptions:
    """Measure checkpoints side by side on this machine: CPU latency at batch 1, interleaved, medians."""

    files: Positional[tuple[str, ...]] = ()
    """Checkpoints; the first one is what the others are compared with."""
    image_size: ImageSize = 0
    runtime: str = "onnx"
    """onnx (ONNX Runtime) or torch."""
    rounds: int = 30
    """Measurements of each model."""
    threads: int = 0
    """CPU threads (0: those that this process was granted)."""
    place: Place = field(default_factory=Place)


@command("bench", "measure checkpoints side by side on this machine", lambda: BenchOptions, order=110)
def bench(options: BenchOptions) -> Summary:
    """Times all files in turns and prints a table."""
    from secateur.compression.latency import measure_latency
    from secateur.compression.measuring import describe, usable_size
    from secateur.deploy.exporters import EXPORTERS
    from secateur.detector.checkpoint import load_checkpoint
    from secateur.evaluation.latency import BenchRow, bench_table
    from secateur.machine import cpu_threads, processor

    if not options.files:
        raise UserError("secateur bench needs checkpoints: secateur bench dense.pt cut.safetensors.")
    if options.runtime not in RUNTIMES:
        raise UserError(f"--runtime {options.runtime} is unknown; choose {' or '.join(RUNTIMES)}.")
    if options.runtime == "onnx" and EXPORTERS["onnx"].missing():
        raise UserError("ONNX Runtime is not installed: pip install 'secateur[onnx]', or choose --runtime torch.")
    checkpoints = {file: load_checkpoint(file) for file in dict.fromkeys(options.files)}
    size = max(usable_size(checkpoint, options.image_size) for checkpoint in checkpoints.values())
    measured = measure_latency(
        checkpoints, size, rounds=options.rounds, threads=options.threads, runtime=options.runtime
    )
    rows, table = [], []
    for file, latency in measured.latencies.items():
        model = describe(checkpoints[file], size)
        known = [stage.metrics["mAP50-95"] for stage in checkpoints[file].history if "mAP50-95" in stage.metrics]
        accuracy = known[-1] if known else None
        rows.append(
            BenchRow(
                file, RUNTIMES[options.runtime], latency, measured.ratios[file], model["parameters"], model["gflops"],
                model["file_mb"], accuracy,
            )
        )  # fmt: skip
        table.append({"file": file, "model": model, "faster": measured.ratios[file], **rows[-1].to_dict()})
    print(f"{processor()}, {options.threads or cpu_threads()} threads, batch 1, {size} px")
    print(bench_table(rows))
    summary = {"command": "bench", "runtime": options.runtime, "table": table, "model": table[0]["model"]}
    speed = {row["file"]: row["median_ms"] for row in table}
    return finish(options.place.new("bench"), summary | {"speed_ms": speed})
