"""Milliseconds of any choice of channels: the table of measured times, and the staircase that prices with it."""

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
