"""Options of `secateur compare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg

from secateur.ranges import BATCH, COUNT, ROUNDS, SHARE, THREADS, Advanced, Between
from secateur.runs.fields import Data, Device, ImageSize, Seed, Workers
from secateur.runs.folders import OutputOptions


@dataclass(frozen=True)
class CompareOptions:
    """Compare networks on the same images: accuracy, cost and latency in one table, the significance of differences in
    accuracy, and the images on which the networks disagree most.
    """

    files: Positional[tuple[str, ...]] = ()
    """Checkpoints (.safetensors, .pt), exported files (.onnx, ...), run folders, or the detections.npz of an earlier
    evaluation, which is not repeated. The first one is the reference.
    """
    data: Data = ""
    task: str = "val"
    """Split to evaluate: train, val or test."""
    image_size: ImageSize = 0
    batch_size: Advanced[Annotated[int, arg(aliases=["--batch"]), Between(0, BATCH.most)]] = 0
    """Images per batch (0: chosen to fit the CPU cache, or 32 on a GPU)."""
    device: Device = "auto"
    workers: Workers = 2
    resamples: Annotated[int, Between(1, 100_000)] = 1000
    """Bootstrap resamples of the images, for the confidence interval of a difference."""
    seed: Seed = 0
    conf: Annotated[float, SHARE] = 0.25
    """Confidence threshold for the list of images on which networks disagree."""
    draw: Annotated[int, COUNT] = 12
    """Images of that list to draw per network, with labelled objects and the boxes of both networks (0: none)."""
    per_class: bool = False
    """Also print mAP50-95 per class. Synonym: --verbose."""
    times: bool = True
    """Measure latency in interleaved rounds, one image per call, on the CPU."""
    runtime: Advanced[str] = ""
    """Runtime that times checkpoints: torch, onnx, or any other format of `secateur export` that can run here (default:
    onnx if installed, otherwise torch).
    """
    rounds: Advanced[Annotated[int, ROUNDS]] = 30
    """Latency measurements per network."""
    threads: Advanced[Annotated[int, THREADS]] = 0
    """CPU threads for latency measurements (0: all CPUs granted to this process)."""
    place: OutputOptions = field(default_factory=OutputOptions)
