"""Trainers of the package ultralytics for cut networks: `YOLO("pruned.pt").train(trainer=Trainer, data=...)`.

`Trainer` is for detectors; `SegmentationTrainer`, `PoseTrainer`, `OBBTrainer` and `ClassificationTrainer` are for the
other tasks. The package ultralytics is imported on first use.
"""

from __future__ import annotations

from typing import Any

TRAINERS = ("ClassificationTrainer", "OBBTrainer", "PoseTrainer", "SegmentationTrainer", "Trainer")


def __getattr__(name: str) -> Any:
    if name not in TRAINERS:
        raise AttributeError(f"module 'secateur.ultralytics' has no attribute '{name}'")
    from secateur.families.ultralytics.trainer import trainer_named

    return trainer_named(name)
