"""Trains every network of the laws for an epoch, as one of several processes; run by torchrun."""

from __future__ import annotations

import copy
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from law_subjects import NARROW, subject_named
from secateur.training.hyp import Hyp
from secateur.training.loop import fit
from toy_training import SETTINGS, Keep, ToyBatches, tensors_of


def train_one(name: str, folder: Path) -> dict[str, Tensor]:
    """One epoch of two steps; what changed."""
    keep = Keep()
    # Gentle steps: lively networks would amplify the rounding of another order of summation.
    settings = replace(SETTINGS, epochs=1, hyp=Hyp(lr0=1e-4, warmup_bias_lr=1e-4, warmup_epochs=0.0))
    detector = copy.deepcopy(subject_named(name).detector)
    fit(detector, ToyBatches(count=4, size=8), settings, folder=folder / name, hooks=[keep])
    return tensors_of(keep)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for name in NARROW:
        tensors = train_one(name, folder)
        if int(os.environ["RANK"]) == 0:
            torch.save(tensors, folder / f"{name}.pt")
    torch.distributed.barrier()
    # The end of a process with gloo threads may abort after all work is done.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
