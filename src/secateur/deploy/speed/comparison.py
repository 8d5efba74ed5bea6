"""Times files in interleaved rounds, and profiles those that are smaller but not faster."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from secateur.deploy.profiling import LayerTime, profiler_of
from secateur.deploy.speed.balance import machine_balance
from secateur.deploy.speed.reasons import Machine, alike, excess, not_faster, sentence, shares
from secateur.deploy.speed.table import BenchRow
from secateur.deploy.speed.timed import (
    BenchFile,
    BenchSettings,
    TimedNetwork,
    bench_files,
    check_runtimes,
    common_size,
    timed_networks,
)
from secateur.deploy.timing import MOST_TURNS, settle
from secateur.errors import UserError
from secateur.evaluation.latency import Comparison, compare
from secateur.families.evaluation import describe, size_of
from secateur.machine import pinned, simd_channels
from secateur.pruning.settings import ROUND_TO
from secateur.sizes import ImageSize, Sides, sides_of
from secateur.terminal import timing_bar

WARMUP = 3
"""Warm-up rounds."""


@dataclass(frozen=True)
class BatchComparison:
    """The measurements at one batch size.

    Attributes:
        batch: requested batch size.
        rows: table rows, in the order of the files.
        models: metadata of each row's detector, as in all summaries.
        reasons: why smaller detectors are not faster.
        layers: layers of the profiled files, by row index.
        firsts: index of the row that each row is compared with.
        machine: properties of the machine by which layers are judged.
    """

    batch: int
    rows: tuple[BenchRow, ...]
    models: tuple[Mapping[str, Any], ...]
    reasons: tuple[str, ...]
    layers: Mapping[int, Sequence[LayerTime]]
    firsts: tuple[int, ...]
    machine: Machine


@dataclass(frozen=True)
class SpeedComparison:
    """A comparison at one image size."""

    sides: Sides
    runtimes: tuple[str, ...]
    blocks: tuple[BatchComparison, ...] = field(default_factory=tuple)


def compare_files(files: Sequence[str], settings: BenchSettings, *, layers: bool = False) -> SpeedComparison:
    """Times all files in interleaved rounds, once for each batch size.

    Args:
        files: checkpoints and exported files; the first file on each runtime is the reference for the others on it.
        settings: settings of the benchmark.
        layers: profile every file, instead of only those that are smaller but not faster.

    Raises:
        UserError: a file or an option is invalid.
    """
    _check(settings, layers)
    settings = replace(settings, runtimes=check_runtimes(settings.runtimes))
    # Files opened while the process is pinned have their threads on the cores that are timed.
    with pinned(settings.threads if settings.device.type == "cpu" else 0):
        entries = bench_files(files, settings)
        sides = common_size(entries, settings.image_size)
        balance = machine_balance(settings.threads, settings.device)
        channels = simd_channels() if settings.device.type == "cpu" else ROUND_TO
        blocks = []
        for batch in dict.fromkeys(settings.batches):
            machine = Machine(channels, balance, batch)
            blocks.append(_block(entries, settings, sides, machine, layers))
    return SpeedComparison(sides, settings.runtimes, tuple(blocks))


def side_by_side(
    sizes: Mapping[str, ImageSize], settings: BenchSettings
) -> dict[str, tuple[BenchRow, Mapping[str, Any]]]:
    """Times files in interleaved rounds at batch 1, each at its own image size. The first file is the reference.

    Args:
        sizes: px, one side or height and width, by file.
        settings: settings of the benchmark; checkpoints run on the first of its runtimes.

    Returns:
        by file, a row and the `model` entry of summaries.

    Raises:
        UserError: a file or an option is invalid.
    """
    _check(settings, layers=False)
    settings = replace(settings, runtimes=check_runtimes(settings.runtimes)[:1], batches=(1,))
    with pinned(settings.threads if settings.device.type == "cpu" else 0), tempfile.TemporaryDirectory() as folder:
        found = []
        for number, entry in enumerate(bench_files(list(sizes), settings)):
            place = Path(folder) / str(number)
            found += timed_networks([entry], settings, sides_of(sizes[entry.name]), 1, place)
        measured = _measured(found, [0] * len(found), settings)
        models = [_model(one) for one in found]
        rows = [_row(one, found[0], measured, model, 1) for one, model in zip(found, models, strict=True)]
    return {row.name: (row, model) for row, model in zip(rows, models, strict=True)}


def _check(settings: BenchSettings, layers: bool) -> None:
    if settings.rounds < 1:
        raise UserError(f"--rounds {settings.rounds} must be at least 1.")
    if not settings.batches or min(settings.batches) < 1:
        raise UserError(f"--batch-size {min(settings.batches, default=0)} must be at least 1.")
    others = [name for name in settings.runtimes if name != "torch"]
    if settings.precision != "fp32" and (others or not settings.runtimes):
        raise UserError(f"--precision {settings.precision} applies to checkpoints in PyTorch. Add --runtime torch.")
    if settings.precision == "fp16" and settings.device.type == "cpu":
        raise UserError("--precision fp16 needs a GPU. Use --device cuda, or bf16.")
    if settings.device.type not in ("cpu", "cuda"):
        raise UserError(f"secateur bench does not support the device {settings.device.type}. Use --device cpu or cuda.")
    if layers and settings.device.type != "cpu":
        raise UserError("--layers profiles on the CPU only. Use --device cpu.")
    if layers and settings.precision != "fp32":
        raise UserError("--layers profiles in fp32 only. Remove --precision.")


def _block(
    entries: Sequence[BenchFile], settings: BenchSettings, sides: Sides, machine: Machine, layers: bool
) -> BatchComparison:
    with tempfile.TemporaryDirectory() as folder:
        found = timed_networks(entries, settings, sides, machine.images, Path(folder))
        firsts = [next(i for i, one in enumerate(found) if one.runtime == other.runtime) for other in found]
        measured = _measured(found, firsts, settings)
        models = tuple(_model(one) for one in found)
        rows = tuple(
            _row(one, found[first], measured, model, machine.images)
            for one, first, model in zip(found, firsts, models, strict=True)
        )
        slow = [i for i, row in enumerate(rows) if not_faster(row.flops_ratio, row.ratio)]
        wanted = range(len(found)) if layers else sorted({*slow, *(firsts[i] for i in slow)})
        profiles = _profiles(found, wanted, settings)
    reasons = tuple(_reason(found[i], rows[i], machine, profiles.get(i), profiles.get(firsts[i])) for i in slow)
    return BatchComparison(machine.images, rows, models, reasons, profiles, tuple(firsts), machine)


def _measured(found: Sequence[TimedNetwork], firsts: Sequence[int], settings: BenchSettings) -> Comparison:
    with timing_bar("timing", (settings.rounds + WARMUP) * len(found)) as advance:
        return compare(
            {one.key: one.call for one in found},
            runs=settings.rounds,
            warmup=WARMUP,
            threads=settings.threads,
            images={one.key: one.images for one in found},
            baselines={one.key: found[first].key for one, first in zip(found, firsts, strict=True)},
            done=advance,
        )


def _profiles(
    found: Sequence[TimedNetwork], wanted: Sequence[int], settings: BenchSettings
) -> dict[int, list[LayerTime]]:
    """The layers of networks whose runtime has a profiler, measured in interleaved rounds."""
    if settings.device.type != "cpu" or settings.precision != "fp32":
        return {}
    opened = {
        place: profiler.open(found[place].file, found[place].shape, settings.threads)
        for place in wanted
        if (profiler := profiler_of(found[place].file)) is not None and found[place].work
    }
    with timing_bar("timing layers", MOST_TURNS * len(opened)) as advance:
        settle(list(opened.values()), done=advance)
    return {place: profiling.layers() for place, profiling in opened.items()}


def _row(
    one: TimedNetwork, first: TimedNetwork, measured: Comparison, model: Mapping[str, Any], batch: int
) -> BenchRow:
    entries = one.checkpoint.history if one.checkpoint else ()
    # The last recorded value is the main metric.
    figure, accuracy = next(
        (list(entry.metrics.items())[-1] for entry in reversed(entries) if entry.metrics), ("", None)
    )
    return BenchRow(
        one.name,
        one.runtime,
        measured.latencies[one.key],
        measured.ratios[one.key],
        first.flops / one.flops if first.flops and one.flops else None,
        model["parameters"],
        model["gflops"],
        model["file_mb"],
        accuracy,
        figure,
        f"fixed batch of {one.images}" if one.images != batch else "",
    )


def _model(one: TimedNetwork) -> dict[str, Any]:
    """The `model` entry of summaries."""
    gflops = one.flops / 1e9 if one.flops else None
    if one.checkpoint is not None:
        return describe(one.checkpoint, int(max(one.checkpoint.strides, default=1))) | {"gflops": gflops}
    return {"parameters": None, "gflops": gflops, "sparsity": None, "file_mb": megabytes(one.file)}


def _reason(
    one: TimedNetwork,
    row: BenchRow,
    machine: Machine,
    own: Sequence[LayerTime] | None,
    dense: Sequence[LayerTime] | None,
) -> str:
    assert row.flops_ratio is not None
    causes = excess(dense, own, machine) if own and dense and alike(dense, own) else None
    part = shares(one.work, machine, own or ())
    by_layers = sum(layer.ms for layer in dense) / sum(layer.ms for layer in own) if own and dense else None
    return sentence(f"{one.name} on {one.runtime}", row.flops_ratio, row.ratio, machine, part, causes, by_layers)


def megabytes(path: Path) -> float | None:
    """Size in megabytes (10^6 bytes) of a file, or of all files of a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    return size_of(path)
