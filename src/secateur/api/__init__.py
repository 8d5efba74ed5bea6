"""The Python API: the same words as the command line, from a checkpoint to a smaller one and out of here."""

from __future__ import annotations

from secateur.api.cutting import allocate, cut, heal, latency, mask, prune, repair, score, trace
from secateur.api.listing import (
    list_costs,
    list_criteria,
    list_distillations,
    list_families,
    list_formats,
    list_layer_scores,
    list_operators,
    list_patterns,
    list_recipes,
    list_schedules,
    list_steps,
    list_weight_criteria,
    list_weight_schedules,
)
from secateur.api.models import load, save
from secateur.api.removing import remove, shorten, zero
from secateur.api.using import evaluate, export, finetune, predict
from secateur.pruning.evidence import LoaderEvidence as Evidence

__all__ = [
    "Evidence", "allocate", "cut", "evaluate", "export", "finetune", "heal", "latency", "list_costs",
    "list_criteria", "list_distillations", "list_families", "list_formats", "list_layer_scores", "list_operators",
    "list_patterns", "list_recipes", "list_schedules", "list_steps", "list_weight_criteria",
    "list_weight_schedules", "load", "mask", "predict", "prune", "remove", "repair", "save", "score", "shorten",
    "trace", "zero",
]  # fmt: skip
