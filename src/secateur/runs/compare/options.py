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
    """Compare networks on the same images: accuracy, cost and time in one table, whether a difference in accuracy is
    more than noise, and the images on which they disagree most."""

    files: Positional[tuple[str, ...]] = ()
    """Checkpoints (.safetensors, .pt), exported files (.onnx, ...), folders of runs, or detections.npz of an earlier
    evaluation, which is not repeated; the first one is the reference."""
    data: Data = ""
    task: str = "val"
    """Split: train, val or test."""
    image_size: ImageSize = 0
    batch_size: Advanced[Annotated[int, arg(aliases=["--batch"]), Between(0, BATCH.most)]] = 0
    """Images in a batch (0: sized for the cache on CPU, 32 on a GPU)."""
    device: Device = "auto"
    workers: Workers = 2
    resamples: Annotated[int, Between(1, 100_000)] = 1000
    """Resamples of the images for the interval of a difference."""
    seed: Seed = 0
    conf: Annotated[float, SHARE] = 0.25
    """Lowest confidence of a box that counts in the list of images on which networks disagree."""
    draw: Annotated[int, COUNT] = 12
    """Images of that list to draw for each network, with the objects and the boxes of both (0: none)."""
    per_class: bool = False
    """Also print mAP50-95 of every class; --verbose means the same."""
    times: bool = True
    """Time the networks in turns, one image a call, on the CPU."""
    runtime: Advanced[str] = ""
    """What times checkpoints: torch, onnx, or any other format of `secateur export` that can be run here (default: onnx
    where it is installed, else torch)."""
    rounds: Advanced[Annotated[int, ROUNDS]] = 30
    """Measurements of each network's time."""
    threads: Advanced[Annotated[int, THREADS]] = 0
    """CPU threads while timing (0: those that this process was granted)."""
    place: OutputOptions = field(default_factory=OutputOptions)
