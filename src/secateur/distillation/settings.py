"""The options of distillation; imports no torch, so the command line can read it fast."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DistillSettings:
    """A dense teacher that the student imitates while it trains."""

    distill: str = ""
    """What is imitated: l2, kl, bce (outputs), features, or several joined by + (bce+features); empty: nothing."""
    teacher: str = ""
    """Checkpoint of the teacher (default: the dense detector that the student was cut from)."""
    distill_weight: float = 1.0
    """Factor of the output terms."""
    distill_feature_weight: float = 1.0
    """Factor of the feature term."""
    distill_temperature: float = 0.0
    """Temperature of class scores; 0: that of the method (kl 20, bce 1)."""
    distill_warmup: float = 0.0
    """Epochs over which the factors rise from 0."""
