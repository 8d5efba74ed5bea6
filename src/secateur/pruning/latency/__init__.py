"""Latency of any selection of channels: the table of measured times, and the staircase functions that use it."""

from secateur.pruning.latency.table import (
    LEAST_R2,
    Floats,
    Ids,
    LatencyTable,
    Pair,
    Signature,
    TimedSignature,
    TracedOperation,
)

__all__ = ["LEAST_R2", "Floats", "Ids", "LatencyTable", "Pair", "Signature", "TimedSignature", "TracedOperation"]
