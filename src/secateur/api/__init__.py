"""The Python API: the operations of the command line as functions on checkpoints and networks."""

# The package lists the names; see there.
# ruff: noqa: F401
from __future__ import annotations

from secateur import __all__
from secateur.api.cutting import allocate, cut, heal, mask, prune, repair, score, trace
from secateur.api.forecasting import what_if
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
from secateur.api.tables import file_size, latency
from secateur.api.using import evaluate, export, finetune, predict
from secateur.pruning.evidence import LoaderEvidence as Evidence
