"""What the laws compare between one process and two: trainings, weight pruning, imitation, healing.

It is run by torchrun as a script.

All is computed in float64: what another order of summation changes then lies so far below any mistake that no bound
has to be tuned to a processor.
"""

from __future__ import annotations

import copy
import itertools
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from law_subjects import NARROW, detector_named, enliven
from secateur.distillation.settings import DistillSettings
from secateur.families.yolov5.distillation.imitate import ImitateHead
from secateur.families.yolov5.hyp import YOLOv5Hyp
from secateur.families.yolov5.model import Detector
from secateur.networks.checkpoint import Checkpoint
from secateur.sparsity.settings import WeightSettings
from secateur.sparsity.weights import WeightPruning
from secateur.training.distributed import once, rank_and_world, sum_over_processes, world_size
from secateur.training.hyp import Hyp
from secateur.training.optimization.open_end import OpenEnd
from secateur.training.results import HeldOutLoss
from secateur.training.session import TrainingKind
from toy_training import SETTINGS, Keep, ToyBatches, fit, tensors_of, toy_detector

METHODS = ("bce", "l2", "softmax", "raw", "features")
WAIT_MINUTES = 77.0
# Steps of which lively networks do not magnify the rounding by orders of magnitude.
GENTLE = replace(SETTINGS, epochs=1, hyp=Hyp(lr0=1e-4, warmup_bias_lr=1e-4, warmup_epochs=0.0))
PRUNING = WeightSettings(target_sparsity=0.5, pruning_start=0.5, pruning_frequency=1, cooldown_epochs=0)


def train_one(name: str, folder: Path) -> dict[str, Tensor]:
    """One epoch of two steps; what changed. In one of the networks two batches make a step."""
    keep, accumulate = Keep(), 2 if name == "yolov5n" else 1
    detector = copy.deepcopy(detector_named(name)).double()
    settings = replace(GENTLE, batch_size=64 // accumulate)
    batches = ToyBatches(count=2 * accumulate, size=8, channels=detector.architecture.channels)
    fit(detector, batches, settings, folder=folder / name, hooks=[keep])
    return tensors_of(keep)


def pruned(folder: Path) -> dict[str, Tensor]:
    """Scores before the last of four steps, and the masks after them."""
    keep, detector = Keep(), toy_detector().double()
    pruning = WeightPruning(PRUNING, Checkpoint.of(detector))
    settings = replace(GENTLE, batch_size=64)
    scores: dict[str, Tensor] = {}

    class Copy(Keep):
        def before_step(self, run: Any) -> None:
            scores.update({f"scores/{name}": value.clone() for name, value in pruning.scores.items()})

    fit(detector, ToyBatches(count=4, size=4), settings, folder=folder / "pruned", hooks=[pruning, Copy(), keep])
    return scores | {f"masks/{name}": mask for name, mask in keep.run.masks.items()}


def healed(folder: Path) -> dict[str, Tensor]:
    """A training without labels to its own end; what changed, and the decisions with which it ended."""
    keep, end = Keep(), OpenEnd(0, 40, time.monotonic())
    losses = itertools.chain([4.0, 3.0, 2.0], itertools.repeat(2.5))
    student, teacher = toy_detector().double(), toy_detector(1)
    enliven(teacher, 1)
    imitate = ImitateHead(DistillSettings("raw+features"), student, teacher.double(), YOLOv5Hyp(), 64)
    settings = replace(GENTLE, batch_size=8, nominal_batch=8, epochs=40, patience=0, optimizer="AdamW")
    fit(
        student,
        ToyBatches(count=1, size=8),
        settings,
        folder=folder / "healed",
        hooks=[imitate, end, keep],
        terms=[imitate],
        evaluate=lambda network: HeldOutLoss(next(losses)),
        kind=TrainingKind(labels=False),
    )
    decisions = [keep.run.epoch, *(number for fall in end.falls for number in (fall.start, fall.end))]
    return tensors_of(keep) | {"decisions": torch.tensor(decisions), "losses": torch.tensor(end.losses)}


def lively(seed: int) -> Detector:
    """A narrow yolov5n for three classes with lively outputs; seeds differ in scales, shifts and statistics."""
    detector = copy.deepcopy(detector_named("yolov5n"))
    enliven(detector, seed)
    return detector.train()


def imitated(method: str) -> dict[str, Tensor]:
    """Loss parts of a distillation, and gradients as DDP makes them: the mean over processes."""
    # In eval mode, so that the network itself is the same function of an image in any batch.
    student, teacher = lively(0).eval().double(), lively(1)
    imitate = ImitateHead(DistillSettings(method, distill_feature_weight=1.0), student, teacher, YOLOv5Hyp(), 64)
    handles = imitate.watch(student)
    # Three of five images on the first process: shares differ.
    batch = next(iter(ToyBatches(count=1, size=5).epoch(0)))
    images = batch.images.double() / 255
    loss, parts = imitate(student(images), batch.targets, images)
    loss.backward()
    for handle in handles:
        handle.remove()
    result = {name: sum_over_processes(value) for name, value in parts.items()}
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            result[name] = sum_over_processes(parameter.grad) / world_size()
    return result


def outcomes(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Everything, by what it is."""
    result = {name: train_one(name, folder) for name in NARROW}
    result |= {f"imitated {method}": imitated(method) for method in METHODS}
    return result | {"pruned": pruned(folder), "healed": healed(folder)}


def main(folder: Path) -> None:
    """Writes what this process has, and the first one also what they agreed on."""
    torch.set_num_threads(1)
    rank, _ = rank_and_world()
    # The first to join decides how long processes wait for each other.
    fit(toy_detector(), ToyBatches(1), replace(GENTLE, wait_minutes=WAIT_MINUTES), folder=folder / "first")
    agreed = once(lambda: f"made by {rank}", device="cpu")
    group = dist.group.WORLD
    assert group is not None
    waits = group._get_backend(torch.device("cpu")).options._timeout
    torch.save(outcomes(folder), folder / f"{rank}.pt")
    (folder / f"{rank}.txt").write_text(f"{agreed}, waits {waits.total_seconds()} s")
    dist.barrier()
    # The end of a process with gloo threads may abort after all work is done.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
