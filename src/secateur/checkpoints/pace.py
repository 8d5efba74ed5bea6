"""How long a step of a healing takes, what can be expected in its minutes, and what it notes of itself at the end."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.distillation.imitate import Imitate
from secateur.errors import UserError
from secateur.files import read_json, write_json
from secateur.terminal.progress import duration
from secateur.training.batches import Batches
from secateur.training.distributed import of_first, one_for_all, rank_and_world
from secateur.training.optimization.precision import Precision, choose_precision, outputs_in_full_precision
from secateur.training.state import has_state, sealed_randomness
from secateur.training.task import Task

NOTES = "healing.json"
"""What a healing notes in its folder: the steps of a piece, and at the end what it did, in which time, and why it
ended."""
FEWEST_PIECES = 25
"""Looks that the minutes have room for; a network of slow steps is looked at after fewer of them."""


@dataclass(frozen=True)
class HealingPace:
    """What a healing is planned by.

    Attributes:
        step_seconds: of one step, its batch included.
        piece: steps between two looks at the images that are held out.
    """

    step_seconds: float
    piece: int

    @classmethod
    def of(
        cls,
        folder: Path,
        network: nn.Module,
        imitate: Imitate,
        batches: Batches,
        task: Task,
        device: torch.device,
        *,
        minutes: float,
        most: int,
    ) -> HealingPace:
        """Measured on two steps of a copy; for a healing that continues, what it was planned by.

        Args:
            minutes: of the healing; 0: no limit.
            most: steps of a piece at most.
        """
        known = notes_of(folder) if has_state(folder) else {}
        if "piece" in known:
            return cls(float(known["step_seconds"]), int(known["piece"]))
        seconds = of_first(seconds_a_step(network, imitate, batches, task, device))
        fitting = minutes * 60 / seconds / FEWEST_PIECES if minutes else most
        pace = cls(seconds, int(np.clip(fitting, 1, most)))
        if rank_and_world()[0] == 0:
            write_json(folder / NOTES, {"piece": pace.piece, "step_seconds": seconds})
        return pace

    def expected(self, minutes: float, loss: float) -> str:
        """What can be expected, in one sentence.

        Args:
            loss: on the images that are held out, before the first step.
        """
        limit = "without a limit"
        if minutes:
            limit = f"at most about {max(int(minutes * 60 / self.step_seconds), 1)} steps in {duration(minutes * 60)}"
        seconds = f"{self.step_seconds:.2g}" if self.step_seconds < 10 else f"{self.step_seconds:.0f}"
        return (
            f"Healing: a step takes {seconds} s, {limit} (--heal-minutes); it ends earlier when the held-out loss, "
            f"{loss:.4f} now, no longer falls."
        )


def seconds_a_step(network: nn.Module, imitate: Imitate, batches: Batches, task: Task, device: torch.device) -> float:
    """Of the second of two steps of a copy; nothing of the training changes but where its network is."""
    precision = Precision(choose_precision("auto", device.type), device.type)
    student = copy.deepcopy(network.to(device).to(memory_format=torch.channels_last)).train()  # type: ignore[call-overload]
    handles, seconds = imitate.watch(student), 0.0
    with sealed_randomness(), one_for_all():
        for number in range(2):
            began = time.monotonic()
            # The first batch of all starts the workers that load images, so another pass gives the second one.
            batch = next(iter(batches.epoch(number)))
            images = batch.images.to(device)
            if images.ndim == 4:
                images = images.contiguous(memory_format=torch.channels_last)
            images = task.prepare(images).to(next(student.parameters()).dtype)
            with precision.autocast():
                raw = student(images)
            loss, _ = imitate(outputs_in_full_precision(raw), batch.targets.to(device), images)
            loss.backward()
            loss.item()  # waits for the device
            seconds = time.monotonic() - began
    for handle in handles:
        handle.remove()
    return max(seconds, 1e-6)


def notes_of(folder: Path) -> dict[str, Any]:
    """What a healing noted; nothing where the file is missing or no note."""
    try:
        found = read_json(folder / NOTES)
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}
