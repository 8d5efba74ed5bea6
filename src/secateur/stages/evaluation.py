"""The verbs that measure: evaluate a checkpoint on a split, describe it, and time several side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from secateur.data.config import DataConfig
from secateur.data.index import Index, scan
from secateur.detector.checkpoint import Checkpoint
from secateur.detector.model import Detector
from secateur.errors import UserError
from secateur.evaluation.cost import count
from secateur.evaluation.latency import Comparison, compare, network_call
from secateur.evaluation.metrics import Metrics
from secateur.evaluation.validate import ValSettings, check_image_size, validate


def pick_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def split_index(data: DataConfig, split: str, *, single_cls: bool = False, tell: bool = False) -> Index:
    """The checked images and labels of a split; with `tell`, what was found is printed on stderr.

    Raises:
        UserError: the data set has no such split, or it is empty or broken.
    """
    if split not in data.splits:
        raise UserError(f"{data.file} has no '{split}' split; it has {', '.join(data.splits)}.")
    return scan(data, split, single_cls=single_cls, progress=tell)


def check_classes(checkpoint: Checkpoint, data: DataConfig, weights: str) -> None:
    """UserError when the checkpoint predicts another number of classes than the data set has."""
    if checkpoint.topology.nc != data.nc:
        raise UserError(
            f"{weights} knows {checkpoint.topology.nc} classes but {data.file} has {data.nc}; "
            "train it on this data set first, or give the data set it was trained on."
        )


def evaluate(
    checkpoint: Checkpoint, data: DataConfig, split: str, settings: ValSettings, *, limit: int | None = None
) -> Metrics:
    """Metrics of a checkpoint on a split, on the GPU when there is one."""
    index = split_index(data, split, single_cls=settings.single_cls)
    return validate(checkpoint.detector().to(pick_device()), index, settings, limit=limit)


def evaluator(index: Index, settings: ValSettings, limit: int | None = None) -> Callable[[Detector], Metrics]:
    """A function that measures detectors on one index, without a progress bar: for the loop and the cliff curve."""

    def measure(detector: Detector) -> Metrics:
        return validate(detector, index, settings, progress=False, limit=limit)

    return measure


def usable_size(checkpoint: Checkpoint, image_size: int) -> int:
    """The image size rounded up to a multiple of the largest stride, with a notice, as YOLOv5 does."""
    return check_image_size(image_size, int(max(checkpoint.strides)))


def describe(checkpoint: Checkpoint, image_size: int, file: Path | None = None) -> dict[str, Any]:
    """Parameters, GFLOPs at a size, share of zeros, and file size: the `model` part of every summary."""
    detector = checkpoint.detector()
    cost = count(detector, image_size)
    parameters = list(detector.parameters())
    total = sum(p.numel() for p in parameters)
    zeros = sum(int((p == 0).sum()) for p in parameters)
    return {
        "parameters": cost.parameters,
        "gflops": cost.flops / 1e9,
        "sparsity": zeros / total,
        "file_mb": file.stat().st_size / 1e6 if file else None,
    }


def torch_calls(checkpoints: Mapping[str, Checkpoint], image_size: int) -> dict[str, Callable[[], None]]:
    """Calls that run the fused detectors once on the CPU, batch 1, channels_last, for `compare`."""
    images = torch.rand(1, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
    calls = {}
    for name, checkpoint in checkpoints.items():
        network = checkpoint.detector().fused().eval()
        calls[name] = network_call(network.to(memory_format=torch.channels_last), images)  # type: ignore[call-overload]
    return calls


def measure_latency(calls: Mapping[str, Callable[[], None]], rounds: int = 30, threads: int = 0) -> Comparison:
    """Milliseconds at batch 1, measured in turns so that a busy machine is busy for all of them."""
    return compare(calls, runs=rounds, warmup=3, threads=threads or None)


def val_settings(image_size: int, workers: int, **changes: Any) -> ValSettings:
    """Validation settings of the stages."""
    return dataclasses.replace(ValSettings(image_size=image_size, workers=workers), **changes)
