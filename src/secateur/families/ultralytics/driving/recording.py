"""Records the boxes that the validator of the package evaluates, in pixels of the original images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.data.index import Index
from secateur.evaluation.matching import Boxes
from secateur.evaluation.record import DetectionRecord
from secateur.evaluation.settings import NmsSettings
from secateur.evaluation.validate import objects_of
from secateur.families.ultralytics.package import needed

RECORDED = ("detect", "segment", "pose")
"""Tasks with axis-aligned boxes."""


class KeptBoxes:
    """Boxes found by a validator, per image.

    Args:
        files: the files passed to the validator, in the order of the index.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self.number = {file: number for number, file in enumerate(files)}
        self.rows: dict[int, Tensor] = {}

    def watching(self, parent: type[Any]) -> type[Any]:
        """A validator class that also passes its predictions to this object."""
        kept = self

        def update_metrics(self: Any, preds: Any, batch: Any) -> Any:
            for place, found in enumerate(preds):
                kept.add(found, batch, place)
            return parent.update_metrics(self, preds, batch)

        return type("RecordingValidator", (parent,), {"update_metrics": update_metrics})

    def add(self, found: Any, batch: Any, place: int) -> None:
        """Adds the boxes of the image at an index of a batch."""
        boxes = needed("utils.ops").scale_boxes(
            batch["img"].shape[2:],
            found["bboxes"].float().clone(),
            batch["ori_shape"][place],
            ratio_pad=batch["ratio_pad"][place],
        )
        rows = torch.cat((boxes, found["conf"].float()[:, None], found["cls"].float()[:, None]), 1)
        self.rows[self.number[str(batch["im_file"][place])]] = rows.cpu()

    def record(self, index: Index, names: dict[int, str], nms: NmsSettings, *, single_cls: bool) -> DetectionRecord:
        """The record of the validation; images that the package skipped have no detections.

        Args:
            nms: suppression settings of the validator.
        """
        images = np.repeat(np.asarray(sorted(self.rows), np.int64), [len(self.rows[i]) for i in sorted(self.rows)])
        rows = torch.cat([torch.zeros(0, 6), *(self.rows[i] for i in sorted(self.rows))]).numpy().astype(np.float64)
        classes = rows[:, 5].astype(np.int64) * (0 if single_cls else 1)
        found = Boxes(images, rows[:, :4], classes, rows[:, 4])
        return DetectionRecord.of(index.files, index.shapes, objects_of(index, single_cls), found, names, nms)
