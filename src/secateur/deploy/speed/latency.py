"""Latency of several detectors on this machine, in ONNX Runtime if installed, otherwise in PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from secateur.deploy.exporters import EXPORTERS, export
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.deploy.speed.timed import TORCH, default_runtime
from secateur.evaluation.latency import Comparison, compare, predictor_call, random_images
from secateur.families.family import predictor_of
from secateur.machine import cpu_threads, pinned
from secateur.networks.checkpoint import Checkpoint
from secateur.sizes import ImageSize
from secateur.terminal import timing_bar

WARMUP = 3
"""Warm-up rounds."""


def measure_latency(
    checkpoints: Mapping[str, Checkpoint],
    image_size: ImageSize,
    *,
    rounds: int = 30,
    threads: int = 0,
    runtime: str = "",
) -> Comparison:
    """Times detectors at batch 1 on the CPU in interleaved rounds, so that background load affects all equally.

    Args:
        checkpoints: detectors by name.
        image_size: px, one side or height and width.
        rounds: measurements per detector.
        threads: 0 uses all CPUs granted to this process.
        runtime: "torch", the format of an export, or "" for the first installed of ONNX Runtime and PyTorch.
    """
    chosen, count = runtime or default_runtime(), threads or cpu_threads()
    calls: dict[str, Callable[[], Any]] = {}
    with tempfile.TemporaryDirectory() as folder, pinned(count):
        for number, (name, checkpoint) in enumerate(checkpoints.items()):
            detector = checkpoint.build()
            images = random_images(image_size, channels=checkpoint.architecture.channels)
            if chosen == TORCH:
                calls[name] = predictor_call(predictor_of(detector), images)
                continue
            file = Path(folder) / f"{number}{EXPORTERS[chosen].suffix}"
            export(detector, file, image_size, ExportSettings(format=chosen))
            calls[name] = predictor_call(open_predictor(file, threads=count), images)
        with timing_bar("timing", (WARMUP + rounds) * len(calls)) as advance:
            return compare(calls, runs=rounds, warmup=WARMUP, threads=count, done=advance)


def latencies(
    checkpoints: Mapping[str, Checkpoint],
    image_size: ImageSize,
    *,
    rounds: int = 30,
    threads: int = 0,
    runtime: str = "",
) -> dict[str, float]:
    """The median milliseconds by name; see `measure_latency`."""
    measured = measure_latency(checkpoints, image_size, rounds=rounds, threads=threads, runtime=runtime)
    return {name: value.median_ms for name, value in measured.latencies.items()}
