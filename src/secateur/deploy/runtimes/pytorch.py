"""PyTorch: checkpoints, ours and upstream YOLOv5's."""

from __future__ import annotations

from pathlib import Path

import torch

from secateur.deploy.runtimes import RUNTIMES, Runtime
from secateur.evaluation.predictor import Predictor
from secateur.families.family import predictor_of
from secateur.families.loading import load_checkpoint
from secateur.machine import use_threads


def open_checkpoint(path: Path, device: torch.device, threads: int = 0, precision: str = "fp32") -> Predictor:
    """The network of a checkpoint as a predictor; PyTorch's number of threads is one for the whole program."""
    if device.type == "cpu":
        use_threads(threads)
    predictor: Predictor = predictor_of(load_checkpoint(path), device, precision)
    return predictor


for suffix in (".safetensors", ".pt"):
    RUNTIMES.register(suffix)(Runtime("PyTorch", open_checkpoint, exported=False))
