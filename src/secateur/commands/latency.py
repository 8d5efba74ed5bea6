"""`secateur latency`: measures the latency table of a detector on this machine, for --ms on this or another machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from secateur import sizes
from secateur.commands import Summary, command
from secateur.errors import UserError
from secateur.files import usable_path
from secateur.pruning.options import LatencySettings
from secateur.ranges import THREADS
from secateur.runs.fields import ImageSize, Weights
from secateur.runs.folders import OutputOptions, finish, require

if TYPE_CHECKING:
    from secateur.pruning.latency.table import LatencyTable


@dataclass(frozen=True)
class LatencyOptions:
    """Time every layer of a detector at every width on this machine and write the table that --latency-table and --ms
    use.
    """

    weights: Weights = ""
    image_size: ImageSize = 0
    runtime: str = ""
    """Runtime to measure: onnx (ONNX Runtime) or torch (default: onnx if installed, otherwise torch)."""
    threads: Annotated[int, THREADS] = 0
    """CPU threads (0: all CPUs granted to this process)."""
    out: str = ""
    """Output file of the table (default: latency.json in the run folder)."""
    place: OutputOptions = field(default_factory=OutputOptions)


@command("latency", "measure the latency table for budgets in milliseconds", lambda: LatencyOptions, order=115)
def latency(options: LatencyOptions) -> Summary:
    """Measures a new table, which `--ms` on this machine also uses from then on."""
    from secateur.deploy.speed.latency_table import latency_table
    from secateur.families.evaluation import usable_size
    from secateur.families.loading import load_checkpoint

    settings = LatencySettings(runtime=options.runtime, threads=options.threads)
    if options.out and not options.out.endswith(".json"):
        raise UserError(f"Cannot write {options.out}: a latency table needs the file extension .json.")
    usable_path(options.out)
    checkpoint = load_checkpoint(require(options.weights, "--weights", "best.pt"))
    size = sizes.square_as_one(usable_size(checkpoint, options.image_size))
    table = latency_table(checkpoint.build(), size, settings, refresh=True)
    with options.place.new("latency") as folder:
        return _saved(table, options, folder, size)


def _saved(table: LatencyTable, options: LatencyOptions, folder: Path, size: sizes.ImageSize) -> Summary:
    """Writes the table and prints its path."""
    from secateur.runs.ending.next_line import pasted, say

    file = options.out or str(folder / "latency.json")
    table.save(file)
    print(f"{table.machine}, {table.runtime}, {table.threads} threads, batch 1, {sizes.in_words(size)} px")
    print(f"{table.dense:.2f} ms; {len(table.entries)} kinds of layers, R2 {table.r2:.3f} on complete networks")
    print(f"Saved to {file}")
    side = max(sizes.sides_of(size))
    say(pasted("prune", weights=options.weights, img=side, ms=0.5, latency_table=file))
    facts = {"machine": table.machine, "runtime": table.runtime, "threads": table.threads}
    facts |= {"image_size": sizes.as_data(size), "ms": table.dense, "r2": table.r2}
    return finish(folder, {"command": "latency", "table": file, **facts})
