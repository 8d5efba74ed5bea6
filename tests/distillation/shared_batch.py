"""Computes every imitation loss and its gradients on one batch, as one of several processes; run by torchrun."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from law_subjects import enliven, subject_named
from secateur.detector.model import Detector
from secateur.distillation.imitate import Imitate
from secateur.distillation.settings import DistillSettings
from secateur.training.distributed import rank_and_world, sum_over_processes, world_size
from secateur.training.hyp import Hyp
from toy_training import ToyBatches

METHODS = ("bce", "l2", "softmax", "features")


def lively(seed: int) -> Detector:
    """A narrow yolov5n for three classes with lively outputs; seeds differ in scales, shifts and statistics."""
    detector = copy.deepcopy(subject_named("yolov5n").detector)
    enliven(detector, seed)
    return detector.train()


def outcome(method: str) -> dict[str, Tensor]:
    """Loss parts, and gradients as DDP makes them: the mean over processes."""
    # In eval mode, so that the network itself is the same function of an image in any batch.
    student, teacher = lively(0).eval(), lively(1)
    imitate = Imitate(DistillSettings(method, distill_feature_weight=1.0), student, teacher, Hyp(), 64)
    handle = imitate.watch(student)
    # Three of five images on the first process: shares differ.
    batch = next(iter(ToyBatches(count=1, size=5).epoch(0)))
    images = batch.images.float() / 255
    loss, parts = imitate(student(images), batch.targets, images)
    loss.backward()
    handle.remove()
    result = {f"{method}/{name}": sum_over_processes(value) for name, value in parts.items()}
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            result[f"{method}/{name}"] = sum_over_processes(parameter.grad) / world_size()
    return result


def main(file: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    result: dict[str, Tensor] = {}
    for method in METHODS:
        result |= outcome(method)
    if rank_and_world()[0] == 0:
        torch.save(result, file)
    dist.barrier()
    # The end of a process with gloo threads may abort after all work is done.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
