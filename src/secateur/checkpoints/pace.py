"""Duration of a healing step, the resulting estimate, and the notes at the end of a healing."""

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
"""Notes of a healing in its folder: steps per piece and, at the end, its results, duration and reason for the end."""
FEWEST_PIECES = 25
"""Minimum number of pieces within the time limit; for slow networks, pieces have fewer steps."""


@dataclass(frozen=True)
class HealingPace:
    """Basis for planning a healing.

    Attributes:
        step_seconds: duration of one step, including its batch.
        piece: steps between two evaluations on the held-out images.
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
        """Measures two steps of a copy; for a resumed healing, the previous values.

        Args:
            minutes: time limit of the healing; 0: no limit.
            most: maximum number of steps per piece.
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
        """The estimate in one sentence.

        Args:
            loss: loss on the held-out images before the first step.
        """
        limit = "no time limit"
        if minutes:
            limit = f"at most about {max(int(minutes * 60 / self.step_seconds), 1)} steps in {duration(minutes * 60)}"
        seconds = f"{self.step_seconds:.2g}" if self.step_seconds < 10 else f"{self.step_seconds:.0f}"
        return (
            f"Healing: a step takes {seconds} s, {limit} (--heal-minutes). It stops earlier if the held-out loss, "
            f"now {loss:.4f}, stops falling."
        )


def seconds_a_step(network: nn.Module, imitate: Imitate, batches: Batches, task: Task, device: torch.device) -> float:
    """Duration of the second of two steps of a copy; the training is not changed, except for the device of its
    network."""
    precision = Precision(choose_precision("auto", device.type), device.type)
    student = copy.deepcopy(network.to(device).to(memory_format=torch.channels_last)).train()  # type: ignore[call-overload]
    handles, seconds = imitate.watch(student), 0.0
    with sealed_randomness(), one_for_all():
        for number in range(2):
            began = time.monotonic()
            # The first batch starts the workers that load images, so a second pass is measured.
            batch = next(iter(batches.epoch(number)))
            images = batch.images.to(device)
            if images.ndim == 4:
                images = images.contiguous(memory_format=torch.channels_last)
            images = task.prepare(images).to(next(student.parameters()).dtype)
            with precision.autocast():
                raw = student(images)
            loss, _ = imitate(outputs_in_full_precision(raw), batch.targets.to(device), images)
            loss.backward()
            loss.item()  # synchronises with the device
            seconds = time.monotonic() - began
    for handle in handles:
        handle.remove()
    return max(seconds, 1e-6)


def notes_of(folder: Path) -> dict[str, Any]:
    """The notes of a healing; empty if the file is missing or invalid."""
    try:
        found = read_json(folder / NOTES)
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}
