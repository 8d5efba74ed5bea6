"""Sparsity schedules: how many weights are zero when, one function a schedule.

A schedule maps (present sparsity at the start, target, progress through the window in 0..1) to the sparsity wanted now.
It gives the target at progress 1; the pruning itself never goes above the target, nor back.
"""

from __future__ import annotations

from collections.abc import Callable

from secateur.registry import Registry

SparsitySchedule = Callable[[float, float, float], float]

SPARSITY_SCHEDULES: Registry[SparsitySchedule] = Registry("pruning schedule", "secateur.sparsity.schedules")
