"""The change against the dense network: accuracy or agreement, and size, in one short table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.evaluation import AGREED, agreement
from secateur.networks.checkpoint import Checkpoint
from secateur.runs.ending.next_line import EXAMPLE, pasted
from secateur.runs.progress import Progress

_SIZES = (("parameters (M)", "parameters", 1e-6, 3), ("GFLOPs", "gflops", 1, 3), ("MB in fp16", "file_mb", 1, 2))


@dataclass(frozen=True)
class Agreement:
    """The agreement between the outputs of the result and those of the dense network.

    Attributes:
        values: metrics by name, and `judged_by` with the names that tables show; empty if nothing was measured.
        images: number of images.
        reason: why nothing was measured; "" if it was.
    """

    values: Mapping[str, float]
    judged_by: Sequence[str] = ()
    images: int = 0
    reason: str = ""

    @staticmethod
    def of(dense: Checkpoint, made: Checkpoint, context: Context) -> Agreement:
        """Measures the agreement on images of the context. An error becomes the reason, because the result exists
        already.
        """
        try:
            scores = agreement(dense, made, context)
        except UserError as error:
            return Agreement({}, reason=str(error))
        return Agreement(scores.to_dict(), scores.judged_by, int(scores.counts.get("images", AGREED)))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, the `agreement` of a summary."""
        return {
            "values": dict(self.values),
            "judged_by": list(self.judged_by),
            "images": self.images,
            "reason": self.reason,
        }


def say_change(
    progress: Progress, rows: Sequence[Mapping[str, Any]], context: Context, made: Checkpoint, file: Path, name: str
) -> dict[str, Any]:
    """Prints the change against the dense network; with images but without labels, includes the agreement.

    Args:
        progress: the resumable record.
        rows: rows of the run's table.
        context: context with the dense network.
        made: the result, in `file`.
        file: file of the result.
        name: name of the result: "pruned".

    Returns:
        entries of the summary.
    """
    measured, found = bool(rows[-1]["metrics"]), None
    if not measured and context.image_source is not None:
        dense = context.dense or made
        found = Agreement(**progress.step("agreement", lambda: Agreement.of(dense, made, context).to_dict()))
    print(change_table(rows, found, name))
    if not measured:
        print(accuracy_words(found, file))
    return {} if found is None else {"agreement": found.to_dict()}


def change_table(rows: Sequence[Mapping[str, Any]], found: Agreement | None, name: str) -> str:
    """A table of the first against the last row of a run, one line per value.

    Args:
        rows: rows of the run's table.
        found: the agreement, if there are no labels.
        name: name of the result: "pruned".
    """
    first, last = rows[0], rows[-1]
    lines = [f"{'':<22}{'dense':>10}{name:>10}{'change':>10}"]
    for figure in last.get("judged_by") or () if last["metrics"] else ():
        old, new = first["metrics"][figure], last["metrics"][figure]
        lines.append(f"{figure:<22}{old:>10.3f}{new:>10.3f}{new - old:>+10.3f}")
    for figure in found.judged_by if found is not None else ():
        assert found is not None
        lines.append(f"{f'agreement, {figure}':<22}{'':>10}{found.values[figure]:>10.3f}")
    for title, key, factor, digits in _SIZES:
        before, after = first["model"][key], last["model"][key]
        lines.append(
            f"{title:<22}{before * factor:>10.{digits}f}{after * factor:>10.{digits}f}{after / before - 1:>+10.0%}"
        )
    return "\n".join(lines)


def accuracy_words(found: Agreement | None, made: Path) -> str:
    """The meaning of the agreement, or why there is none, and how to measure accuracy.

    Args:
        found: None if there were no images.
        made: file of the result.
    """
    how = f"measure it on labelled images:  {pasted('val', weights=made, data=EXAMPLE)}"
    if found is None:
        return f"Accuracy was not measured, because no images were given; {how}"
    if found.reason:
        return f"Accuracy was not measured. {found.reason} You can {how}"
    return (
        f"Agreement: the detections of the dense network on {found.images} of the given images serve as "
        "labels. 1 means identical detections; errors of the dense network count as correct. For the "
        f"accuracy, {how}"
    )
