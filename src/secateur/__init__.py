"""Secateur makes trained YOLO detectors smaller and faster and keeps their accuracy."""

# The API is imported on first use.
# ruff: noqa: F403, F405
from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateur.api import *

__all__ = [
    "Evidence", "allocate", "cut", "evaluate", "export", "file_size", "finetune", "heal", "latency", "list_costs",
    "list_criteria", "list_distillations", "list_families", "list_formats", "list_layer_scores", "list_operators",
    "list_patterns", "list_recipes", "list_schedules", "list_steps", "list_weight_criteria",
    "list_weight_schedules", "load", "mask", "predict", "prune", "remove", "repair", "save", "score", "shorten",
    "trace", "what_if", "zero",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports the API, and with it PyTorch, on first use."""
    if name in __all__:
        from secateur import api

        return getattr(api, name)
    if name == "ultralytics":
        from importlib import import_module

        return import_module("secateur.ultralytics")
    if name == "__version__":
        from importlib.metadata import version

        return version("secateur")
    raise AttributeError(f"module 'secateur' has no attribute '{name}'")
