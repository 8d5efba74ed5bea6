"""The report of a detector whose weights were zeroed, beside its checkpoint."""

from __future__ import annotations

from pathlib import Path

from secateur.detector.checkpoint import Checkpoint
from secateur.files import write_json, write_text
from secateur.sparsity.patterns import parse_pattern
from secateur.sparsity.report import SparsityReport, sparsity_report


def report_of(checkpoint: Checkpoint) -> SparsityReport | None:
    """Counts the zeros of a detector with masks; None for one without."""
    if not checkpoint.masks:
        return None
    # The pattern of the last weight pruning: its blocks are what the third ratio counts.
    words = [stage.settings.get("pruning_pattern") or stage.settings.get("pattern") for stage in checkpoint.history]
    names = [word for word in words if word]
    return sparsity_report(checkpoint.detector(), list(checkpoint.masks), parse_pattern(names[-1] if names else "1x1"))


def write_sparsity(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes sparsity.txt and sparsity.json and prints the ratios, where there are masks."""
    report = report_of(checkpoint)
    if report is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "sparsity.txt", report.table() + "\n")
    write_json(folder / "sparsity.json", report.to_dict())
    print(f"Zeros: {', '.join(f'{name} {value:.4f}' for name, value in report.ratios().items())}")
